"""Asking for a new base: its bytes on the store, then a person's act on main that names the run which is to try it.

The act moves nothing. It says for which run, in place of which base, which base was asked for, file by file, and who
wanted it and why. Steps load that base and promotion puts it under the line only as the act says: the branch of a run
is open to whoever runs a step, and main is not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.ledger.events import RebaseEvent
from cl_steps.records.builders import act, files_of
from cl_steps.records.signer import event_files
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.store.digests import folder_md5
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import Out, read_dvc_file


@dataclass(frozen=True)
class RebaseRequest:
    """The run that is to try a new base, and who wants it, why, and through what."""

    run: str
    reason: str
    by: str
    through: str


def ask(line: Line, base: Path, request: RebaseRequest) -> RebaseEvent:
    """Store the base in a folder, record the act, and return it; the same request again changes nothing.

    Raises:
        UsageError: the line stands on this base already.
        Unavailable: a remote cannot be reached or does not take the change.
    """
    with reading(line.git) as main:
        refuse_same(main, base)
        with open_store(line.store) as store:
            out = store.put(base)
        record(main, line, request, out, files_of(base, "base"))
        return main.ledger().rebases[request.run]


def refuse_same(main: Mainline, base: Path) -> None:
    """Raise UsageError where the line stands on the base in a folder already."""
    _refuse(_standing(main), folder_md5(base))


def record(main: Mainline, line: Line, request: RebaseRequest, out: Out, files: dict[str, str]) -> None:
    """Put the act on main, for a base that is on the store: `out`, with the SHA-256 of its files; raises as `ask`."""

    def change() -> Change | None:
        if request.run in main.ledger().rebases:
            return None
        before = _standing(main)
        _refuse(before, str(out["md5"]))
        moment = main.moment()
        after = {key: out[key] for key in ("md5", "size", "nfiles")}
        said = {**asdict(request), "before": before, "after": after, "files": files}
        path, event = act(RebaseEvent, request.run, moment, said)
        return Change(event_files(line, path, event), f"ask for a new base\n\nEvent: {event.id}\n")

    main.swap(change)


def _standing(main: Mainline) -> str:
    return str(read_dvc_file(main.read("state/base.dvc") or b"")["md5"])


def _refuse(before: str, after: str) -> None:
    if before == after:
        raise UsageError("the line stands on this base already: name another one")
