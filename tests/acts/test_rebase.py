"""A new base under a line whose model is none: what moves, what stays, and what every command says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from cl_steps.commands.answer import approve, refuse
from cl_steps.commands.diff import diff
from cl_steps.commands.lineage import lineage
from cl_steps.commands.reproduce import reproduce
from cl_steps.commands.rollback import rollback
from cl_steps.commands.status import runs, versions
from cl_steps.commands.withdraw import withdraw
from cl_steps.config import RunSpec
from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError, StaleRun, UsageError
from cl_steps.ledger.events import event_of, event_path
from cl_steps.ledger.schemas import event_fault, record_fault
from cl_steps.operations import play as steps
from cl_steps.operations.models import fetched
from cl_steps.pipeline import NEW_BASE, STAGES, STEPS, Step, of_run
from cl_steps.records.builders import now
from cl_steps.records.signer import event_files
from cl_steps.report.collect import collect
from cl_steps.report.page import render
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.repository.rebase_branch import STAGE, rebased
from cl_steps.repository.run_branch import open_run, read_run
from cl_steps.run.stage import checked_out, run_stage
from cl_steps.steps import close, promote
from cl_steps.store.pointers import lock_outs, read_dvc_file
from cl_steps.trace.assets import where
from cl_steps.verify.before_loading import check_state
from cl_steps.verify.verification import verify
from tests.lasting import documents, read_json
from tests.lines.fake_model import stage
from tests.lines.playing import ask_for, begin, copied, finish, line_after, night, rebase, sha_of
from tests.lines.small import GOOD, make_workspace, play
from tests.lines.tampering import _copied as signed_copy
from tests.lines.tampering import commit, kinds, line_of_three, on_main, rewrite, seen

ROOT = Path(__file__).parents[2]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Two versions; what the base was is `base`."""
    return line_after(tmp_path / "line", 1)


def folder_of(line: Line) -> str:
    return str(Path(line.git).parents[1])


def state_of(main: Mainline) -> dict[str, str]:
    files = main.folder_files("state")
    return {n.removesuffix(".dvc"): str(read_dvc_file(c)["md5"]) for n, c in files.items() if n.endswith(".dvc")}


def base_of(line: Line) -> str:
    with reading(line.git) as main:
        return state_of(main)["base"]


