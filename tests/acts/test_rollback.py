"""An older version is the champion again: what is restored, what happens to assets, runs and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cl_steps.commands.rollback import rollback
from cl_steps.errors import IntegrityError, StaleRun, UsageError
from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.repository.run_branch import read_run
from cl_steps.steps import close, promote
from cl_steps.store.pointers import read_dvc_file
from tests.lasting import documents, read_json
from tests.lines.playing import begin, line_after, night

HOSTILE = "why\n\nRun-Id: forged\n<script>alert(1)</script>\x1b[2J{{ 7*7 }} $(touch owned)"


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Four versions; the champion is v4."""
    return line_after(tmp_path / "line", 3)


def back(line: Line, version: str, reason: str = "worse hands", relearn: bool = False, by: str = "ops") -> str:
    return rollback(version, reason, relearn, by, "command line", str(Path(line.git).parents[1]))


def statuses(main: Mainline) -> dict[str, str]:
    return {run: intake.status for run, intake in main.ledger().intakes.items()}


def tip(line: Line) -> str:
    return text(None, "ls-remote", line.git, "refs/heads/main").split()[0]


def test_the_state_is_as_it_was_and_nothing_else_on_main_changes(line: Line) -> None:
    with reading(line.git) as before:
        assert "v2 is the champion again, after v4" in back(line, "v2")
        with reading(line.git) as main:
            then = main.at(main.version_commit("v2")).folder_files("state")
            now = main.folder_files("state")
            champion, old = json.loads(now.pop("champion.json")), json.loads(then.pop("champion.json"))
            assert now == then
            assert champion == {**old, "seed_plan": -1}
            for folder in ("versions", "data", "checks", "reports", ".dvc"):
                assert main.tree(folder) == before.tree(folder)
            for file in ("params.yaml", "dvc.yaml", "run.yaml"):
                assert main.read(file) == before.read(file)
            new = main.folder_files("events").keys() - before.folder_files("events").keys()
            [event] = [read_json(main, f"events/{name}") for name in new if name.endswith(".json")]
    assert (event["kind"], event["version"], event["from"]) == ("rollback", "v2", "v4")
    assert (event["lineage"], event["left"], event["relearn"]) == (["v1", "v2"], ["v3", "v4"], False)
    assert (event["by"], event["through"], event["reason"]) == ("ops", "command line", "worse hands")


def test_what_is_left_behind_is_set_aside_and_the_next_version_descends_from_the_restored_one(line: Line) -> None:
    told = back(line, "v2")
    assert "their 24 assets (r-2, r-3) are set aside" in told
    assert "retain export champion" in told
    assert night(line, "r-4", range(100, 112)) == "v5"
    with reading(line.git) as main:
        record = documents(main)[-1]
        assert (record["version"], record["parent"]) == ("v5", "v2")
        assert record["reports"]["ingest"]["figures"]["batch"]["runs"] == ["r-4"]
        assert statuses(main) == {"r-1": "learnt", "r-2": "set_aside", "r-3": "set_aside", "r-4": "learnt"}
        assert read_json(main, "state/champion.json")["seed_plan"] == 5


def test_with_relearn_the_next_night_learns_it_again(line: Line) -> None:
    assert "their 12 assets (r-3) wait to be learnt again" in back(line, "v3", relearn=True)
    begin(line, "r-4", until="ingest")
    assert read_run(line, "r-4").figures("ingest")["batch"]["runs"] == ["r-3"]


def test_forward_again_makes_everything_learnt(line: Line) -> None:
    with reading(line.git) as before:
        back(line, "v2")
        assert "no version is left behind" in back(line, "v4")
        with reading(line.git) as main:
            assert set(statuses(main).values()) == {"learnt"}
            assert read_json(main, "state/champion.json")["seed_plan"] == -2
            for part in ("adapter", "replay", "reference", "global_eval"):
                assert main.read(f"state/{part}.dvc") == before.read(f"state/{part}.dvc")


def test_the_same_again_says_so_and_changes_nothing(line: Line) -> None:
    back(line, "v2")
    before = tip(line)
    assert "nothing changed" in back(line, "v2")
    assert tip(line) == before
    with pytest.raises(UsageError, match="champion already"):
        back(line, "v2", reason="another")


def test_there_and_back_and_there_is_not_the_same_again(line: Line) -> None:
    back(line, "v2")
    back(line, "v4")
    assert "v2 is the champion again, after v4" in back(line, "v2")


@pytest.mark.parametrize("version", ["v9", "champion", "v0", "v4", "<b>", "v2\n"])
def test_refused(line: Line, version: str) -> None:
    before = tip(line)
    with pytest.raises(UsageError):
        back(line, version)
    assert tip(line) == before


def test_a_reason_is_needed(line: Line) -> None:
    with pytest.raises(UsageError, match="reason"):
        back(line, "v2", reason=" ")


def test_runs_under_way_are_stale_also_where_the_state_came_back(line: Line) -> None:
    begin(line, "r-4", range(100, 112))
    back(line, "v2")
    back(line, "v4")
    with pytest.raises(StaleRun, match="trigger a new run"):
        promote.run(line, "r-4")
    assert close.run(line, "r-4") == "stale"
    with reading(line.git) as main:
        assert main.ledger().pending(3) == ("r-4",)


def test_nothing_is_written_where_an_object_is_missing(line: Line) -> None:
    with reading(line.git) as main:
        then = main.at(main.version_commit("v2"))
        name = str(read_dvc_file(then.read("state/replay.dvc") or b"")["md5"])
    (Path(line.store) / "files/md5" / name[:2] / name[2:]).unlink()
    before = tip(line)
    with pytest.raises(IntegrityError, match="replay"):
        back(line, "v2")
    assert tip(line) == before


def test_a_hostile_reason_is_in_the_event_and_nowhere_else(line: Line) -> None:
    back(line, "v2", reason=HOSTILE)
    with reading(line.git) as main:
        assert main.ledger().rollbacks[-1].reason == HOSTILE
        message = text(main.folder, "log", "-1", "--format=%B", main.tip)
    assert message.splitlines()[0] == "roll back to v2"
    assert "Run-Id" not in message
    assert "script" not in message
