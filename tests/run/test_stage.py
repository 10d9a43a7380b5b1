"""A run through the real Git and DVC: stages stored once, repeated for nothing, closed and promoted once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import cl_steps.steps.promote
from cl_steps.config import PER_RUN, Params, RunSpec
from cl_steps.errors import IntegrityError, NoUsableData, StaleRun, UsageError
from cl_steps.pipeline import INGEST, UPDATE
from cl_steps.repository.beginning import refuse_own_rules
from cl_steps.repository.git import remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from cl_steps.repository.run_branch import checked_out, open_run, read_run, run_state
from cl_steps.run.context import Context, StepReport
from cl_steps.run.stage import is_current, run_stage
from cl_steps.steps import close, promote
from cl_steps.store.pointers import lock_outs
from tests.lasting import documents, read_json
from tests.lines.small import GOOD, fake_stage, play

OF_MAIN = ("format", "name", "seed", "landing", "ingest", "drift", "evaluate", "serving", "gate")
"""Blocks that no run may set otherwise, one by one: a new block must be told to be of the one kind or the other."""


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake figures give no verdict of their own: take the stored one."""
    monkeypatch.setattr(cl_steps.steps.promote, "_check_figures", lambda root, params, verdict, run: None)


def refuse(context: Context) -> StepReport:
    raise AssertionError("the stage ran again")


def test_a_stage_that_is_done_is_not_run_again(line: Line) -> None:
    open_run(line, RunSpec(id="r-1"))
    first = run_stage(line, "r-1", INGEST, fake_stage(INGEST, "ok"))
    tip = read_run(line, "r-1").tip
    assert run_stage(line, "r-1", INGEST, refuse) == first
    assert read_run(line, "r-1").tip == tip


def test_a_promotion_moves_the_state_and_nothing_else_of_the_run(line: Line, tmp_path: Path) -> None:
    play(line, "r-1", GOOD, set={"update.steps": 7})
    assert promote.run(line, "r-1") == "v2"
    with reading(line.git) as main:
        assert read_json(main, "state/champion.json")["version"] == "v2"
        adapter = lock_outs(read_run(line, "r-1").lock)["tonight/candidate/adapter"]
        assert adapter["md5"].encode() in (main.read("state/adapter.dvc") or b"")
        assert main.read("dvc.lock") is None
        assert b"update.steps" not in (main.read("run.yaml") or b"")
        assert main.read("data/r-1.dvc")
        assert main.ledger().intakes["r-1"].status == "learnt"
        assert [record["version"] for record in documents(main)] == ["v1", "v2"]
    tags = text(None, "ls-remote", "--tags", line.git)
    assert "model@v0.0.2" in tags


def test_promote_and_close_again_change_nothing(line: Line) -> None:
    play(line, "r-1", GOOD)
    assert promote.run(line, "r-1") == promote.run(line, "r-1") == "v2"
    tip = text(None, "ls-remote", line.git, "refs/heads/main")
    assert close.run(line, "r-1") == "promoted"
    assert text(None, "ls-remote", line.git, "refs/heads/main") == tip


def test_the_second_of_two_runs_is_stale_and_its_assets_stay_pending(line: Line) -> None:
    play(line, "r-1", GOOD)
    play(line, "r-2", GOOD)
    promote.run(line, "r-1")
    with pytest.raises(StaleRun, match="trigger a new run"):
        promote.run(line, "r-2")
    assert close.run(line, "r-2") == "stale"
    with reading(line.git) as main:
        assert main.ledger().pending(3) == ("r-2",)


def test_a_parameter_edit_on_main_does_not_make_a_run_stale(line: Line) -> None:
    play(line, "r-1", GOOD)
    folder = Path(line.git).parents[1]
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("seed: 0", "seed: 1"))
    for command in (["commit", "-qam", "seed"], ["push", "-q", "origin", "main"]):
        subprocess.run(["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@y", *command], check=True)
    assert promote.run(line, "r-1") == "v2"
    with reading(line.git) as main:
        assert b"seed: 1" in (main.read("params.yaml") or b"")


