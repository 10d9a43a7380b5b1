"""Pruning: old runs that came to nothing go, and with them what the store holds for nobody else.

A run goes that ended rejected, stale, failed or without an update, or that was held and refused. What stays: promoted
runs (their branches are the history of versions), held ones that wait for an answer or were approved, and runs under
way. The order makes it safe to be killed anywhere and to run beside nights; the same command again goes on:

1. the runs' files and answers are copied to the branch `archive`;
2. an event on main names the runs and their branches' tips. From here on promotion refuses those tips: main's
   compare-and-swap decides between a late promotion of a run and its pruning, and never both happen;
3. the branches are deleted, each with a lease on the tip that was archived (a run that was taken up again stays), and
   with them those that say how the runs began;
4. only then is everything fetched anew and what it needs marked; what is not marked and is older than a day may go (a
   step stores its data before it pushes its branch, which no mark can see yet), and drafts that killed uploads left;
5. the branches and tags are looked at once more, and if one of them changed since 4, all is marked again;
6. the objects are deleted.

What is left to chance: a step that stores, between 4 and 6, bytes equal to an old object that nothing needed. Its run
then fails for want of that object, and promotion, which asks the store for every object, cannot be fooled.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cl_steps.errors import Unavailable, UsageError
from cl_steps.ledger.events import AnswerEvent, PruneEvent, parse_event
from cl_steps.operations.retention import RUNS, current_refs, mirrored, needs
from cl_steps.records.builders import act, person
from cl_steps.records.signer import event_files
from cl_steps.repository.archive import put_away
from cl_steps.repository.beginning import begun_ref
from cl_steps.repository.bundle import Refs
from cl_steps.repository.git import GitError, git, reason, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline
from cl_steps.store.objects import open_store

ENDS = ("rejected", "stale", "failed", "no_update")
GRACE = timedelta(days=1)
LOOKS = 5


@dataclass(frozen=True)
class Old:
    """Runs that may go: the tip of each one's branch, and the event files of the answers to it."""

    tips: Mapping[str, str]
    answers: Mapping[str, Mapping[str, bytes]]


def prune(line: Line, days: float, dry_run: bool) -> dict[str, Any]:
    """Let go of runs that ended more than `days` ago; needs the credential that may write main and delete branches.

    Raises:
        UsageError: `days` is no number of days.
        IntegrityError: the store lacks what tells which objects are needed; no object is deleted then.
        Unavailable: a remote cannot be reached or does not take a change, or runs write to it all the time.
    """
    if not (math.isfinite(days) and days >= 0):
        raise UsageError(f"--days takes a number of days from 0 up, and it is {days:g}")
    before = datetime.now(UTC) - timedelta(days=days)
    runs = _old_runs(line, before) if dry_run else _let_go(line, before, days)
    return {"dry_run": dry_run, "runs": runs, **_free(line, runs, dry_run)}


def _old_runs(line: Line, before: datetime) -> list[str]:
    with mirrored(line.git) as (main, refs):
        return list(_old(main, refs, before).tips)


def _let_go(line: Line, before: datetime, days: float) -> list[str]:
    """Steps 1 to 3; returns the runs whose branches are gone."""
    with mirrored(line.git) as (main, refs):
        old = _old(main, refs, before)
        if not old.tips:
            return []
        put_away(main, old.tips, old.answers)
        _record(line, main, refs, before, days)
        _delete_branches(main, {run: tip for run, tip in main.ledger().pruned.items() if old.tips.get(run) == tip})
    left = current_refs(line.git)
    return [run for run in old.tips if f"{RUNS}{run}" not in left]