def test_a_rebases_branch_has_the_pipeline_that_its_steps_play() -> None:
    stages = rebased(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert list(stages) == [STAGE, *(step.name for step in STAGES)]
    assert (stages[STAGE]["outs"], stages[STAGE]["frozen"]) == ([NEW_BASE], True)
    for step in STAGES:
        assert set(stages[step.name]["deps"]) == set(of_run(step, rebase=True).reads) - {"landing"}
        assert of_run(step, rebase=False) is step
    assert {step.name for step in STAGES if NEW_BASE in of_run(step, rebase=True).reads} == {"update", "evaluate"}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Rebased by r-3 (v3) while the quiet r-2 waited, which r-4 (v4) learnt; nobody changes it any more."""
    found = line_after(tmp_path_factory.mktemp("moved") / "line", 1)
    assert night(found, "r-2", range(300, 312), {"drift": "quiet"}) == "no_update"
    assert rebase(found, "r-3") == "v3"
    assert night(found, "r-4", range(320, 332)) == "v4"
    return found


def test_the_base_is_another_and_nothing_was_taken_in(moved: Line) -> None:
    with reading(moved.git) as main:
        at = main.at(main.version_commit("v3"))
        old, new = state_of(main.at(main.version_commit("v2"))), state_of(at)
        record, champion, ledger = documents(main)[2], read_json(at, "state/champion.json"), at.ledger()
    asked = ledger.rebases["r-3"]
    assert {part for part in new if new[part] != old[part]} == {"base", "adapter", "anchors", "evaluation"}
    assert (asked.before, asked.after["md5"]) == (old["base"], new["base"])
    assert record["rebase"] == {"event": asked.id, "before": old["base"], "after": new["base"]}
    assert ledger.runs["r-3"].document()["rebase"] == record["rebase"]
    assert (record["digests"]["base"], record["parent"]) == (new["base"], "v2")
    assert (record["trigger"]["by"], record["trigger"]["reason"]) == ("ops", "it draws hands")
    assert [path for path in record["files"] if path.startswith("base/")] == ["base/weights"]
    assert champion["anchors"] == {"old": "v3", "new": "v3"}
    assert ledger.pending(3) == ("r-2",)
    assert ledger.runs["r-3"].intake.assets == 0
    assert "r-3" not in ledger.intakes
    assert record_fault(record) is None
    assert [event_fault(event.document()) for event in (asked, ledger.runs["r-3"])] == [None] * 2


def test_nights_go_on_from_the_new_base_and_read_no_other(moved: Line) -> None:
    with reading(moved.git) as main:
        records, champion, ledger = documents(main), read_json(main, "state/champion.json"), main.ledger()
    assert records[3]["digests"]["base"] == records[2]["digests"]["base"] != records[1]["digests"]["base"]
    assert "rebase" not in records[3]
    assert records[3]["files"]["base/weights"] == records[2]["files"]["base/weights"]
    assert set(records[3]["stages"]) == {step.name for step in STAGES}
    assert NEW_BASE not in json.dumps(records[3]["stages"])
    assert set(champion["anchors"].values()) == {"v3"}
    assert ledger.intakes["r-2"].versions == ["v4"]
    assert not verify(moved, None, None).findings


def test_rolling_back_across_a_rebase_brings_the_old_base_back(moved: Line, tmp_path: Path) -> None:
    line = copied(Path(folder_of(moved)), tmp_path / "line")
    new = base_of(line)
    rollback("v2", "worse hands", False, "ops", "command line", folder_of(line))
    with reading(line.git) as main:
        assert state_of(main) == state_of(main.at(main.version_commit("v2")))
        assert state_of(main)["base"] != new
    assert night(line, "r-5", range(340, 352)) == "v5"
    rollback("v3", "better after all", False, "ops", "command line", folder_of(line))
    assert base_of(line) == new
    assert not verify(line, None, None).faults


def test_a_base_that_the_line_stands_on_is_refused_and_nothing_is_written(line: Line) -> None:
    with reading(line.git) as before, pytest.raises(UsageError, match="on this base already"):
        ask_for(line, "r-2", "base")
    with reading(line.git) as main:
        assert main.tip == before.tip


def test_a_branch_cannot_bring_a_base_that_nobody_asked_for(line: Line) -> None:
    with pytest.raises(UsageError, match="`retain rebase`"):
        open_run(line, RunSpec(id="r-2", rebase="0" * 32 + ".dir"))
    md5 = ask_for(line, "r-3")
    with pytest.raises(UsageError, match="`retain rebase`"):
        open_run(line, RunSpec(id="r-4", rebase=md5))
    begin(line, "r-3", rebase=md5)
    with forged_branch(line, "r-3", md5, base_of(line)), pytest.raises(IntegrityError, match="another base"):
        finish(line, "r-3")


def forged_branch(line: Line, run: str, old: str, new: str) -> Any:
    """A branch whose run.yaml and lock name another base than the act, as whoever runs steps could write it."""
    state = read_run(line, run)
    lock = json.loads(json.dumps(state.lock).replace(old, new))
    spec = state.spec.model_copy(update={"rebase": new})
    return patch.object(promote, "run_state", lambda _: type(state)(spec, state.reports, lock, state.tip))


def test_a_step_loads_no_other_base_than_the_one_asked_for(tmp_path: Path) -> None:
    line = line_of_three(tmp_path / "line")
    md5 = ask_for(line, "r-200")
    spec = open_run(line, RunSpec(id="r-200", rebase=md5))
    with checked_out(line, spec.id) as root:
        for part, content in {"base": "base", "adapter": "tonight/candidate/adapter r-100"}.items():
            (root / "state" / part).mkdir()
            (root / "state" / part / "bytes").write_text(content)
        (root / NEW_BASE).mkdir(parents=True)
        (root / NEW_BASE / "weights").write_text("a new base")
        step = of_run(STEPS["update"], rebase=True)
        check_state(line, root, step)
        (root / NEW_BASE / "weights").write_text("a worse base")
        with pytest.raises(IntegrityError, match="base/weights is not that of the rebase"):
            check_state(line, root, step)
        (root / NEW_BASE / "weights").write_text("a new base")
        unsigned(line, "r-200")
        with pytest.raises(IntegrityError, match="should be signed"):
            check_state(line, root, step)


def unsigned(line: Line, run: str) -> None:
    """Take the signature of an act away."""
    with reading(line.git) as main:
        event = main.ledger().rebases[run].id
    commit(line, {f"events/{event}.sig": None})


def test_what_made_a_version_says_so(moved: Line, tmp_path: Path) -> None:
    folder = folder_of(moved)
    tree = str(lineage("v3", folder, str(tmp_path / "v3.html"), False))
    assert ", in place of " in tree
    assert "none: the method distils nothing" in tree
    assert "ops on" in tree
    assert "it draws hands" in tree
    page = (tmp_path / "v3.html").read_text()
    assert "new base" in page
    assert "compared with it" in page
    told = str(diff("v2", "v3", folder, str(tmp_path / "diff.html"), False))
    assert "the base changed: " in told
    assert "the base is another" in (tmp_path / "diff.html").read_text()
    assert "the base changed" not in str(diff("v3", "v4", folder, None, False))
    assert "from v2, on a new base" in str(versions(folder, False))
    assert " rebase " in str(runs(folder, False))
    assert "a new base, by ops" in render(collect(moved))


def test_what_a_rebase_learns_is_replayed_and_not_taught(moved: Line) -> None:
    kept = [where(moved, sha_of(number)) for number in range(12)]
    replayed = [found for found in kept if "v2" in found.replay and found.facts and found.facts["split"] == "train"]
    assert replayed
    assert all("v3" in found.replayed_by for found in replayed)
    assert {taught for found in replayed for _, taught in found.teachers} == {"v4"}


def test_a_model_is_fetched_with_the_base_of_its_version(moved: Line) -> None:
    for version, weights in (("v2", "base"), ("champion", "a new base")):
        with fetched(moved, version) as model:
            assert (model.base / "weights").read_text() == weights


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line whose stages write a few bytes."""
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)
    return make_workspace(tmp_path / "small")