@pytest.mark.parametrize(
    ("verdicts", "outcome", "status"),
    [
        ({"ingest": "too_few"}, "no_update", "pending"),
        ({"ingest": "ok", "drift": "quiet"}, "no_update", "pending"),
        ({"ingest": "ok", "drift": "alarming"}, "held", "set_aside"),
        ({**GOOD, "gate": "reject"}, "rejected", "pending"),
        ({**GOOD, "gate": "inconclusive"}, "held", "set_aside"),
        ({"ingest": "ok", "drift": "drifted"}, "failed", "pending"),
    ],
)
def test_every_other_end_is_recorded(line: Line, verdicts: dict[str, str | None], outcome: str, status: str) -> None:
    play(line, "r-1", verdicts)
    assert close.run(line, "r-1") == outcome
    state = read_run(line, "r-1")
    with reading(line.git) as main:
        ledger = main.ledger()
        assert ledger.runs["r-1"].outcome == outcome
        assert ledger.intakes["r-1"].status == status
        assert read_json(main, "state/champion.json")["version"] == "v1"
    if outcome != "failed":
        assert len(state.reports) == 5
        assert {r.status for n, r in state.reports.items() if n not in verdicts} <= {"skipped"}


def test_a_failed_run_can_be_gone_on_with(line: Line) -> None:
    play(line, "r-1", {"ingest": "ok", "drift": "drifted"})
    assert close.run(line, "r-1") == "failed"
    play(line, "r-1", GOOD)
    assert promote.run(line, "r-1") == "v2"
    with reading(line.git) as main:
        assert main.ledger().outcome("r-1") == "promoted"


def test_a_rejected_intake_is_set_aside_after_its_attempts(line: Line) -> None:
    for run in ("r-1", "r-2"):
        play(line, run, {**GOOD, "gate": "reject"})
        close.run(line, run)
    with reading(line.git) as main:
        assert main.ledger().pending(2) == ("r-1", "r-2")
        assert main.ledger().pending(1) == ()


def test_a_step_that_fails_stores_nothing(line: Line) -> None:
    def fail(context: Context) -> StepReport:
        (context.fresh("tonight/candidate/adapter") / "half").write_text("x", encoding="utf-8")
        raise UsageError("no")

    play(line, "r-1", {"ingest": "ok", "drift": "drifted"})
    tip = read_run(line, "r-1").tip
    with pytest.raises(UsageError):
        run_stage(line, "r-1", UPDATE, fail)
    assert read_run(line, "r-1").tip == tip


def test_a_tampered_input_is_refused(line: Line) -> None:
    play(line, "r-1", {"ingest": "ok", "drift": "drifted"})
    victim = next(path for path in Path(line.store).rglob("*") if path.is_file() and path.read_bytes() == b"adapter")
    victim.chmod(0o644)
    victim.write_bytes(b"Adapter")
    with pytest.raises(IntegrityError):
        run_stage(line, "r-1", UPDATE, fake_stage(UPDATE, None))


def test_a_promotion_needs_every_object_on_the_store(line: Line) -> None:
    play(line, "r-1", GOOD)
    victim = next(p for p in Path(line.store).rglob("*") if p.is_file() and b"candidate/adapter" in p.read_bytes())
    victim.unlink()
    with pytest.raises(IntegrityError, match="candidate/adapter"):
        promote.run(line, "r-1")
    with reading(line.git) as main:
        assert read_json(main, "state/champion.json")["version"] == "v1"


def test_a_missing_landing_is_one_clear_sentence(line: Line) -> None:
    Path(line.landing).rmdir()
    open_run(line, RunSpec(id="r-1"))
    with pytest.raises(NoUsableData, match="landing"):
        run_stage(line, "r-1", INGEST, fake_stage(INGEST, "ok"))


