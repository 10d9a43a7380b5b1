"""A command on one of the lines, wherever that line's steps run: what maintenance and the acts of people are made of.

One DAG serves all lines, and a line's runner, credentials and pods are known only once the line is. So the task itself
is light: when it runs it makes the line's own operator (a process, or a pod that is deferred) and does what that would
do. Reading 500 lines costs 500 small tasks at most. What a person wrote in a form is handed on as an argument and never
goes through a template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.bases.operator import ExecutorSafeguard

from cl_steps.orchestration import light
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.runners import runner_of
from cl_steps.orchestration.settling import IntegrityFault, settled
from cl_steps.orchestration.telling import tell


@dataclass(frozen=True)
class Call:
    """`retain ARGUMENTS` for a line; as a GPU step if `gpu`, and if `trusted` it may change main, and sign."""

    name: str
    entry: Entry
    arguments: tuple[str, ...]
    gpu: bool = False
    trusted: bool = False


class OnLine(BaseOperator):  # type: ignore[misc]
    """Runs the command that `call` says, given the task's context, unless `is_done` says that it was done before.

    That is asked when the task starts, and not when its pod comes back: what the pod did is done by then, and the
    operator must hear of its end all the same, and clean up. A try that Airflow lost leaves its pod to the next one.
    """

    def __init__(
        self, *, call: Callable[[Context], Call], is_done: Callable[[Context], bool] | None = None, **options: Any
    ) -> None:
        super().__init__(do_xcom_push=False, **options)
        self._call, self._is_done = call, is_done
        self._made: BaseOperator | None = None

    def execute(self, context: Context) -> None:
        """Start the line's own process, or its pod, and wait."""
        with settled():
            done = self._is_done is not None and self._is_done(context)
        with self._line_of(context) as operator:
            if done:
                self.log.info("done already: there is nothing to do")
                operator.forget(context)
            else:
                operator.execute(context)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> None:
        """The pod said something, or ended."""
        with self._line_of(context) as operator:
            operator.trigger_reentry(context, event)

    def on_kill(self) -> None:
        """As the line's own operator does."""
        if self._made is not None:
            self._made.on_kill()

    @contextmanager
    def _line_of(self, context: Context) -> Iterator[BaseOperator]:
        """The line's own operator; who is to know of a wrong digest or signature is told."""
        with settled():
            call = self._call(context)
        run = light.identity(context["dag_run"], call.entry.timezone)
        self._made = runner_of(call.entry).command(
            call.name, call.arguments, run, gpu=call.gpu, trusted=call.trusted, doc_md=self.doc_md
        )
        # Airflow warns of operators that are run by hand; this one is the task.
        mark = ExecutorSafeguard.tracker.set(self._made)
        try:
            yield self._made
        except IntegrityFault as fault:
            tell(call.entry, "integrity", {"what": call.name, "why": str(fault)}, context)
            raise
        finally:
            ExecutorSafeguard.tracker.reset(mark)
