"""Withdrawing: images and their copies leave the line for ever, in one commit on main.

The event holds a tombstone of each (its SHA-256 and two fingerprints) and the report of everything that held it; the
state's parts that held it are stored anew without it. Ingest, batches and promotion follow the tombstones.

Erasing goes further. Every stored folder that holds them, of whatever version or run, is stored again without them
(and without the samples of a slice that were drawn from a caption which they alone had), and the event says which
stands for which (`replaced`) and what goes (`erased`). Only once that is on main are the old objects deleted, so that a
crash leaves bytes too many and never a line that names what is gone. The same command again deletes what is still
there, and what a run under way has stored meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from cl_steps.acts.purge import PARTS, Purge
from cl_steps.acts.replenishing import LearntHistory, reference_without, replay_without
from cl_steps.acts.withdrawal_scope import (
    asset_named,
    assets_of_ended_consent,
    assets_of_source,
    own_words,
    rows_of_line,
    touched,
    with_copies,
)
from cl_steps.config import Ingest
from cl_steps.data.manifests import Manifests, reading_store
from cl_steps.documents import Json
from cl_steps.errors import UsageError
from cl_steps.ledger.events import WithdrawalEvent
from cl_steps.ledger.fold import Ledger
from cl_steps.records.builders import act
from cl_steps.records.signer import event_files
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.store.digests import FOLDER, object_path
from cl_steps.store.objects import Store, open_store
from cl_steps.store.places import open_work
from cl_steps.store.pointers import Out, dvc_file, read_dvc_file


@dataclass(frozen=True)
class Request:
    """What a person wants withdrawn, why, who, and how far: one of an image file or SHA-256, all of a source, and all
    whose consent ended before a day (ISO 8601).
    """

    what: str | None
    source: str | None
    reason: str
    erase: bool
    by: str
    through: str
    ended: str | None = None


@dataclass(frozen=True)
class Done:
    """The event that says it, and whether it was on main before."""

    event: WithdrawalEvent
    before: bool


@dataclass(frozen=True)
class Erasure:
    """What stands for what, and the objects that go once that is on main."""

    replaced: dict[str, dict[str, Any]]
    erased: list[str]


def withdraw(line: Line, request: Request) -> Done:
    """Withdraw, and erase where it is asked for; done already, it only finishes what was left of it.

    Raises:
        UsageError: no reason; or nothing in the line, and no image, is meant by it.
        IntegrityError: an object that must be stored anew is damaged or missing.
        Unavailable: a remote cannot be reached or does not take a change.
    """
    if not request.reason.strip():
        raise UsageError('a withdrawal needs a reason: --reason "..."')
    if sum(named is not None for named in (request.what, request.source, request.ended)) != 1:
        raise UsageError("name one thing to withdraw: an image file, a SHA-256, --source NAME, or --consent-ended")
    made: list[Done] = []
    with reading(line.git) as main:

        def change() -> Change | None:
            with open_store(line.store) as store, reading_store(line.store, main.ledger().replaced) as manifests:
                done, found = _change(main, line, request, manifests, store)
            made.append(done)
            return found

        main.swap(change)
        if request.erase:
            _delete(line, main.ledger())
    return made[-1]


def _change(
    main: Mainline, line: Line, request: Request, manifests: Manifests, store: Store
) -> tuple[Done, Change | None]:
    """The event, and the commit that it takes; none where all of it is done."""
    ledger, limits = main.ledger(), main.params().ingest
    rows = rows_of_line(main, ledger, manifests)
    meant, about = _meant(request, ledger, rows, limits)
    assets = with_copies(meant, ledger, rows, limits.near_duplicate_rmse)
    names = {asset["sha256"] for asset in assets}
    purge = Purge(store, names, own_words(rows, names) if request.erase else frozenset())
    state = _purged_state(main, purge, partial(_filled_up, main, ledger, names, manifests, store))
    erasure = _erasure(store, purge, ledger) if request.erase else Erasure({}, [])
    if names <= ledger.tombstones.keys() and not (state or erasure.erased):
        return Done(_earlier(ledger, names, request.erase), True), None
    moment = main.moment()
    report = touched(main.records(), ledger, assets, manifests)
    said = {
        "by": request.by,
        "through": request.through,
        "reason": request.reason,
        "source": request.source,
        "erase": request.erase,
        "assets": assets,
        "touched": {**report, "state": {part: [old["md5"], new["md5"]] for part, (old, new) in state.items()}},
        "replaced": erasure.replaced,
        "erased": erasure.erased,
    }
    path, event = act(WithdrawalEvent, about, moment, said)
    files = {f"state/{part}.dvc": dvc_file(new, part) for part, (_, new) in state.items()}
    files |= _following(main, erasure.replaced)
    message = f"withdraw {len(assets)} assets\n\nEvent: {event.id}\n"
    return Done(event, False), Change({**files, **event_files(line, path, event)}, message)


def _meant(request: Request, ledger: Ledger, rows: pa.Table, limits: Ingest) -> tuple[list[dict[str, Any]], str]:
    """The assets that are meant, and what the event is called by."""
    if request.ended is not None:
        return assets_of_ended_consent(request.ended, ledger, rows), "consent"
    if request.source is not None:
        return assets_of_source(request.source, ledger, rows), "source"
    asset = asset_named(str(request.what), ledger, rows, limits)
    return [asset], asset["sha256"][:16]


def _purged_state(
    main: Mainline, purge: Purge, filled_up: Callable[[str, str], Out | None]
) -> dict[str, tuple[Out, Out]]:
    """The parts of the state that hold what goes: as they are, and as they will be."""
    found = {}
    for part in PARTS:
        content = main.read(f"state/{part}.dvc")
        old = read_dvc_file(content) if content else {"md5": ""}
        name = str(old["md5"])
        if name and purge.holders(name):
            if better := filled_up(part, name):
                purge.settle(name, better)
            found[part] = (old, purge.without(name) or old)
    return found


def _filled_up(
    main: Mainline, ledger: Ledger, gone: set[str], manifests: Manifests, store: Store, part: str, name: str
) -> Out | None:
    """A part of the state without what goes, and with what would be there instead; None for parts that hold all."""
    champion, reference = main.champion().version, main.read("state/reference.dvc")
    if part not in ("replay", "reference") or not reference:
        return None
    known = str(read_dvc_file(reference)["md5"])
    history = LearntHistory(champion, main.records(), ledger, store, manifests, known, frozenset(gone))
    return replay_without(history, name) if part == "replay" else reference_without(history, name)


def _erasure(store: Store, purge: Purge, ledger: Ledger) -> Erasure:
    """Every folder of the store is looked into, also what a crash or a run under way left; not what goes anyway."""
    names = sorted(store.inventory().sizes.keys() - ledger.erased.keys())
    folders = [name for name in names if name.endswith(FOLDER)]
    affected = purge.affected(folders)
    replaced = {name: dict(out) for name in affected if (out := purge.without(name))}
    holders = {md5 for name in affected for md5 in purge.holders(name).values()} - purge.shared(folders)
    return Erasure(replaced, sorted({*affected, *holders, *purge.loose(names)}))


def _following(main: Mainline, replaced: Mapping[str, Json]) -> dict[str, bytes]:
    """The `.dvc` files of main, intakes' and the state's, that name a folder which another one stands for now."""
    found = {}
    for folder in ("data", "state"):
        for name, content in main.folder_files(folder).items():
            if name.endswith(".dvc") and (out := read_dvc_file(content))["md5"] in replaced:
                found[f"{folder}/{name}"] = dvc_file(replaced[str(out["md5"])], name.removesuffix(".dvc"))
    return found


def _earlier(ledger: Ledger, names: set[str], erase: bool) -> WithdrawalEvent:
    """The last event that withdrew them, one that erased if that is asked for."""
    events = [e for e in ledger.withdrawals if not names.isdisjoint(asset["sha256"] for asset in e.assets)]
    return next((event for event in reversed(events) if event.erase or not erase), events[-1])


def _delete(line: Line, ledger: Ledger) -> None:
    """Delete what events say is erased and is still there, and all that the line's place for checkpoints holds."""
    with open_store(line.store) as store:
        store.delete(ledger.erased.keys() & store.inventory().sizes.keys())
    if line.work:
        open_work(line.work).remove()


def forget(folder: Path, erased: Iterable[str]) -> None:
    """Delete erased objects from the DVC cache of a person's checkout, if it has one."""
    for name in erased:
        with suppress(FileNotFoundError):
            (folder / ".dvc" / "cache" / object_path(name)).unlink()
