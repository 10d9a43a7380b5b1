"""Replaying: play a line again from a version on, as if an image had never arrived (`retain reproduce --from`).

Exact unlearning: a line of its own begins at vK, which must not have learnt the image; then every later run is played
again in its order, with its recorded trigger, its parameters as they were on main then, and its own intake as the
landing, less the image and copies of it. Nothing is copied from what the image had an influence on: a new base comes
from outside, and a rebase is played again as every run. What a person
approved then was another candidate: where the replay holds a run, it says so and goes on without it. Files that were
quarantined then are left out.
"""

from __future__ import annotations

import json as documents
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cl_steps.acts.rebase import RebaseRequest, record
from cl_steps.acts.rollback import roll_back
from cl_steps.acts.withdrawal import Request, withdraw
from cl_steps.data.shards import iter_assets, read_table
from cl_steps.documents import Document
from cl_steps.errors import RetainError, UsageError
from cl_steps.formats.openlineage import rehearsal
from cl_steps.ledger.ancestors import nearest_first
from cl_steps.ledger.events import Event, RebaseEvent, RollbackEvent, RunEvent, parse_event
from cl_steps.ledger.fold import Ledger
from cl_steps.operations.fork import check_out, fork
from cl_steps.operations.models import record_of
from cl_steps.operations.play import play
from cl_steps.operations.reproduce import refuse_taken, spec_of
from cl_steps.operations.retention import promised
from cl_steps.progress import say
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.repository.run_branch import open_run
from cl_steps.store import dvc
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import Out, read_dvc_file

FACTS = ("text", "slice", "source", "licence", "consent", "consent_until")
WHY = "the line is played again without it"


def replay(line: Line, start: str | None, without: list[str], to: str | None) -> Document:
    """Play the line again into the folder `to` and set its champion beside today's.

    Raises:
        UsageError: a part of the question is missing, the version knows the image already, or the folder is taken.
    """
    if not start or not to:
        raise UsageError("--from names the version to begin with and --to the folder for the new line: give both")
    names = [_sha(name) for name in without]
    refuse_taken(Path(to))
    folder = Path(to).resolve()
    with reading(line.git) as main:
        commit = main.version_commit(start)
        _refuse_learnt(main, line, start, names)
        folder.mkdir(parents=True, exist_ok=True)
        later = list(_later(main, commit))
        copy = fork(main, line, commit, folder, _outs_until(main, commit))
        _forget(folder, names)
        found = [_again(main, line, copy, event, names) for event in later]
        document = _compared(main, copy, start, names, [row for row in found if row])
    check_out(folder, copy)
    return {**document, "folder": to}


