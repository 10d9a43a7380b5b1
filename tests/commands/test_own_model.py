"""A user's own pipeline and feature model, with no data of what it knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.commands.conftest import SETTINGS, Cli
from tests.data.landings import encoded, jsonl, picture, put
from tests.tiny import make_tiny_clip, make_tiny_pipeline


def test_own_models_without_data_begin_with_the_bases_own_samples(tmp_path: Path, cli: Cli) -> None:
    make_tiny_pipeline(tmp_path / "base")
    make_tiny_clip(tmp_path / "clip")
    models = ("--base", tmp_path / "base", "--extractor", tmp_path / "clip")
    command = [sys.executable, "-m", "cl_steps", "init", tmp_path / "line", *models, *SETTINGS]
    words = {name: word for name, word in os.environ.items() if not name.endswith("_VERBOSITY")}
    said = subprocess.run(command, capture_output=True, text=True, env=words, check=True).stderr
    assert all(line.startswith("init: ") for line in said.splitlines()), (
        f"libraries warn of what nobody can help: {said}"
    )
    code, printed, _ = cli("versions", tmp_path / "line", "--json")
    assert list(json.loads(printed)["versions"][0]["slices"]) == ["general"]
    names = [f"{number}.png" for number in range(40)]
    for number, name in enumerate(names):
        put(tmp_path / "line" / "landing", name, encoded(picture(number)))
    jsonl(tmp_path / "line" / "landing", *({"file_name": name, "text": f"picture {name}"} for name in names))
    code, printed, said = cli("night", tmp_path / "line", "--until", "update")
    assert code == 0, said
    assert "first data of slice general" in said
