"""Several processes: how they are started, how they end, and (slowly) that they learn what one learns."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cl_steps.config import Params, RunSpec
from cl_steps.errors import RetainError, UsageError
from cl_steps.learning import launch
from cl_steps.models.lora import FILE_NAME
from cl_steps.run.context import Context, StepReport
from cl_steps.run.machine import Machine
from cl_steps.steps import update
from tests.steps.test_update import PARAMS, make_workspace

LONG = PARAMS.update.model_copy(update={"steps": 120, "batch_size": 8, "checkpoint_every": 5, "learning_rate": 1e-3})


def test_one_node_is_started_by_accelerate_and_several_by_torchs_own_rendezvous(tmp_path: Path) -> None:
    one = launch.command("m", tmp_path, Machine(processes=4))
    assert one[1:3] == ["-m", "accelerate.commands.launch"]
    assert {"--num_processes=4", "--num_machines=1"} <= set(one)
    several = launch.command("m", tmp_path, Machine(processes=8, nodes=2, node=1, address="node-0", port=2950))
    assert several[1:3] == ["-m", "torch.distributed.run"]
    wanted = {"--nnodes=2", "--node-rank=1", "--nproc-per-node=8", "--master-addr=node-0", "--master-port=2950"}
    assert wanted <= set(several)
    assert one[-3:] == several[-3:] == ["-m", "m", str(tmp_path)]


def fake_job(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """In place of a launcher: a program that is told the job's folder."""
    code = "; ".join(("import sys, json, pathlib, time, os", "job = pathlib.Path(sys.argv[1])", *lines))
    monkeypatch.setattr(launch, "command", lambda module, folder, machine: [launch.sys.executable, "-c", code, folder])


def test_what_a_process_raises_the_step_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    error = '{"kind": "UsageError", "message": "lower it"}'
    fake_job(monkeypatch, f"(job / 'error-1.json').write_text('{error}')", "sys.exit(1)")
    with pytest.raises(UsageError, match="lower it"):
        launch.launch("m", {}, Machine(processes=2))


def test_a_process_that_dies_fails_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_job(monkeypatch, "sys.exit(1)")
    with pytest.raises(RetainError, match="died") as failed:
        launch.launch("m", {}, Machine(processes=2))
    assert failed.value.exit_code == 1


def test_another_nodes_eviction_ends_this_one_as_its_own_would(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_job(monkeypatch, "(job / 'stopped').touch()", "sys.exit(1)")
    with pytest.raises(SystemExit) as stopped:
        launch.launch("m", {}, Machine(processes=2))
    assert stopped.value.code == 143


def test_a_node_that_helps_says_so_and_has_no_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_job(monkeypatch)
    assert launch.launch("m", {}, Machine(processes=1, nodes=2, node=1, address="x")) == {}
    assert "1 processes on each of 2 nodes; this is node 1" in capsys.readouterr().err


def test_a_job_runs_in_a_folder_of_its_own_and_not_in_the_cloned_workspace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('owned')")
    monkeypatch.chdir(tmp_path)
    fake_job(monkeypatch, "(job / 'result.json').write_text(json.dumps({'cwd': os.getcwd(), 'job': str(job)}))")
    found = launch.launch("m", {}, Machine(processes=2))
    assert found["cwd"] == found["job"]
    assert not Path(found["job"]).exists()


@pytest.mark.parametrize("known", ["", "/of/the/step"])
def test_a_job_finds_our_modules_first_and_then_those_of_the_step(monkeypatch: pytest.MonkeyPatch, known: str) -> None:
    monkeypatch.setenv("PYTHONPATH", known)
    fake_job(monkeypatch, "(job / 'result.json').write_text(json.dumps({'path': os.environ['PYTHONPATH']}))")
    path = launch.launch("m", {}, Machine(processes=2))["path"].split(os.pathsep)
    assert path == [str(launch.PACKAGE.parent), *([known] if known else [])]


def test_sigterm_reaches_what_was_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "told"
    fake_job(
        monkeypatch,
        "import signal",
        f"signal.signal(15, lambda *_: (pathlib.Path({str(told)!r}).write_text('yes'), sys.exit(1)))",
        f"pathlib.Path({str(told)!r}).touch()",
        "time.sleep(60)",
    )
    when(told.exists, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        launch.launch("m", {}, Machine(processes=2))
    assert stopped.value.code == 143
    assert told.read_text() == "yes"


def when(condition: Callable[[], object], act: Callable[[], object]) -> None:
    """Act once, in a thread, as soon as the condition holds."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if condition():
                act()
                return
            time.sleep(0.02)

    threading.Thread(target=wait, daemon=True).start()


def workers() -> list[psutil.Process]:
    """The processes that learn, below this one."""
    found = psutil.Process().children(recursive=True)
    return [
        p for p in found if "cl_steps.steps.update" in p.cmdline() and "accelerate.commands.launch" not in p.cmdline()
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "workspace")


def run(root: Path, work: Path | None = None, **compute: object) -> StepReport:
    params: Params = PARAMS.model_copy(update={"update": LONG, "compute": PARAMS.compute.model_copy(update=compute)})
    return update.run(Context(root, params, RunSpec(), work))


def learnt(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "tonight/candidate/adapter" / FILE_NAME)


def test_two_processes_one_dies_two_are_evicted_and_one_ends_what_one_alone_learns(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, weights = run(root), learnt(root)

    def saved() -> int:
        return max((int(path.stem[5:]) for path in tmp_path.glob("work/checkpoints/*/step-*.json")), default=0)

    monkeypatch.setenv("RETAIN_PROCESSES", "2")
    when(lambda: saved() >= 40, lambda: max(workers(), key=lambda process: process.pid).kill())
    with pytest.raises(RetainError, match="died"):
        run(root, tmp_path / "work")
    assert workers() == []
    when(lambda: saved() >= 80, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        run(root, tmp_path / "work")
    assert stopped.value.code == 143
    assert workers() == []
    assert 80 <= saved() < 120
    monkeypatch.delenv("RETAIN_PROCESSES")
    found = run(root, tmp_path / "work")
    for key, value in learnt(root).items():
        torch.testing.assert_close(value, weights[key], atol=5e-5, rtol=1e-3)
    for name in ("loss_new", "loss_replay", "loss_distillation"):
        assert found.figures[name] == pytest.approx(alone.figures[name], rel=1e-3)


def test_two_that_hold_a_share_of_the_base_each_are_evicted_go_on_and_learn_what_one_learns(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, weights = run(root), learnt(root)
    monkeypatch.setenv("RETAIN_PROCESSES", "2")
    checkpoints = tmp_path / "work/checkpoints"
    when(lambda: any(checkpoints.glob("*/step-000000[4-9]*.json")), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        run(root, tmp_path / "work", shard=True)
    assert stopped.value.code == 143
    found = run(root, tmp_path / "work", shard=True)
    assert workers() == []
    for key, value in learnt(root).items():
        torch.testing.assert_close(value, weights[key], atol=5e-5, rtol=1e-3)
    for name, row in alone.figures["probe"]["old"].items():
        assert found.figures["probe"]["old"][name] == pytest.approx(row, rel=1e-2, abs=1e-4)
