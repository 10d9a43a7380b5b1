"""`retain check` as a user calls it: before there is a line, and beside one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands.conftest import Cli
from tests.data.landings import fill


def test_before_there_is_a_line(tmp_path: Path, cli: Cli) -> None:
    fill(tmp_path / "new", range(3))
    code, printed, _ = cli("check", tmp_path / "new", "--dir", tmp_path, "--set", "ingest.min_side=40")
    assert (code, "3 x too_small" in printed) == (0, True)
    code, printed, _ = cli("check", tmp_path / "new", "--dir", tmp_path, "--json")
    assert (code, json.loads(printed)["counts"]["new"]) == (0, 3)


def test_in_a_workspace_with_its_knobs_and_its_base(line: Path, cli: Cli) -> None:
    before = sorted(line.rglob("*"))
    code, printed, _ = cli("check", line / "landing", "--dir", line)
    assert (code, "are longer than the base reads" in printed) == (0, True)
    assert sorted(line.rglob("*")) == before


def test_what_cannot_be_looked_at_is_one_sentence(tmp_path: Path, cli: Cli) -> None:
    assert cli("check", tmp_path / "none")[0] == 3
    assert cli("check", tmp_path, "--set", "ingest.nonsense=1")[0] == 2
    assert cli("check", tmp_path, "--base", tmp_path)[0] == 2
