"""Gathers a line's overview: records and events from main, reports and locks from runs' branches (those of pruned runs
from the archive), pictures from the store. One fetch brings every branch; nothing is checked out. Pictures that are
gone are left out and named.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cl_steps.config import RUN_ID, Params, RunSpec, load_params, load_run
from cl_steps.documents import Json
from cl_steps.errors import IntegrityError, Unavailable, UsageError
from cl_steps.ledger.events import AnswerEvent, RunEvent, parse_event
from cl_steps.pipeline import STAGES
from cl_steps.report.overview import Night, Overview, Pictures, Table, table, text
from cl_steps.repository.archive import archived
from cl_steps.repository.bundle import ARCHIVE
from cl_steps.repository.git import GitError, blobs, git, reason
from cl_steps.repository.git import text as git_text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline
from cl_steps.stats.samples import SAMPLE_FILES
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import Out, lock_outs, read_lock

ReadFolder = Callable[[str, Iterable[str]], dict[str, bytes]]

SAMPLES, DRIFT = "tonight/evaluation/samples", "tonight/drift/figures"
PICTURES: Mapping[str, tuple[str, ...]] = {
    SAMPLES: SAMPLE_FILES,
    DRIFT: ("plots.json", "evidently.html"),
}
FILES = ("params.yaml", "run.yaml", "dvc.lock", *(step.report for step in STAGES))


@dataclass(frozen=True)
class Branch:
    """What the branch of a run holds of use here."""

    reports: Mapping[str, Json] = field(default_factory=dict)
    lock: Json = field(default_factory=dict)
    params: Params = field(default_factory=Params)
    spec: RunSpec = field(default_factory=RunSpec)


def collect(line: Line, nights_with_pictures: int = 0) -> Overview:
    """The overview of a line, with the pictures of its latest nights.

    Without pictures the store is not touched and DVC not imported.

    Raises:
        Unavailable: a remote cannot be reached.
        IntegrityError: an event, a record or a picture is not what it must be.
    """
    with tempfile.TemporaryDirectory(prefix="retain-") as name:
        scratch = Path(name)
        main = Mainline.open(line.git, scratch)
        records = {record.version: record.document() for record in main.records()}
        events, answers = _events(main)
        branches = _branches(main, line, scratch)
        for run in branches:
            events.setdefault(run, _running(run, branches[run].spec))
        whole = [_whole(branches.get(run), records.get(str(event.get("version")))) for run, event in events.items()]
        pictures = _pictures(line, [branch.lock for branch in whole], nights_with_pictures)
        nights = [
            Night(event, branch.reports, shown, answers.get(run), branch.params)
            for (run, event), branch, shown in zip(events.items(), whole, pictures, strict=True)
        ]
        named = text(main.params_file().get("name")) or "line"
        champion = main.champion().version
        return Overview(named, champion, tuple(records.values()), tuple(nights))


def _events(main: Mainline) -> tuple[dict[str, Table], dict[str, Table]]:
    """The last event of every run, in the order in which the runs first ended, and the answers to them."""
    runs: dict[str, Table] = {}
    answers: dict[str, Table] = {}
    for name, content in main.folder_files("events").items():
        event = parse_event(name, content) if name.endswith(".json") else None
        if isinstance(event, RunEvent | AnswerEvent):
            (runs if isinstance(event, RunEvent) else answers)[event.run] = event.document()
    return runs, answers


def _running(run: str, spec: RunSpec) -> Table:
    """What stands for the event of a run that has none yet."""
    trigger = {"kind": spec.trigger, "by": spec.by, "reason": spec.reason}
    found = {"kind": "run", "run": run, "at": spec.started, "outcome": "running", "trigger": trigger}
    return {**found, "rebase": {"after": spec.rebase}} if spec.rebase else found


def _branches(main: Mainline, line: Line, scratch: Path) -> dict[str, Branch]:
    """Every run's branch, or what the archive kept of it, fetched at once and read in one go, oldest first."""
    wanted = [f"+{ref}*:{ref}*" for ref in ("refs/heads/runs/", ARCHIVE)]
    try:
        git(main.folder, "fetch", "-q", "--depth", "1", "--no-tags", line.git, *wanted)
    except GitError as error:
        raise Unavailable(f"the runs' branches cannot be read: {reason(error)}") from error
    refs = git_text(main.folder, "for-each-ref", "--format=%(refname)", "refs/heads/runs/").splitlines()
    places = archived(main.folder) | {ref.removeprefix("refs/heads/runs/"): f"{ref}:" for ref in refs}
    runs = {run: place for run, place in places.items() if RUN_ID.fullmatch(run)}
    contents = blobs(main.folder, [f"{place}{path}" for place in runs.values() for path in FILES])
    branches = {}
    for at, run in enumerate(runs):
        files = zip(FILES, contents[at * len(FILES) : (at + 1) * len(FILES)], strict=True)
        branches[run] = _branch({path: content for path, content in files if content is not None}, scratch)
    return dict(sorted(branches.items(), key=lambda item: item[1].spec.started))


def _branch(files: Mapping[str, bytes], scratch: Path) -> Branch:
    """A branch from its files; what cannot be read is as if it were not there."""
    reports = {step.name: table(_json(files.get(step.report))) for step in STAGES if step.report in files}
    params, spec = _configuration(files, scratch)
    try:
        lock = read_lock(files.get("dvc.lock"))
    except IntegrityError:
        lock = {}
    return Branch({name: report for name, report in reports.items() if report}, lock, params, spec)


def _configuration(files: Mapping[str, bytes], scratch: Path) -> tuple[Params, RunSpec]:
    (scratch / "run.yaml").write_bytes(files.get("run.yaml", b"{}"))
    try:
        spec = load_run(scratch)
        return _params(files.get("params.yaml", b"{}"), json.dumps(spec.set, sort_keys=True), scratch), spec
    except (UsageError, TypeError):
        return Params(), RunSpec()


@lru_cache(maxsize=64)
def _params(content: bytes, overrides: str, scratch: Path) -> Params:
    """The parameters of a run, from its file and what it set itself; most nights of a line have the same."""
    (scratch / "params.yaml").write_bytes(content)
    return load_params(scratch, RunSpec(set=json.loads(overrides)))


def _whole(branch: Branch | None, record: Json | None) -> Branch:
    """What is shown of a run: of a version what its record says, else its branch, where any step may write."""
    branch = branch or Branch()
    if not record:
        return branch
    reports = {name: table(report) for name, report in table(record.get("reports")).items()}
    return replace(branch, reports=reports, lock=table(record.get("stages")))


def _pictures(line: Line, locks: Sequence[Json], latest: int) -> list[Pictures]:
    """The pictures of the last `latest` runs; none of those before."""
    first = max(0, len(locks) - latest)
    if first == len(locks):
        return [Pictures()] * len(locks)
    with open_store(line.store) as store:
        return [Pictures()] * first + [_shown(store.files, lock) for lock in locks[first:]]


def _shown(read: ReadFolder, lock: Json) -> Pictures:
    outs, found, gone = _outs(lock), {}, []
    for path, names in PICTURES.items():
        out = outs.get(path)
        found[path] = read(str(out["md5"]), names) if out else {}
        if out and out.get("nfiles") and not found[path]:
            gone.append(path)
    return Pictures(found[SAMPLES], found[DRIFT], tuple(gone))


def _outs(lock: Json) -> dict[str, Out]:
    try:
        return lock_outs(lock)
    except (AttributeError, KeyError, TypeError):
        return {}


def _json(content: bytes | None) -> Any:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError):
        return None
