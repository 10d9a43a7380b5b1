"""Promotion: what the writers of a run's branch, or of other refs, cannot get past; what a person must say first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cl_steps.commands import answer
from cl_steps.commands.answer import approve, refuse
from cl_steps.commands.backup import backup
from cl_steps.commands.status import runs
from cl_steps.commands.verify import verify
from cl_steps.config import RunSpec
from cl_steps.errors import IntegrityError, RetainError, StaleRun, UsageError
from cl_steps.operations.page import write_report
from cl_steps.pipeline import EVALUATE, GATE, STAGES
from cl_steps.records.keys import make_keys
from cl_steps.repository.git import git, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from cl_steps.repository.run_branch import checked_out, open_run, read_run
from cl_steps.run.stage import run_stage
from cl_steps.stats.figures import Figures
from cl_steps.steps import close, promote
from cl_steps.store import dvc
from cl_steps.verify.judging import CANDIDATE, FIGURES, Judging
from tests.lasting import documents
from tests.lines.small import GOOD
from tests.promoting import SAME, forge, on_branch, play, ready, stage
from tests.stats.nights import night

WORSE = night(fidelity={"black-ink": -0.5})
UNSURE = "inconclusive"


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return ready(tmp_path / "line")


def folder_of(line: Line) -> str:
    return str(Path(line.git).parents[1])


def versions(line: Line) -> int:
    with reading(line.git) as main:
        return len(main.numbers())


def change_main(line: Line, files: dict[str, bytes | None]) -> None:
    """As the owner of the line does."""
    with reading(line.git) as main:
        main.swap(lambda: Change(files, "the owner's own\n"))


@contextmanager
def refused(line: Line, kind: type[RetainError], words: str) -> Iterator[None]:
    """Nothing is promoted, and what main says stays as a verification wants it."""
    before = versions(line)
    with pytest.raises(kind, match=words):
        yield
    assert versions(line) == before
    assert "all as it should be" in str(verify("champion", True, None, folder_of(line), False))


def test_an_honest_candidate_is_promoted_and_its_record_says_what_it_rests_on(line: Line) -> None:
    begun = remote_refs(line.git, "refs/heads/begun/r-1")["refs/heads/begun/r-1"]
    assert promote.run(line, "r-1") == "v2"
    with reading(line.git) as main:
        record = documents(main)[-1]
    assert record["custody"] == "one person"
    assert record["begun"]["commit"] == begun
    assert set(record["judged"]) == {"evaluate", "gate"}
    assert "all as it should be" in str(verify("champion", True, None, folder_of(line), False))


def test_a_promotion_without_the_judges_key_at_hand_says_that_the_keys_are_apart(line: Line) -> None:
    assert promote.run(replace(line, judge_key=""), "r-1") == "v2"
    with reading(line.git) as main:
        assert documents(main)[-1]["custody"] == "separate"


# What the writer of a run's branch can do.


@pytest.mark.parametrize(
    "path",
    [
        "params.yaml", "run.yaml", "dvc.yaml", "checks/test_no.py", "state/base.dvc", "state/champion.json",
        "events/20260101T000000000000Z-answer-r-1.json", "versions/v0002.json", ".dvc/config", ".gitattributes",
        "data/r-9.dvc", "reports", "dvc.lock.d/x", "Reports/gate.json",
    ],
)  # fmt: skip
def test_what_only_main_may_say_is_not_read_on_a_runs_branch(line: Line, path: str) -> None:
    forge(line, "r-1", {path: b"{}\n"} if path != "reports" else {path + "\t": b""})
    with refused(line, IntegrityError, "steps write dvc.lock and reports/ alone"):
        promote.run(line, "r-1")
    with pytest.raises(IntegrityError, match="find out who writes there"):
        read_run(line, "r-1")
    assert close.run(line, "r-1") == "failed"
    with reading(line.git) as main:
        assert main.ledger().runs["r-1"].intake is None


def test_a_check_that_main_has_is_not_taken_away_on_a_branch(tmp_path: Path) -> None:
    line = ready(tmp_path / "line")
    change_main(line, {"checks/test_no.py": b"def test_no(): assert False\n"})
    play(line, "r-2")
    forge(line, "r-2", {"checks/test_no.py": None})
    with refused(line, IntegrityError, r"changes 'checks/test_no\.py'"):
        promote.run(line, "r-2")


def test_a_link_in_the_place_of_a_report_is_refused(line: Line) -> None:
    forge(line, "r-1", {"reports/gate.json": b"/etc/hostname"}, mode="120000")
    with refused(line, IntegrityError, "symbolic link"):
        promote.run(line, "r-1")


@pytest.mark.parametrize("name", [step.name for step in STAGES])
def test_a_report_that_was_changed_after_the_gate_does_not_count(line: Line, name: str) -> None:
    path = f"reports/{name}.json"
    document = json.loads(on_branch(line, "r-1", path))
    forge(line, "r-1", {path: json.dumps({**document, "why": "as I say"}).encode()})
    with refused(line, IntegrityError, rf"reports/{name}\.json is not what the judge signed"):
        promote.run(line, "r-1")
    assert close.run(line, "r-1") == "failed"


OUTPUTS = (
    "tonight/intake", "tonight/drift/reference", "tonight/candidate/adapter", "tonight/candidate/replay",
    "tonight/evaluation/global_eval", "tonight/evaluation/anchors", "tonight/evaluation/figures",
)  # fmt: skip


@pytest.mark.parametrize("path", OUTPUTS)
def test_what_becomes_state_cannot_be_swapped_after_the_gate(line: Line, path: str) -> None:
    lock = yaml.safe_load(on_branch(line, "r-1", "dvc.lock"))
    outs = {out["path"]: out for stage in lock["stages"].values() for out in stage["outs"]}
    other = outs["tonight/evaluation/samples"]
    outs[path].update({key: other[key] for key in ("md5", "size", "nfiles")})
    forge(line, "r-1", {"dvc.lock": yaml.safe_dump(lock).encode()})
    with refused(line, IntegrityError, f"{path} is not what the judge signed"):
        promote.run(line, "r-1")


@pytest.mark.parametrize("name", ["evaluate", "gate"])
@pytest.mark.parametrize("how", ["gone", "of another run", "another key", "the key that signs versions", "bytes"])
def test_a_forged_signature_of_a_judge_does_not_count(line: Line, tmp_path: Path, name: str, how: str) -> None:
    path = f"reports/{name}.intoto.json"
    if how == "gone":
        content = None
    elif how == "of another run":
        play(line, "r-2")
        content = on_branch(line, "r-2", path)
    elif how == "bytes":
        content = on_branch(line, "r-1", path).replace(b'"payload"', b' "payload"')
    else:
        make_keys(tmp_path / "other", "thief")
        key = line.signing_key if "versions" in how else str(tmp_path / "other/judge.pem")
        content = signed_with(replace(line, judge_key=key), name, tmp_path)
    forge(line, "r-1", {path: content})
    with refused(line, IntegrityError, f"what {name} found in run r-1 does not count"):
        promote.run(line, "r-1")


def signed_with(line: Line, name: str, scratch: Path) -> bytes:
    """The statement about a step of r-1, as somebody with another key would sign it."""
    step = next(step for step in STAGES if step.name == name)
    with checked_out(line, "r-1") as root:
        with dvc.opened(root, line.store) as repo:
            dvc.pull(repo, [FIGURES, CANDIDATE])
        Judging(line).vouch(root, step)
        return (root / step.statement).read_bytes()


def test_a_step_that_judges_is_run_again_where_its_stored_finding_is_signed_by_nobody(line: Line) -> None:
    forge(line, "r-1", {EVALUATE.statement: None})
    again: list[str] = []

    def seen(context: object) -> object:
        again.append("evaluate")
        return stage(EVALUATE, None, SAME)(context)  # type: ignore[arg-type]

    run_stage(line, "r-1", EVALUATE, seen, Judging(line))  # type: ignore[arg-type]
    assert again == ["evaluate"]


def test_the_gate_judges_no_figures_that_no_judge_made(line: Line) -> None:
    forge(line, "r-1", {EVALUATE.statement: None, GATE.report: None})
    with pytest.raises(IntegrityError, match="what evaluate found in run r-1 does not count"):
        run_stage(line, "r-1", GATE, stage(GATE, "promote", SAME), Judging(line))


def test_a_judge_without_its_key_says_so_before_it_works(line: Line) -> None:
    open_run(line, RunSpec(id="r-2"))
    poor = replace(line, judge_key="")
    for step in STAGES[:3]:
        run_stage(poor, "r-2", step, stage(step, GOOD[step.name], SAME), Judging(poor))
    with pytest.raises(UsageError, match="RETAIN_JUDGE_KEY"):
        run_stage(poor, "r-2", EVALUATE, lambda _: pytest.fail("it worked"), Judging(poor))


def test_a_line_that_trusts_keys_needs_a_judge_among_them(line: Line) -> None:
    trusted = Path(line.trusted_keys)
    document = yaml.safe_load(trusted.read_text(encoding="utf-8"))
    document["keys"] = [key for key in document["keys"] if key["role"] == "trusted"]
    trusted.write_text(yaml.safe_dump(document), encoding="utf-8")
    with refused(line, UsageError, "names no judge"):
        promote.run(line, "r-1")
    assert close.run(line, "r-1") == "failed"


def test_a_batch_that_did_not_wait_for_the_run_is_not_learnt_by_it(line: Line) -> None:
    path = "reports/ingest.json"
    unsigned = ready(Path(folder_of(line)).with_name("unsigned"), signed=False)
    report = json.loads(on_branch(unsigned, "r-1", path))
    report["figures"]["batch"]["runs"] = ["r-1", "r-of-another-night"]
    forge(unsigned, "r-1", {path: json.dumps(report).encode()})
    with pytest.raises(IntegrityError, match="learnt what run r-of-another-night took in"):
        promote.run(unsigned, "r-1")


# What a run cannot say of its own beginning.


def test_a_run_whose_beginning_nobody_knows_is_not_promoted(line: Line) -> None:
    git(Path(line.git), "update-ref", "-d", "refs/heads/begun/r-1")
    with refused(line, IntegrityError, "nothing says how run r-1 began"):
        promote.run(line, "r-1")


def test_a_beginning_must_be_a_commit_of_main(line: Line) -> None:
    place = Path(line.git)
    tree = text(place, "rev-parse", "main^{tree}")
    forged = text(place, "commit-tree", tree, "-m", "another main")
    begun = text(place, "commit-tree", text(place, "rev-parse", "begun/r-1^{tree}"), "-p", forged, "-m", "begin")
    git(place, "update-ref", "refs/heads/begun/r-1", begun)
    with refused(line, IntegrityError, "did not begin with a commit of main"):
        promote.run(line, "r-1")


@pytest.mark.parametrize("path", ["params.yaml", "checks/test_x.py", "dvc.yaml", "state/base.dvc", "dvc.lock"])
def test_a_beginning_holds_what_main_held(line: Line, path: str) -> None:
    # Both refs moved: as by somebody with the credential of whoever opens runs.
    place = Path(line.git)
    base = text(place, "rev-parse", "begun/r-1^")
    forge(line, "r-1", {path: b"{}\n"}, ref="refs/heads/begun/r-1")
    tree = text(place, "rev-parse", "begun/r-1^{tree}")
    git(place, "update-ref", "refs/heads/begun/r-1", text(place, "commit-tree", tree, "-p", base, "-m", "begin"))
    forge(line, "r-1", {path: b"{}\n"})
    with refused(line, IntegrityError, "began with another"):
        promote.run(line, "r-1")


def test_rules_that_main_changed_meanwhile_do_not_touch_a_run_under_way(line: Line) -> None:
    params = yaml.safe_load(git(Path(line.git), "cat-file", "blob", "main:params.yaml"))
    params["gate"]["min_gain"] = 0.5
    change_main(line, {"params.yaml": yaml.safe_dump(params).encode()})
    assert promote.run(line, "r-1") == "v2"
    with reading(line.git) as main:
        record = documents(main)[-1]
        assert main.params().gate.min_gain == 0.5
    assert record["parameters"]["file"]["gate"]["min_gain"] == 0.05, "the record says by which rules it was judged"
    assert "all as it should be" in str(verify("champion", True, None, folder_of(line), False))


def test_a_server_killed_between_the_two_branches_of_a_run_is_made_good(line: Line) -> None:
    open_run(line, RunSpec(id="r-2"))
    begun = remote_refs(line.git, "refs/heads/begun/r-2")["refs/heads/begun/r-2"]
    git(Path(line.git), "update-ref", "-d", "refs/heads/runs/r-2")
    assert open_run(line, RunSpec(id="r-2", reason="another")).reason == ""
    assert remote_refs(line.git, "refs/heads/runs/r-2")["refs/heads/runs/r-2"] == begun


# Figures.


@pytest.mark.parametrize("verdict", ["promote", UNSURE])
def test_a_verdict_must_follow_from_its_figures(line: Line, verdict: str) -> None:
    play(line, "r-2", WORSE, verdict)
    if verdict == UNSURE:
        assert close.run(line, "r-2") == "held"
        with refused(line, IntegrityError, "does not follow from its figures"):
            approve("r-2", "it looks well", "ann", "command line", folder_of(line))
    else:
        with refused(line, IntegrityError, "does not follow from its figures"):
            promote.run(line, "r-2")


@pytest.mark.parametrize(
    "mend",
    [
        lambda figures: replace(figures, plan=replace(figures.plan, candidate="0" * 64)),
        lambda figures: replace(figures, plan=replace(figures.plan, slices=())),
    ],
    ids=["another candidate", "a slice missing"],
)
def test_figures_are_of_this_candidate_and_of_every_slice(
    line: Line, mend: Callable[[Figures], Figures], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(line, "r-2", mend=mend)
    monkeypatch.setattr(promote, "decide", lambda *_: type("Same", (), {"verdict": "promote"}))
    with refused(line, IntegrityError, "of another candidate or lack a slice"):
        promote.run(line, "r-2")


@pytest.mark.parametrize("path", [path for path in OUTPUTS if "figures" not in path])
def test_every_object_of_the_new_state_is_on_the_store(line: Line, path: str) -> None:
    lock = yaml.safe_load(on_branch(line, "r-1", "dvc.lock"))
    outs = {out["path"]: out for stage in lock["stages"].values() for out in stage["outs"]}
    md5 = outs[path]["md5"]
    listing = Path(line.store) / "files/md5" / md5[:2] / md5[2:]
    [member] = [entry["md5"] for entry in json.loads(listing.read_text()) if entry["relpath"] != "x"][:1]
    (Path(line.store) / "files/md5" / member[:2] / member[2:]).unlink()
    before = versions(line)
    with pytest.raises(IntegrityError, match=r"not whole on the store|missing from the store"):
        promote.run(line, "r-1")
    assert versions(line) == before


# How a run ended, and what a person said.


def test_a_rejected_run_stays_rejected(line: Line) -> None:
    play(line, "r-2", WORSE, "reject")
    with refused(line, UsageError, "cannot be promoted: the gate's verdict is reject"):
        promote.run(line, "r-2")
    assert close.run(line, "r-2") == "rejected"
    with refused(line, UsageError, "cannot be promoted"):
        promote.run(line, "r-2")


def test_an_unsure_run_needs_a_yes_that_main_has(line: Line) -> None:
    play(line, "r-2", SAME, UNSURE)
    with refused(line, UsageError, "needs a person's yes"):
        promote.run(line, "r-2")


def test_a_line_that_wants_approval_promotes_nothing_without_one(line: Line) -> None:
    params = yaml.safe_load(git(Path(line.git), "cat-file", "blob", "main:params.yaml"))
    params["gate"]["approval"] = True
    change_main(line, {"params.yaml": yaml.safe_dump(params).encode()})
    play(line, "r-2")
    with refused(line, UsageError, "needs a person's yes"):
        promote.run(line, "r-2")


def held(line: Line, run: str) -> None:
    """A run that main calls held, whose gate says promote."""
    open_run(line, RunSpec(id=run))
    for step in STAGES:
        made = stage(step, GOOD[step.name], SAME)

        def function(context, step=step, made=made):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            report = made(context)
            return replace(report, figures={**report.figures, "approval": True}) if step.name == GATE.name else report

        run_stage(line, run, step, function, Judging(line))
    assert close.run(line, run) == "held"


def test_what_a_person_refused_is_not_promoted(line: Line) -> None:
    held(line, "r-2")
    with refused(line, UsageError, "needs a person's yes"):
        promote.run(line, "r-2")
    refuse("r-2", "no", "ann", "command line", folder_of(line))
    with refused(line, UsageError, "ann refused it"):
        promote.run(line, "r-2")


def test_a_yes_promotes_exactly_what_it_was_given_to(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    held(line, "r-2")
    with monkeypatch.context() as patch:
        patch.setattr(promote, "run", lambda *_: "later")
        approve("r-2", "seen it", "ann", "command line", folder_of(line))
    forge(line, "r-2", {"reports/times.json": b"{}"})
    with refused(line, IntegrityError, "given to another candidate"):
        promote.run(line, "r-2")


def test_a_yes_is_recorded_with_the_version(line: Line) -> None:
    held(line, "r-2")
    assert "v2" in approve("r-2", "seen it", "ann", "command line", folder_of(line))
    with reading(line.git) as main:
        given = documents(main)[-1]["approval"]
    assert {name: given[name] for name in ("by", "reason", "answer", "through")} == {
        "by": "ann", "reason": "seen it", "answer": "yes", "through": "command line"
    }  # fmt: skip


def test_a_yes_that_nobody_signed_is_none(line: Line) -> None:
    held(line, "r-2")
    answer._answer(replace(line, signing_key=""), "r-2", "yes", "seen it", "mallory", "command line")
    with pytest.raises(IntegrityError, match="should be signed"):
        promote.run(line, "r-2")
    assert versions(line) == 1


def test_a_stale_run_stays_stale(line: Line) -> None:
    play(line, "r-2")
    assert promote.run(line, "r-1") == "v2"
    assert close.run(line, "r-2") == "stale"
    with pytest.raises(StaleRun):
        promote.run(line, "r-2")


# Without keys.


def test_without_keys_mains_own_checks_are_run_again(tmp_path: Path) -> None:
    line = ready(tmp_path / "line", signed=False)
    change_main(line, {"checks/test_no.py": b"def test_no(): assert False, 'not this style'\n"})
    play(line, "r-2")
    with pytest.raises(IntegrityError, match="not this style"):
        promote.run(line, "r-2")
    assert promote.run(line, "r-1") == "v2", "it began before main had that check"
    with reading(line.git) as main:
        assert documents(main)[-1]["custody"] == "no keys"


# What verify says of a version that got around all of it.


def promoted_past(line: Line, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Promote r-1 although these checks would refuse."""
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(promote, name, lambda *_, **__: None)
        promote.run(line, "r-1")


