"""Promotion: what main says afterwards, what happened meanwhile, and what is refused before anything is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cl_steps.errors import IntegrityError, StaleRun, UsageError
from cl_steps.ledger.champion import Champion
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.steps import close, promote
from cl_steps.store import dvc
from tests.promoting import SAME, forge, on_branch, play, ready


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return ready(tmp_path / "line")


def test_the_same_promotion_again_is_the_same_version_and_another_the_next(line: Line) -> None:
    assert promote.run(line, "r-1") == promote.run(line, "r-1") == "v2"
    play(line, "r-2")
    assert promote.run(line, "r-2") == "v3"
    with reading(line.git) as main:
        assert main.numbers() == [1, 2, 3]


def test_a_champion_that_came_while_a_candidate_was_checked_makes_it_stale(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(line, "r-2")
    check = promote._check

    def meanwhile(*asked: object) -> None:
        monkeypatch.undo()
        check(*asked)  # type: ignore[arg-type]
        promote.run(line, "r-1")

    monkeypatch.setattr(promote, "_check", meanwhile)
    with pytest.raises(StaleRun):
        promote.run(line, "r-2")
    with reading(line.git) as main:
        assert main.champion().version == "v2"


def test_what_cannot_be_promoted_is_refused_before_anything_is_fetched(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(line, "r-2", SAME, "inconclusive")
    with monkeypatch.context() as patch:
        patch.setattr(dvc, "pull", lambda *_: pytest.fail("it was fetched"))
        with pytest.raises(UsageError, match="needs a person's yes"):
            promote.run(line, "r-2")
    promote.run(line, "r-1")
    with pytest.raises(StaleRun):  # and nobody is asked for a yes that would change nothing
        promote.run(line, "r-2")
    assert close.run(line, "r-2") == "held"
    with pytest.raises(StaleRun):
        promote.run(line, "r-2")


def test_what_a_run_says_that_it_read_is_what_main_had(tmp_path: Path) -> None:
    line = ready(tmp_path / "line", signed=False)
    lock = yaml.safe_load(on_branch(line, "r-1", "dvc.lock"))
    [read] = [dep for dep in lock["stages"]["drift"]["deps"] if dep["path"].startswith("state/")][:1]
    read["md5"] = f"{'0' * 32}.dir"
    forge(line, "r-1", {"dvc.lock": yaml.safe_dump(lock).encode()})
    with pytest.raises(IntegrityError, match=r"drift read another state/.* than main's then; do not promote it"):
        promote.run(line, "r-1")


def test_a_new_slice_is_held_to_the_version_that_learnt_it_and_after_a_rebase_every_slice() -> None:
    champion = Champion(version="v3", seed_plan=3, slices=("c", "a"), anchors={"a": "v1", "c": "v3"})
    following = promote.next_champion(champion, 4, ["d", "b", "a"], rebased=False)
    assert following == Champion(
        version="v4",
        seed_plan=4,
        slices=("a", "b", "c", "d"),
        anchors={"a": "v1", "b": "v4", "c": "v3", "d": "v4"},
    )
    rebased = promote.next_champion(champion, 4, ["b"], rebased=True)
    assert rebased.anchors == dict.fromkeys(("a", "b", "c"), "v4")