def test_overrides_are_checked_before_a_run_begins(line: Line) -> None:
    with pytest.raises(UsageError, match=r"update\.stepz"):
        open_run(line, RunSpec(id="r-1", set={"update.stepz": 7}))


def test_a_tag_that_a_crash_left_out_is_made_again(line: Line) -> None:
    play(line, "r-1", GOOD)
    promote.run(line, "r-1")
    before = text(None, "ls-remote", line.git, "refs/tags/model@v0.0.2")
    subprocess.run(["git", "-C", line.git, "tag", "-d", "model@v0.0.2"], check=True, capture_output=True)
    # By a trusted step: those of a run may not write tags.
    close.run(line, "r-1")
    assert text(None, "ls-remote", line.git, "refs/tags/model@v0.0.2") == before


@pytest.mark.parametrize("reads", [[], ["landing"]], ids=["today", "an older line"])
def test_hostile_names_in_the_landing_never_reach_dvc(line: Line, reads: list[str]) -> None:
    landing = Path(line.landing)
    for name in (b"picture.png", b"\xff\xfe.png", b".dvcignore", b"x.dvc", b"dvc.yaml", b"n" * 255):
        (landing / os.fsdecode(name)).write_bytes(b"::")
    (landing / "outside.png").symlink_to("/etc/hostname")
    (landing / "dangling.png").symlink_to("nowhere")
    os.mkfifo(landing / "pipe.png")
    if reads:
        _depend_on_landing(line)
    open_run(line, RunSpec(id="r-1"))
    run_stage(line, "r-1", INGEST, fake_stage(INGEST, "ok"))
    deps = {dep["path"]: dep for dep in read_run(line, "r-1").lock["ingest"]["deps"]}
    assert [deps[path]["nfiles"] for path in reads] == [1] * len(reads)
    assert run_stage(line, "r-1", INGEST, refuse).verdict == "ok"


def _depend_on_landing(line: Line) -> None:
    """Main's `dvc.yaml` as lines have it that are older than this code."""
    with reading(line.git) as main:
        stages = yaml.safe_load(main.read("dvc.yaml") or b"")
        stages["stages"]["ingest"]["deps"].insert(0, "landing")
        del stages["stages"]["ingest"]["always_changed"]
        main.swap(lambda: Change({"dvc.yaml": yaml.safe_dump(stages).encode()}, "as it was"))


def _leaves(block: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted name of every parameter."""
    for name, field in block.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


PARAMETERS = sorted(_leaves(Params))


@pytest.mark.parametrize("key", PARAMETERS)
def test_every_parameter_is_mains_or_may_be_chosen_for_a_run(key: str) -> None:
    block = key.partition(".")[0]
    assert (block in PER_RUN) != (block in OF_MAIN)
    spec = RunSpec(id="r-own", set={key: 1})
    if block in PER_RUN:
        refuse_own_rules(spec)
    else:
        with pytest.raises(UsageError, match="where everybody sees it"):
            refuse_own_rules(spec)


@pytest.mark.parametrize("key", [*OF_MAIN, "updates.steps", "gate.nightly.loss", "landing"])
def test_a_run_may_not_choose_how_it_is_judged_nor_what_it_reads(line: Line, key: str) -> None:
    with pytest.raises(UsageError, match="where everybody sees it"):
        open_run(line, RunSpec(id="r-own", set={key: 1}))
    assert not remote_refs(line.git, "refs/heads/runs/*", "refs/heads/begun/*")


def test_a_run_may_choose_how_it_learns(line: Line) -> None:
    assert open_run(line, RunSpec(id="r-own", set={"update.steps": 7, "compute.threads": 1})).set


def test_a_stage_of_other_parameters_is_not_current(line: Line) -> None:
    play(line, "r-1", {"ingest": "ok"})
    with checked_out(line, "r-1", ledger=True) as root:
        assert is_current(root, INGEST, run_state(root))
        path = root / "params.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("min_side: 16", "min_side: 17"), encoding="utf-8")
        assert not is_current(root, INGEST, run_state(root))