def test_verify_names_a_version_that_no_judge_signed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    forge(line, "r-1", {GATE.statement: None})
    promoted_past(line, monkeypatch, "check_judged", "doubt_of")
    with pytest.raises(IntegrityError, match="v2 gate"):
        verify("v2", False, None, folder_of(line), False)


def test_verify_names_an_older_main_that_was_pushed_back(line: Line) -> None:
    place = Path(line.git)
    promote.run(line, "r-1")
    play(line, "r-2")
    old = text(place, "rev-parse", "main~1")
    shutil.rmtree(Path(line.store).parent / "none", ignore_errors=True)
    git(place, "update-ref", "refs/heads/main", old)
    git(place, "update-ref", "-d", "refs/tags/model@v0.0.2")
    with pytest.raises(IntegrityError, match="run r-2"):
        verify("champion", True, None, folder_of(line), False)


def test_verify_names_a_link_under_state(line: Line) -> None:
    forge(line, "", {"state/base.dvc": b"/etc/passwd"}, mode="120000", ref="refs/heads/main")
    with pytest.raises(IntegrityError, match=r"state/base\.dvc") as raised:
        verify("champion", True, None, folder_of(line), False)
    assert "symbolic link" in str(raised.value.result)  # type: ignore[attr-defined]


ODD = {
    "no JSON": b"{",
    "a list": b"[]",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "of another step": b'{"step": "x", "status": "done", "figures": {}}',
    "figures of another shape": None,
    "not UTF-8": b"\xff\xfe",
}