def played(line: Line, run: str, gate: str = "promote", weights: str = "") -> str:
    """A night's stages, or those of a rebase to a base of these weights."""
    play(line, run, {**GOOD, "gate": gate}, rebase=ask_for(line, run, weights) if weights else None)
    return run


def test_a_held_rebase_is_answered_as_any_run(small: Line) -> None:
    assert close.run(small, played(small, "r-2", "inconclusive", "a new base")) == "held"
    assert approve("r-2", "looks good", "ann", "command line", folder_of(small)) == "approved: v2"
    assert close.run(small, played(small, "r-3", "inconclusive", "a third")) == "held"
    assert "keeps its base" in refuse("r-3", "no", "ann", "command line", folder_of(small))


def test_a_yes_that_comes_too_late_stops_no_night(small: Line) -> None:
    assert close.run(small, played(small, "r-2", "inconclusive", "a new base")) == "held"
    assert promote.run(small, played(small, "r-3")) == "v2"
    with pytest.raises(StaleRun):
        approve("r-2", "looks good", "ann", "command line", folder_of(small))
    assert open_run(small, RunSpec(id="r-4")).batch is None


def test_of_a_rebase_and_a_night_the_slower_is_stale(small: Line) -> None:
    slow = [played(small, "r-2", weights="a new base"), played(small, "r-3")]
    assert promote.run(small, played(small, "r-4", weights="another")) == "v2"
    for run in slow:
        with pytest.raises(StaleRun):
            promote.run(small, run)
        assert close.run(small, run) == "stale"


def test_a_rejected_rebase_leaves_all_as_it_was(line: Line) -> None:
    old = base_of(line)
    assert rebase(line, "r-2", verdicts={"gate": "reject"}) == "rejected"
    assert base_of(line) == old
    assert not verify(line, None, None).findings


def test_what_is_withdrawn_is_not_learnt_on_the_new_base(line: Line) -> None:
    begin(line, "r-2", rebase=ask_for(line, "r-2"))
    with reading(line.git) as main:
        kept = str(read_dvc_file(main.read("state/replay.dvc") or b"")["md5"])
    number = next(n for n in range(12) if "v2" in where(line, sha_of(n)).replay)
    withdraw(sha_of(number), None, "asked to", False, "ann", "command line", folder_of(line), False)
    assert finish(line, "r-2") == "stale"
    assert rebase(line, "r-3", "another") == "v3"
    with reading(line.git) as main:
        assert state_of(main)["replay"] != kept
    assert "v3" not in where(line, sha_of(number)).replayed_by


class PowerCut(BaseException):
    """Ends a promotion where it stands."""


