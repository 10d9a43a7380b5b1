"""How a step becomes an Airflow task: a process on the worker's own machine, or a pod.

The DAG only orders what a `Runner` makes, so that where steps run is decided here and nowhere else: the command is the
same. What an exit code asks for is in `endings.py`, what else can end a pod in `pods/failures.py`.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from airflow.sdk import BaseOperator, Context

from cl_steps.orchestration.pods.manifest import Job, manifest, selector
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.settling import settle
from cl_steps.pipeline import CLOSE, PROMOTE, STAGES, UPDATE, Role, Step

GRACE_SECONDS = 20.0
MAX_LINE_CHARACTERS = 2000
STEP_LOG = logging.getLogger("retain.step")

PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "PYTHONPATH", "VIRTUAL_ENV", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR",
    "RETAIN_STORE_URL", "RETAIN_WORK", "RETAIN_LANDING", "RETAIN_IMAGE",
    "RETAIN_PROCESSES", "RETAIN_MICRO_BATCHES", "RETAIN_NODES", "RETAIN_NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""What a step's process sees of the worker's environment: no Airflow settings, no secrets but those a line names.

`PYTHONDONTWRITEBYTECODE`, which many images set, is not among it: compiling the libraries anew costs a step 10 s.
"""
ALWAYS = {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1"}


class Runner(Protocol):
    """Makes the tasks of one line; `run` is a template of the run's id, `options` are any operator's."""

    def task(self, step: Step, run: str, **options: Any) -> BaseOperator:
        """The task that runs a step of the run."""
        ...

    def command(self, task_id: str, arguments: Sequence[str], run: str, **options: Any) -> BaseOperator:
        """The task that runs `retain ARGUMENTS`, as a GPU step if `gpu`; if `trusted` it may change main, and sign."""
        ...


def runner_of(entry: Entry) -> Runner:
    """The runner that the line's profile asks for."""
    return Pods(entry) if entry.profile.runner == "pod" else LocalProcess(entry)


class LocalProcess:
    """Steps as processes beside the worker: for one machine, and for the demo."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def task(self, step: Step, run: str, **options: Any) -> BaseOperator:
        """A `ProcessOperator` for `retain step`."""
        pool = {"pool": self._entry.profile.pool} if step.device == "gpu" else {}
        arguments = _step_arguments(self._entry, step, run)
        return self._process(
            step.name, arguments, self._keys(step.role if step is not CLOSE else "step"), **pool, **options
        )

    def command(
        self,
        task_id: str,
        arguments: Sequence[str],
        run: str,
        *,
        gpu: bool = False,
        trusted: bool = False,
        **options: Any,
    ) -> BaseOperator:
        """A `ProcessOperator` for any command; on one machine all have the same rights, but for the keys."""
        del run, gpu
        return self._process(task_id, arguments, self._keys("trusted" if trusted else "step"), **options)

    def _keys(self, role: Role) -> Mapping[str, str]:
        return {"step": {}, "judge": self._entry.judging, "trusted": self._entry.signing}[role]

    def _process(self, task_id: str, arguments: Sequence[str], keys: Mapping[str, str], **options: Any) -> BaseOperator:
        entry = self._entry
        return ProcessOperator(
            task_id=task_id,
            arguments=arguments,
            settings={**entry.settings, **keys},
            names=entry.environment,
            **options,
        )


class Pods:
    """Steps as pods, as the line's profile describes them."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def task(self, step: Step, run: str, **options: Any) -> BaseOperator:
        """A `StepPod` for `retain step`; close ends first what is left of the run's pods."""
        gpu = step.device == "gpu"
        arguments = tuple(_step_arguments(self._entry, step, run))
        job = Job(step.name, arguments, run, gpu=gpu, role=step.role, signs=step is PROMOTE)
        left = selector(self._entry.name, run, [stage.name for stage in (*STAGES, PROMOTE)]) if step is CLOSE else ""
        nodes = self._entry.profile.nodes if step is UPDATE else 1
        return self._pod(job, nodes, reaps=left, **({"pool": self._entry.profile.pool} if gpu else {}), **options)

    def command(
        self,
        task_id: str,
        arguments: Sequence[str],
        run: str,
        *,
        gpu: bool = False,
        trusted: bool = False,
        **options: Any,
    ) -> BaseOperator:
        """A `StepPod` for any command."""
        role: Role = "trusted" if trusted else "step"
        return self._pod(Job(task_id, tuple(arguments), run, gpu=gpu, role=role, signs=trusted), **options)

    def _pod(self, job: Job, nodes: int = 1, **options: Any) -> BaseOperator:
        entry = self._entry
        pod = manifest(entry.profile, entry.name, entry.secrets, entry.places, job)
        if nodes > 1:
            from cl_steps.orchestration.pods.stepjob import StepJob

            return StepJob(task_id=job.name, manifest=pod, profile=entry.profile, nodes=nodes, **options)
        from cl_steps.orchestration.pods.steppod import StepPod

        return StepPod(task_id=job.name, manifest=pod, profile=entry.profile, **options)


def _step_arguments(entry: Entry, step: Step, run: str) -> list[str]:
    return ["step", step.name, "--workspace", entry.workspace, "--run", run]


class ProcessOperator(BaseOperator):  # type: ignore[misc]
    """Runs `retain ARGUMENTS` as a process; what its exit code asks for is raised, its last line being the reason."""

    template_fields = ("arguments",)

    def __init__(
        self, *, arguments: Sequence[str], settings: Mapping[str, str], names: Iterable[str] = (), **options: Any
    ) -> None:
        super().__init__(do_xcom_push=False, **options)
        self.arguments = list(arguments)
        self.settings = dict(settings)
        self.names = tuple(names)
        self._child: Child | None = None

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Run it to its end."""
        self._child = Child(self.arguments, environment(os.environ, self.names, self.settings))
        settle(*self._child.run())

    def forget(self, context: Context) -> None:
        """Nothing is left of an earlier try: its process ended with it."""

    def on_kill(self) -> None:
        """Airflow wants the task to end: so must the process and what it started."""
        if self._child:
            self._child.end()


class Child:
    """A process in a group of its own that runs `retain ARGUMENTS`; its lines go to the task's log as they come."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [*program(), *arguments],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def run(self) -> tuple[int, str]:
        """Wait for its end; returns its exit code and its last line."""
        last = ""
        assert self._process.stdout is not None
        try:
            with self._process.stdout as lines:
                for line in lines:
                    STEP_LOG.info("%s", line.rstrip()[:MAX_LINE_CHARACTERS])
                    last = line.rstrip()[:MAX_LINE_CHARACTERS] or last
            return self._process.wait(), last
        finally:
            self.end()

    def end(self) -> None:
        """Ask the whole group to end, and after a while make it."""
        if self._process.poll() is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def program() -> list[str]:
    """What a step's process runs: this Python and this package."""
    return [sys.executable, "-m", "cl_steps"]


def environment(source: Mapping[str, str], names: Iterable[str], settings: Mapping[str, str]) -> dict[str, str]:
    """A step's environment: what it may see of `source`, and the line's own settings."""
    return {name: source[name] for name in (*PASSED, *names) if name in source} | ALWAYS | dict(settings)
