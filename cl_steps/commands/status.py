"""`retain status`, `versions`, `runs`: where a line stands, read from main of its Git remote."""

from __future__ import annotations

from cl_steps.commands.wording import byte_size
from cl_steps.documents import Document
from cl_steps.errors import IntegrityError
from cl_steps.ledger.events import RunEvent
from cl_steps.ledger.fold import Ledger
from cl_steps.repository.git import remote_refs
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import read_run


def status(dir: str, json: bool, remote: bool = False) -> Document | str:
    """Champion, slices, what is pending, set aside or held, and what runs now; with `remote` how large it all is.

    Raises:
        UsageError: no workspace.
        Unavailable: a remote cannot be reached.
        IntegrityError: with `remote`, the store lacks what tells which objects are needed.
    """
    line = resolve(dir)
    with reading(line.git) as main:
        ledger, champion = main.ledger(), main.champion()
        pending = ledger.pending(main.max_attempts())
        document = {
            "champion": champion.version,
            "slices": list(champion.slices),
            "anchors": champion.anchors,
            "pending": {"runs": list(pending), "assets": sum(ledger.intakes[run].assets for run in pending)},
            "set_aside": {i.run: i.why for i in ledger.intakes.values() if i.status == "set_aside"},
            "held": [
                run for run, event in ledger.runs.items() if event.outcome == "held" and run not in ledger.answers
            ],
            "running": _running(line, ledger),
            "taken_in": sum(intake.assets for intake in ledger.intakes.values()),
            "landing": line.landing,
        }
    if remote:
        document["remote"] = _sizes(line)
    return document if json else _status_text(document)


def versions(dir: str, json: bool) -> Document | str:
    """Every version, its parent, its run and its slices' scores."""
    with reading(resolve(dir).git) as main:
        champion = main.champion().version
        keys = ("version", "parent", "run", "created", "slices")
        found = [
            {**{key: getattr(record, key) for key in keys}, "rebase": record.rebase is not None}
            for record in main.records()
        ]
    if json:
        return {"champion": champion, "versions": found}
    return "\n".join(_version_text(version, champion) for version in found)


def runs(dir: str, json: bool) -> Document | str:
    """Every run in the order of its end, those that run now last."""
    line = resolve(dir)
    with reading(line.git) as main:
        ledger = main.ledger()
    found = [_run_row(event) for event in ledger.runs.values()]
    found += [_running_row(line, run) for run in _running(line, ledger)]
    return {"runs": found} if json else "\n".join(_run_text(row) for row in found) or "no run yet"


def _running(line: Line, ledger: Ledger) -> list[str]:
    branches = (ref.removeprefix("refs/heads/runs/") for ref in remote_refs(line.git, "refs/heads/runs/*"))
    return sorted(run for run in branches if run not in ledger.runs)


def _run_row(event: RunEvent) -> Document:
    return {
        "run": event.run,
        "trigger": event.trigger.kind,
        "rebase": event.rebase is not None,
        "drift": event.drift,
        "gate": event.gate,
        "outcome": event.outcome,
        "version": event.version,
        "seconds": event.seconds,
        "why": event.why,
    }


def _running_row(line: Line, run: str) -> Document:
    try:
        state = read_run(line, run)
    except IntegrityError as error:
        nothing = dict.fromkeys(("trigger", "drift", "gate", "version", "seconds"))
        return {"run": run, "outcome": "running", **nothing, "rebase": False, "why": str(error)}
    verdicts = {name: state.verdict(name) for name in ("drift", "gate")}
    row = {"run": run, "trigger": state.spec.trigger, "outcome": "running", "version": None, "seconds": None}
    return {**row, **verdicts, "rebase": bool(state.spec.rebase), "why": ""}


def _run_text(row: Document) -> str:
    started = "rebase" if row["rebase"] else row["trigger"] or "-"
    cells = (row["run"], started, row["drift"] or "-", row["gate"] or "-", row["outcome"], row["version"] or "-")
    seconds = f"{row['seconds']:.0f} s" if row["seconds"] is not None else "-"
    return "{:<20} {:<9} {:<9} {:<13} {:<10} {:<5} {:>7}  {}".format(*cells, seconds, row["why"])


def _version_text(version: Document, champion: str | None) -> str:
    scores = (
        f"{name} " + ", ".join(f"{metric} {value:.3f}" for metric, value in metrics.items())
        for name, metrics in version["slices"].items()
    )
    mark = "*" if version["version"] == champion else " "
    parent = f"{version['parent'] or '-'}{', on a new base' if version['rebase'] else ''}"
    return f"{mark} {version['version']:<5} {version['created']}  from {parent}  {'; '.join(scores)}"


def _status_text(document: Document) -> str:
    lines = [
        f"champion   {document['champion']}, knows {', '.join(document['slices'])}",
        f"pending    {document['pending']['assets']} assets of {len(document['pending']['runs'])} runs",
        f"held       {', '.join(document['held']) or 'nothing waits for an answer'}",
        f"set aside  {'; '.join(f'{run} ({why})' for run, why in document['set_aside'].items()) or 'nothing'}",
        f"running    {', '.join(document['running']) or 'nothing'}",
        f"landing    {document['landing']}: {document['taken_in']} assets of it are taken in and may be removed there",
    ]
    return "\n".join(lines + (_sizes_text(document["remote"]) if "remote" in document else []))


def _sizes(line: Line) -> Document:
    """Objects and bytes of the store in all and by what needs them first, and of a clone of Git; not the work place."""
    from cl_steps.operations.retention import mirrored, needs
    from cl_steps.store.objects import open_store

    with open_store(line.store) as store, mirrored(line.git) as (main, refs):
        held, needed = store.inventory(), needs(main, refs)
        every = {*held.sizes, *held.drafts}
        left = set(every)
        store.with_files(needed.listed, needed.listed)
        shares = {}
        for name in ("champion", "versions", "intakes", "runs"):
            share = store.with_files(getattr(needed, name), ()) & left
            shares[name] = {"objects": len(share), "bytes": held.bytes_of(share)}
            left -= share
        shares["nothing"] = {"objects": len(left), "bytes": held.bytes_of(left)}
        files = [path for path in main.folder.rglob("*") if path.is_file()]
        return {
            "store": {"objects": len(every), "bytes": held.bytes_of(every)},
            "needed_by": shares,
            "git": {"refs": len(refs), "bytes": sum(path.stat().st_size for path in files)},
        }


def _sizes_text(sizes: Document) -> list[str]:
    store, git = sizes["store"], sizes["git"]
    words = {"champion": "the champion", "versions": "other versions", "intakes": "other intakes", "runs": "runs"}
    parts = [f"{byte_size(sizes['needed_by'][name]['bytes'])} for {word}" for name, word in words.items()]
    parts.append(f"{byte_size(sizes['needed_by']['nothing']['bytes'])} for nothing (`retain prune`)")
    return [
        f"store      {store['objects']} objects, {byte_size(store['bytes'])}: {', '.join(parts)}",
        f"git        {byte_size(git['bytes'])}, {git['refs']} branches and tags",
    ]