def _old(main: Mainline, refs: Refs, before: datetime) -> Old:
    """The runs that came to nothing and ended, and whose branches last changed, before that moment."""
    ledger, answers, answered = main.ledger(), *_answers(main)
    tips = {}
    for run, event in ledger.runs.items():
        tip, answer = refs.get(f"{RUNS}{run}"), ledger.answers.get(run)
        refused = event.outcome == "held" and answer is not None and not answer.yes
        if not tip or not (event.outcome in ENDS or refused):
            continue
        moments = [event.at, *answered.get(run, ()), text(main.folder, "show", "-s", "--format=%cI", tip)]
        if max(datetime.fromisoformat(moment) for moment in moments) < before:
            tips[run] = tip
    return Old(tips, {run: answers[run] for run in tips if run in answers})


def _answers(main: Mainline) -> tuple[dict[str, dict[str, bytes]], dict[str, list[str]]]:
    """The event files (and their signatures) of the answers to each run, and when they were given."""
    files: dict[str, dict[str, bytes]] = {}
    moments: dict[str, list[str]] = {}
    folder = main.folder_files("events")
    for name in (name for name in folder if name.endswith(".json")):
        event = parse_event(name, folder[name])
        if isinstance(event, AnswerEvent):
            names = {name, name.removesuffix(".json") + ".sig"} & folder.keys()
            files.setdefault(event.run, {}).update({kept: folder[kept] for kept in names})
            moments.setdefault(event.run, []).append(event.at)
    return files, moments


def _record(line: Line, main: Mainline, refs: Refs, before: datetime, days: float) -> None:
    """Step 2: the event on main, for those that are still to go as main is by then."""

    def change() -> Change | None:
        done, old = main.ledger().pruned, _old(main, refs, before).tips
        runs = {run: tip for run, tip in old.items() if done.get(run) != tip}
        if not runs:
            return None
        moment = main.moment()
        said = {"by": person(), "through": "command line", "days": days, "runs": runs}
        path, event = act(PruneEvent, f"{len(runs)}-runs", moment, said)
        return Change(event_files(line, path, event), f"prune {len(runs)} runs\n")

    main.swap(change)


def _delete_branches(main: Mainline, tips: Mapping[str, str]) -> None:
    _delete(main, {f"{RUNS}{run}": tip for run, tip in tips.items()})
    refs = current_refs(main.url)
    # One of an earlier try, too, that was killed between the two.
    begun = {begun_ref(run) for run in main.ledger().pruned if f"{RUNS}{run}" not in refs} & refs.keys()
    _delete(main, {ref: refs[ref] for ref in begun})


def _delete(main: Mainline, wanted: Mapping[str, str]) -> None:
    """Delete those branches that are still where they were."""
    if not wanted:
        return
    leases = [f"--force-with-lease={ref}:{tip}" for ref, tip in wanted.items()]
    try:
        git(main.folder, "push", "-q", *leases, main.url, *(f":{ref}" for ref in wanted))
    except GitError as error:
        left = current_refs(main.url)
        if any(left.get(ref) == tip for ref, tip in wanted.items()):
            words = "the Git remote did not let go of the runs' branches (this needs the trusted credential)"
            raise Unavailable(f"{words}: {reason(error)}") from error


def _free(line: Line, runs: Collection[str], dry_run: bool) -> dict[str, int]:
    """Steps 4 to 6: how many objects go and how many stay for their youth alone, and their bytes."""
    with open_store(line.store) as store:
        held = store.inventory()
        for _ in range(LOOKS):
            with mirrored(line.git) as (main, refs):
                needed = needs(main, refs, without=runs if dry_run else ())
            spare = (held.sizes.keys() - store.with_files(needed.all, needed.listed)) | held.drafts.keys()
            gone = store.older_than(datetime.now(UTC) - GRACE, spare)
            if dry_run or current_refs(line.git) == refs:
                break
        else:
            raise Unavailable("runs write to the line all the time: give the same command again when they are done")
        if not dry_run:
            store.delete(gone)
        facts = {"objects": len(gone), "bytes": held.bytes_of(gone)}
        return {**facts, "young_objects": len(spare - gone), "young_bytes": held.bytes_of(spare - gone)}
