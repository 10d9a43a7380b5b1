"""A line that learns by several methods: what they keep is promoted, signed and gone on from like the adapter."""

from __future__ import annotations

import json
from pathlib import Path

from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading
from tests.commands.conftest import SETTINGS, Cli
from tests.commands.test_every_family import EXTRACTOR
from tests.data.landings import fill
from tests.tiny import make_tiny_pipeline

METHOD = ("--set", 'update.method=["replay", "ewc", "agem"]', "--set", "update.methods.ewc.draws=8")


def test_two_nights_by_several_methods(tmp_path: Path, cli: Cli) -> None:
    line = tmp_path / "line"
    make_tiny_pipeline(tmp_path / "base", side=32)
    fill(tmp_path / "known", range(60))
    models = ("--base", tmp_path / "base", "--extractor", EXTRACTOR, "--data", tmp_path / "known")
    code, _, said = cli("init", line, *models, *SETTINGS, *METHOD)
    assert code == 0, said
    figures = []
    for night in range(2):
        fill(line / "landing" / f"night {night}", range(100 + 40 * night, 130 + 40 * night))
        code, _, said = cli("night", line, "--force", "--reason", "to see what is kept")
        assert code == 0, said
        with reading(resolve(str(line)).git) as main:
            record = json.loads(main.read(f"versions/v{night + 2:04d}.json") or b"{}")
        figures.append(record["reports"]["update"]["figures"])
        assert "adapter/kept/ewc.safetensors" in record["files"]
    assert [own["methods"] for own in figures] == [["agem", "ewc", "replay"]] * 2
    assert all(own["projected_share"] is not None and own["loss_ewc"] >= 0 for own in figures)
    code, _, said = cli("verify", "--all", "--dir", line)
    assert code == 0, said
    code, found, said = cli("lineage", "v3", "--dir", line, "--json")
    assert code == 0, said
    assert "ewc" in json.dumps(json.loads(found)["parameters"])
