"""A base on the hub, fetched by the real client from a server of these tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cl_steps.models.loading import load_pipeline
from tests.models.hub import OWNER, serving

FETCH = """
import json, sys
from huggingface_hub import constants
from cl_steps.errors import RetainError
from cl_steps.models.loading import folder_of

def fetch(name):
    try:
        return str(folder_of(name))
    except RetainError as error:
        return f"{error.exit_code} {error}"

found = {name: [fetch(name)] for name in sys.argv[1:]}
constants.HF_HUB_OFFLINE = True
for name in sys.argv[1:]:
    found[name].append(fetch(name))
print(json.dumps(found))
"""
"""What names give, and the same again without a network."""
PARTS = ("unet", "vae", "text_encoder")
HALVES = {"full": (), "half": PARTS, "mixed": ("unet",)}
"""Repositories, and of which parts there are weights in the variant `fp16` alone."""


def test_a_repository_is_fetched_whole_whatever_its_weights_files_are_called(base: Path, tmp_path: Path) -> None:
    expected = set()
    for name, halves in HALVES.items():
        repository = shutil.copytree(base, tmp_path / "hub" / name)
        (repository / "README.md").write_text("a card")
        for part in PARTS:
            [weights] = (repository / part).glob("*.safetensors")
            half = shutil.copy(weights, weights.with_suffix(".fp16.safetensors"))
            if part in halves:
                weights.unlink()
            expected.add(str((half if halves else weights).relative_to(tmp_path / "hub")))
    with serving(tmp_path / "hub") as hub:
        words = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-W", "ignore", "-c", FETCH, *(f"{OWNER}/{name}" for name in (*HALVES, "other"))]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=words, capture_output=True, text=True, check=True, cwd=root)
    found: dict[str, list[str]] = json.loads(done.stdout)
    assert {name for name in hub.fetched if name.endswith(".safetensors")} == expected
    assert found.pop("owner/other") == [
        "2 there is no model owner/other on the hub that you may read: check its name",
        "6 owner/other cannot be fetched from the hub now: try again, or give a folder",
    ]
    for folder, again in found.values():
        assert folder == again
        assert (Path(folder) / "README.md").is_file()
        assert load_pipeline(folder).unet.config.sample_size == 8
