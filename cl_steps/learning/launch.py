"""Starts the processes that learn together, waits for them, and says how they ended.

On one node by `accelerate launch`; on several by torch's own launcher and rendezvous, each node's step starting its
own. The job is a folder of this step's alone:

    job.json            what to do, as the step resolved it
    result.json         what the first process found; written last
    error-<rank>.json   the sentence with which a process ended
    stopped             it ended as SIGTERM asked
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cl_steps import errors
from cl_steps.documents import Json, write_json
from cl_steps.errors import RetainError
from cl_steps.progress import say
from cl_steps.run.machine import Machine
from cl_steps.run.stopping import EXIT_TERMINATED, stopping, termination

PACKAGE = Path(__file__).parents[1]
LOOK_SECONDS = 0.2
GRACE_SECONDS = 60.0
"""How long the processes have for their step and its checkpoint once they are asked to stop."""


def launch(module: str, job: Json, machine: Machine) -> dict[str, Any]:
    """Run `python -m module JOB_FOLDER` in all processes of this node; returns the result, on other nodes than 0 {}.

    Raises:
        RetainError: what a process raised; or one of them died, and the others were ended.
        SystemExit: with status 143 on SIGTERM of this process or of another node, after a checkpoint.
    """
    with tempfile.TemporaryDirectory(prefix="retain-") as name:
        folder = Path(name)
        write_json(folder / "job.json", {**job, "parent": os.getpid()})
        say(f"update: {machine.processes} processes on each of {machine.nodes} nodes; this is node {machine.node}")
        code, asked = _wait(command(module, folder, machine), folder)
        return _result(folder, code, machine, asked)


def command(module: str, folder: Path, machine: Machine) -> list[str]:
    """The launcher's command line."""
    if machine.nodes == 1:
        fixed = ("--multi_gpu", "--num_machines=1", "--gpu_ids=all", "--mixed_precision=no", "--dynamo_backend=no")
        launcher = ["accelerate.commands.launch", *fixed, f"--num_processes={machine.processes}"]
        launcher.append("--main_process_port=0")
    else:
        place = (f"--master-addr={machine.address}", f"--master-port={machine.port}")
        shape = (f"--nnodes={machine.nodes}", f"--node-rank={machine.node}", f"--nproc-per-node={machine.processes}")
        launcher = ["torch.distributed.run", *shape, *place]
    return [sys.executable, "-m", *launcher, "-m", module, str(folder)]


@contextmanager
def employed(folder: Path) -> Iterator[dict[str, Any]]:
    """Within it a process that the launcher started does its job; its end, unless good, is left for the step."""
    rank = os.environ["RANK"]
    try:
        with stopping(f"update, process {rank}"):
            yield dict(json.loads((folder / "job.json").read_text(encoding="utf-8")))
    except RetainError as error:
        write_json(folder / f"error-{rank}.json", {"kind": type(error).__name__, "message": str(error)})
        raise SystemExit(error.exit_code) from error
    except SystemExit as end:
        if end.code == EXIT_TERMINATED:
            (folder / "stopped").touch()
        raise


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait(arguments: list[str], folder: Path) -> tuple[int, bool]:
    """The launcher's exit code, and whether this process was asked to stop meanwhile and so asked the launcher."""
    with termination() as asked:
        # In a folder of ours: `-m` would take modules from the current one, which is a cloned workspace.
        process = subprocess.Popen(arguments, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None and not asked.is_set():
                asked.wait(LOOK_SECONDS)
            return (_end(process) if asked.is_set() else process.returncode), asked.is_set()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ask the launcher, which asks its processes; after a while make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _environment() -> dict[str, str]:
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *([known] if known else [])])}


def _result(folder: Path, code: int, machine: Machine, asked: bool) -> dict[str, Any]:
    if asked or (folder / "stopped").exists():
        raise SystemExit(EXIT_TERMINATED)
    for path in sorted(folder.glob("error-*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        raise getattr(errors, said["kind"])(said["message"])
    if code:
        raise RetainError(
            "a process of the training died, see the lines above: try again, it goes on from where it was"
        )
    if machine.only_helps:
        return {}
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))