ODD_REPORTS = [
    (name, how)
    for name in ("ingest", "drift", "gate", "times")
    for how in ODD
    if (name, how) != ("times", "a list") and (how != "figures of another shape" or name in ("ingest", "times"))
]


@pytest.mark.parametrize(("name", "how"), ODD_REPORTS)
def test_a_report_that_is_none_closes_its_run_as_failed(tmp_path: Path, name: str, how: str) -> None:
    line = ready(tmp_path / "line", signed=False)
    content = ODD[how]
    if content is None:
        document = json.loads(on_branch(line, "r-1", f"reports/{name}.json"))
        odd = {"batch": [1], "intake": "x", "quarantined": "y"}
        content = json.dumps({**document, "figures": odd} if name != "times" else {"ingest": [1]}).encode()
    forge(line, "r-1", {f"reports/{name}.json": content})
    with suppress(IntegrityError):
        promote.run(line, "r-1")
        pytest.fail("it was promoted")
    assert close.run(line, "r-1") == "failed"
    assert "all as it should be" in str(verify("champion", True, None, folder_of(line), False))


@pytest.mark.parametrize(
    "content",
    [b"[", b"[]", b"stages: 1", b"stages: {ingest: 1}", b"stages: {ingest: {outs: [{path: x}]}}",
     b"stages: {ingest: {outs: [{path: x, md5: ../../etc}]}}", b"\xff"],
)  # fmt: skip
def test_a_lock_that_is_none_closes_its_run_as_failed(tmp_path: Path, content: bytes) -> None:
    line = ready(tmp_path / "line", signed=False)
    forge(line, "r-1", {"dvc.lock": content})
    with pytest.raises(IntegrityError, match="do not use it"):
        promote.run(line, "r-1")
    assert close.run(line, "r-1") == "failed"


def test_one_bad_branch_stops_neither_lists_nor_pages_nor_backups(line: Line, tmp_path: Path) -> None:
    play(line, "r-2")
    forge(line, "r-1", {"reports/drift.json": b"[", "dvc.lock": b"stages: [1]", "reports/evaluate.json": b"[" * 9999})
    forge(line, "r-2", {"params.yaml": b"["})
    rows = {row["run"]: row["outcome"] for row in runs(folder_of(line), json=True)["runs"]}
    assert rows == {"r-1": "running", "r-2": "running"}
    assert "r-1" in str(runs(folder_of(line), json=False))
    assert write_report(line, tmp_path / "page").is_file()
    backup(folder_of(line), str(tmp_path / "backups"), 1, None, None, False)
    assert "all as it should be" in str(verify("champion", True, None, folder_of(line), False))
    assert close.run(line, "r-1") == close.run(line, "r-2") == "failed"
    assert write_report(line, tmp_path / "page").is_file()