def _sha(name: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", name):
        raise UsageError(f"--without takes an image's SHA-256 (`retain asset FILE` tells it), and not {name!r}")
    return name


def _refuse_learnt(main: Mainline, line: Line, start: str, names: list[str]) -> None:
    """Raise UsageError where the version to begin with knows one of the images already."""
    hit = sorted(set(names) & _known(main, line, start))
    if not hit:
        return
    earlier = nearest_first(main.records(), start)[1:]
    parent = next((version for version in earlier if not set(names) & _known(main, line, version)), None)
    clean = f"begin with {parent}" if parent else "no version is clean: `retain init` begins a new line"
    raise UsageError(f"{start} knows {hit[0][:12]}... already: {clean}")


def _known(main: Mainline, line: Line, version: str) -> set[str]:
    """The SHA-256 of all that a version had ever learnt, been probed or evaluated with."""
    content = main.at(main.version_commit(version)).read("state/reference.dvc")
    assert content is not None, f"{version} has no reference"
    out = read_dvc_file(content)
    replaced = main.ledger().replaced.get(str(out["md5"]))
    md5 = replaced["md5"] if replaced else out["md5"]
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        root = Path(scratch)
        dvc.fetch(root / "state", line.store, {"reference": str(md5)})
        known = root / "state" / "reference" / "known.parquet"
        return set(read_table(known)["sha256"].to_pylist()) if known.is_file() else set()


def _outs_until(main: Mainline, commit: str) -> list[Out]:
    """What main promised at that commit, so that every version until then is whole in the new line, too.

    What was erased since is not there any more; what stands for it came later, and is not promised.
    """
    main.unshallow()
    return [{"md5": name} for name in sorted(promised(main.at(commit)) - main.ledger().erased.keys())]


def _forget(folder: Path, names: Iterable[str]) -> None:
    """Withdraw the images that wait in the new line; those that it never saw do not reach it anyway."""
    for name in names:
        with suppress(UsageError):
            withdraw(resolve(str(folder)), Request(name, None, WHY, False, "retain reproduce", "command line"))


def _later(main: Mainline, commit: str) -> Iterator[RunEvent | RollbackEvent | RebaseEvent]:
    """Events after a commit, in their order; of a run its last one counts."""
    before = main.at(commit).folder_files("events")
    files = {name: content for name, content in main.folder_files("events").items() if name not in before}
    events: list[Event] = [parse_event(name, content) for name, content in files.items() if name.endswith(".json")]
    last = {event.run: event for event in events if isinstance(event, RunEvent)}
    for event in events:
        if isinstance(event, RollbackEvent | RebaseEvent) or (isinstance(event, RunEvent) and last[event.run] is event):
            yield event


def _again(
    main: Mainline, line: Line, copy: Line, event: RunEvent | RollbackEvent | RebaseEvent, names: list[str]
) -> Document | None:
    """One event once more; None for what there is nothing to say of."""
    if isinstance(event, RollbackEvent):
        return _roll_back(main, copy, event)
    if isinstance(event, RebaseEvent):
        _ask_again(line, copy, event)
        return None
    then = f"{event.outcome} {event.version or ''}".strip()
    if not event.batch and not event.intake:
        return None
    run = event.run
    _land(line, copy, event, main.ledger(), names)
    _follow_main(main.at(event.base), copy)
    try:
        open_run(copy, spec_of(event))
        with rehearsal():
            play(copy, run)
    except RetainError as error:
        say(f"{run}: {error}")
    with reading(copy.git) as now:
        ended = now.ledger().runs.get(run)
    outcome = f"{ended.outcome} {ended.version or ''}".strip() if ended else "not possible"
    say(f"run {run}: {then} then, {outcome} now")
    return {"run": run, "then": then, "now": outcome}


def _land(line: Line, copy: Line, event: RunEvent, ledger: Ledger, names: list[str]) -> None:
    """The landing as the run found it, less what was quarantined and what is to be forgotten."""
    landing = Path(copy.landing)
    shutil.rmtree(landing)
    landing.mkdir()
    intake = ledger.intakes.get(event.run)
    if intake is None:
        return
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        dvc.fetch(Path(scratch) / "data", line.store, {"intake": intake.md5})
        with (landing / "metadata.jsonl").open("w", encoding="utf-8") as lines:
            for asset in iter_assets(Path(scratch) / "data" / "intake"):
                if asset.sha256 not in names:
                    (landing / asset.sha256).write_bytes(asset.image)
                    facts = {key: value for key in FACTS if (value := getattr(asset, key))}
                    lines.write(documents.dumps({"file_name": asset.sha256, **facts}) + "\n")


def _follow_main(then: Mainline, copy: Line) -> None:
    """Parameters and checks as they were on main when the run began."""
    with reading(copy.git) as main:
        wanted: dict[str, bytes | None] = {"params.yaml": then.read("params.yaml")}
        wanted |= {f"checks/{name}": None for name in main.folder_files("checks")}
        wanted |= {f"checks/{name}": content for name, content in then.folder_files("checks").items()}
        files = {path: content for path, content in wanted.items() if main.read(path) != content}
        if files:
            main.swap(lambda: Change(files, "parameters and checks as they were"))


def _roll_back(main: Mainline, copy: Line, event: RollbackEvent) -> Document:
    """The version that the same run made here is restored, if there is one."""
    run = main.record(event.version).run
    with reading(copy.git) as here:
        mine = next((record.version for record in here.records() if record.run == run), None)
    then = f"back to {event.version}"
    if mine is None:
        return {"run": "rollback", "then": then, "now": "not possible: that run made no version"}
    try:
        roll_back(copy, mine, event.reason, event.relearn, event.by, event.through)
    except UsageError as error:
        return {"run": "rollback", "then": then, "now": str(error)}
    return {"run": "rollback", "then": then, "now": f"back to {mine}"}


def _ask_again(line: Line, copy: Line, event: RebaseEvent) -> None:
    """The act of who asked for a new base, on the new line's main; its run follows and says whether it is possible."""
    with open_store(line.store) as store:
        store.copy([event.after["md5"]], Path(copy.store))
    request = RebaseRequest(event.run, event.reason, event.by, event.through)
    with reading(copy.git) as here, suppress(UsageError):
        record(here, copy, request, event.after, dict(event.files))


def _compared(main: Mainline, copy: Line, start: str, names: list[str], rows: list[Document]) -> Document:
    """Today's champion beside the new line's, slice by slice."""
    with reading(copy.git) as here:
        then, now = (record_of(one, "champion") for one in (main, here))
    slices: Document = {}
    for name in sorted({*then.slices, *now.slices}):
        old, new = (record.slices.get(name, {}) for record in (then, now))
        slices[name] = {metric: [old.get(metric), new.get(metric)] for metric in sorted({*old, *new})}
    champion = {"then": then.version, "now": now.version}
    return {"from": start, "without": names, "runs": rows, "champion": champion, "slices": slices}