@pytest.mark.parametrize("landed", [False, True])
def test_a_promotion_that_was_killed_is_before_or_after(line: Line, landed: bool) -> None:
    begin(line, "r-2", rebase=ask_for(line, "r-2"))
    old, push = base_of(line), Mainline.push

    def cut(self: Mainline, change: Change) -> bool:
        if landed:
            push(self, change)
        raise PowerCut

    with patch.object(Mainline, "push", cut), pytest.raises(PowerCut):
        finish(line, "r-2")
    with reading(line.git) as main:
        assert read_json(main, "state/champion.json")["version"] == ("v3" if landed else "v2")
        assert (state_of(main)["base"] != old) is landed
    assert finish(line, "r-2") == "v3"
    assert not verify(line, None, None).findings


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps that are run by name are those of `playing`, and every gate says `promote`."""
    real = steps.load

    def load_stage(step: Step) -> Any:
        return stage(step.name, {"drift": "drifted", "gate": "promote"}) if step in STAGES else real(step)

    monkeypatch.setattr(steps, "load", load_stage)
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)
    return


@pytest.mark.usefixtures("fake_model")
def test_a_rebased_version_is_made_again_bit_for_bit(moved: Line) -> None:
    found = reproduce("v3", None, [], None, folder_of(moved), json=True)
    assert isinstance(found, dict)
    assert found["equal"]


@pytest.mark.slow
@pytest.mark.usefixtures("fake_model")
def test_a_line_is_played_again_across_a_rebase(line: Line, tmp_path: Path) -> None:
    rebase(line, "r-2")
    assert night(line, "r-3", range(320, 332)) == "v4"
    found = reproduce("champion", "v2", [], str(tmp_path / "again"), folder_of(line), json=True)
    assert isinstance(found, dict)
    assert [(row["then"], row["now"]) for row in found["runs"]] == [("promoted v3",) * 2, ("promoted v4",) * 2]
    with reading(line.git) as main, reading(resolve(str(tmp_path / "again")).git) as again:
        assert state_of(main) == state_of(again)


def signed_rebase(line: Line) -> str:
    """Promote a rebase of a line whose stages write a few bytes; returns the path of its act."""
    play(line, "r-200", GOOD, rebase=ask_for(line, "r-200"))
    with patch.object(promote, "_check_figures", lambda *_: None):
        assert promote.run(line, "r-200") == "v4"
    close.run(line, "r-200")
    with reading(line.git) as main:
        return f"events/{main.ledger().rebases['r-200'].id}.json"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a signed line whose v4 is of a rebase, and the path of the act."""
    folder = tmp_path_factory.mktemp("signed") / "line"
    line = line_of_three(folder)
    act = signed_rebase(line)
    assert not seen(line).findings
    return folder, act


def test_an_act_that_was_changed_vouches_for_no_base(signed: tuple[Path, str], tmp_path: Path) -> None:
    line, act = signed_copy(signed[0], tmp_path / "line"), signed[1]
    rewrite(line, {act: json_text({**json.loads(on_main(line, act)), "reason": "nobody's"}).encode()})
    found = kinds(seen(line))
    assert found[act] == {"bad_signature"}
    assert "inconsistent" in found["v4 record"]


def test_an_act_that_is_gone_or_of_nobody_or_of_later_is_missed(signed: tuple[Path, str], tmp_path: Path) -> None:
    line, act = signed_copy(signed[0], tmp_path / "line"), signed[1]
    event = json.loads(on_main(line, act))
    commit(line, {act.removesuffix(".json") + ".sig": None})
    found = kinds(seen(line))
    assert "unsigned" in found[act]
    assert found["v4 record"] == {"inconsistent"}
    commit(line, {act: None})
    assert kinds(seen(line))["v4 record"] == {"inconsistent"}
    path = event_path("rebase", "r-200")
    commit(line, event_files(line, path, event_of({**event, "id": Path(path).stem, "at": now()})))
    assert kinds(seen(line))["v4 record"] == {"inconsistent"}


def test_a_base_that_moves_without_a_rebase_is_seen(signed: tuple[Path, str], tmp_path: Path) -> None:
    line = signed_copy(signed[0], tmp_path / "line")
    with reading(line.git) as main:
        old = main.at(main.version_commit("v3")).read("state/base.dvc")
    commit(line, {"state/base.dvc": old})
    assert kinds(seen(line)) == {"state/base.dvc": {"rewritten", "inconsistent"}}


def test_the_stages_of_a_rebase_are_done_once_and_their_lock_names_the_new_base(line: Line) -> None:
    md5 = ask_for(line, "r-2")
    begin(line, "r-2", rebase=md5)
    tip = read_run(line, "r-2").tip
    for step in STAGES:
        run_stage(line, "r-2", step, lambda _: pytest.fail("it ran again"))
    state = read_run(line, "r-2")
    assert state.tip == tip
    assert lock_outs(state.lock)[NEW_BASE]["md5"] == md5
    read = {name: {dep["path"] for dep in state.lock[name]["deps"]} for name in ("drift", "update", "evaluate")}
    assert [NEW_BASE in paths for paths in read.values()] == [False, True, True]
