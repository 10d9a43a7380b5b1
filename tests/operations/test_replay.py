"""Exact unlearning: a line played again without an image is, to the byte, a line that never saw it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cl_steps.commands.prune import prune
from cl_steps.commands.reproduce import reproduce
from cl_steps.commands.rollback import rollback
from cl_steps.commands.withdraw import withdraw
from cl_steps.errors import UsageError
from cl_steps.ledger.fold import Ledger
from cl_steps.operations import play as steps
from cl_steps.pipeline import STAGES, Step
from cl_steps.repository.git import remote_refs
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import reading
from cl_steps.steps import promote
from cl_steps.verify.verification import verify
from tests.lines.fake_model import stage
from tests.lines.playing import line_after, make_line, night, sha_of

UNWANTED = 43
"""Came with the second night."""


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are run by name are those of `playing`, and every gate says `promote`."""
    real = steps.load

    def load_stage(step: Step) -> Any:
        return stage(step.name, {"drift": "drifted", "gate": "promote"}) if step in STAGES else real(step)

    monkeypatch.setattr(steps, "load", load_stage)
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """v4 after three nights."""
    return line_after(tmp_path_factory.mktemp("lines") / "line", nights=3)


def folder_of(line: Line) -> str:
    return str(Path(line.landing).parent)


def state(line: Line) -> dict[str, bytes]:
    with reading(line.git) as main:
        return {name: content for name, content in main.folder_files("state").items() if name.endswith(".dvc")}


def ledger(line: Line) -> Ledger:
    with reading(line.git) as main:
        return main.ledger()


def again(line: Line, start: str, to: Path, *shas: str) -> dict[str, Any]:
    found = reproduce("champion", start, list(shas), str(to), folder_of(line), json=True)
    assert isinstance(found, dict)
    return found


def test_the_line_without_it_has_the_state_of_one_that_never_saw_it(line: Line, tmp_path: Path) -> None:
    before = remote_refs(line.git)
    found = again(line, "v2", tmp_path / "again", sha_of(UNWANTED))
    clean = line_after(tmp_path / "clean", nights=1)
    assert night(clean, "r-2", [n for n in range(40, 52) if n != UNWANTED]) == "v3"
    assert night(clean, "r-3", range(60, 72)) == "v4"
    made = resolve(str(tmp_path / "again"))
    assert state(made) == state(clean)
    assert state(made) != state(line)
    assert found["champion"] == {"then": "v4", "now": "v4"}
    assert [(row["run"], row["then"], row["now"]) for row in found["runs"]] == [
        ("r-2", "promoted v3", "promoted v3"),
        ("r-3", "promoted v4", "promoted v4"),
    ]
    assert found["slices"]["new"]["loss"] == [0.9, 0.9]
    assert remote_refs(line.git) == before
    assert (tmp_path / "again/state/replay/manifest.parquet").is_file()
    assert not verify(made, None, None).faults, "the versions before are whole there, too"
    assert prune(str(tmp_path / "again"), days=0, dry_run=True, json=True)["runs"] == []


@pytest.mark.slow
def test_nothing_left_out_gives_the_same_line(line: Line, tmp_path: Path) -> None:
    again(line, "v1", tmp_path / "again")
    assert state(resolve(str(tmp_path / "again"))) == state(line)


def test_a_batch_of_before_that_was_asked_for_again_is_there(tmp_path: Path) -> None:
    line = line_after(tmp_path / "line", nights=1)
    assert night(line, "r-2", (), batch="r-1") == "v3"
    found = again(line, "v2", tmp_path / "again", sha_of(UNWANTED))
    assert [(row["run"], row["now"]) for row in found["runs"]] == [("r-2", "promoted v3")]


def test_a_version_that_knows_it_is_refused_and_the_last_clean_one_named(line: Line, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="begin with v2"):
        again(line, "v4", tmp_path / "again", sha_of(UNWANTED))
    with pytest.raises(UsageError, match="retain init"):
        again(line, "v4", tmp_path / "again", sha_of(3))
    for start, to, sha in (("v2", "", sha_of(1)), ("", "x", sha_of(1)), ("v2", "x", "no-sha")):
        with pytest.raises(UsageError):
            reproduce("champion", start, [sha], to, folder_of(line), json=True)


@pytest.mark.slow
def test_what_waited_at_the_beginning_is_forgotten_too(tmp_path: Path) -> None:
    line = make_line(tmp_path / "line")
    assert night(line, "r-0", range(12, 20), {"drift": "quiet"}) == "no_update"
    assert night(line, "r-1", range(20, 36)) == "v2"
    again(line, "v1", tmp_path / "again", sha_of(14))
    clean = make_line(tmp_path / "clean")
    assert night(clean, "r-0", [n for n in range(12, 20) if n != 14], {"drift": "drifted"}) == "v2"
    made = resolve(str(tmp_path / "again"))
    # Here no night is quiet, so that the first already learns.
    assert ledger(made).outcome("r-0") == "promoted"
    with reading(made.git) as main:
        first = main.at(main.version_commit("v2")).folder_files("state")
    assert {name: content for name, content in first.items() if name.endswith(".dvc")} == state(clean)


@pytest.mark.slow
def test_an_erased_image_and_a_rollback_are_played_too(tmp_path: Path) -> None:
    line = line_after(tmp_path / "line", nights=3)
    rollback("v3", "it was worse", False, "somebody", "command line", folder_of(line))
    withdraw(sha_of(UNWANTED), None, "no consent", True, "somebody", "command line", folder_of(line), False)
    found = again(line, "v2", tmp_path / "again", sha_of(UNWANTED))
    made = resolve(str(tmp_path / "again"))
    assert [row["run"] for row in found["runs"]] == ["r-2", "r-3", "rollback"]
    assert found["champion"] == {"then": "v3", "now": "v3"}
    assert ledger(made).intakes["r-3"].status == "set_aside"
    clean = line_after(tmp_path / "clean", nights=1)
    night(clean, "r-2", [n for n in range(40, 52) if n != UNWANTED])
    assert state(made) == state(clean)
