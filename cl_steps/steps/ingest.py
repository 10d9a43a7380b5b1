"""Step 1, ingest: landing -> tonight's intake -> the batch that this run learns from.

The batch is every pending intake with tonight's new assets, or exactly the batch of an earlier run that a person
approved (`run.batch`); then nothing is taken in, and neither in a rebase, whose batch is empty: what landed stays where
it is, and what is pending stays so. What was withdrawn, and copies of it, are in no batch, nor is what may be used no
more since consent ended.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from cl_steps.data.aside import write_quarantine
from cl_steps.data.intake import COUNTS, Intake, take_in
from cl_steps.data.landing import Landed
from cl_steps.data.shards import (
    MANIFEST_SCHEMA,
    SPLITS,
    content_digest,
    distinct,
    iter_assets,
    manifest_of,
    read_manifest,
    read_table,
    write_dataset,
    write_manifest,
)
from cl_steps.data.withdrawn import Withdrawn, consent_ended
from cl_steps.errors import Unavailable
from cl_steps.landing.names import ARCHIVES, is_metadata, suffix
from cl_steps.landing.snapshot import Snapshot
from cl_steps.ledger.fold import Ledger, read_ledger
from cl_steps.run.context import Context, StepReport

NUM_SHOWN = 50
NUM_REMEMBERED = 2000
"""Quarantined things that a run's event names, so that what stays in the landing is not news every night.

Only those that no event before names: however many they are, all are known after some nights.
"""


def run(context: Context) -> StepReport:
    """Write `tonight/intake` and `tonight/batch`; the verdict is `ok` or `too_few`.

    Raises:
        NoUsableData: there is no landing.
        Unavailable: an intake that the batch needs is not here, or the landing changes while it is read.
    """
    ledger = read_ledger(context.root / "events")
    withdrawn = Withdrawn.of(ledger.tombstones.values())
    folder = context.fresh("tonight/intake")
    known = _known(context, ledger)
    intake, landed = _take_in(context, ledger, withdrawn, known, folder)
    runs, batch = _assemble(context, _members(context, ledger), withdrawn, folder)
    ended = {"consent_ended": _consent_ended(context, ledger, known)}
    figures = {**_figures(ledger, intake, runs, batch), **ended, "landing": asdict(landed)}
    return _report(context, figures, landed)


def _take_in(
    context: Context, ledger: Ledger, withdrawn: Withdrawn, known: pa.Table, folder: Path
) -> tuple[Intake | None, Landed]:
    """Tonight's intake, written into `folder`, and what became of all that arrived.

    There is none (and an empty dataset is written) in a rebase, where a run repeats an earlier batch, and where its
    intake is in the ledger already: a run that is tried again must not change what was recorded.
    """
    if context.run.rebase or context.run.batch or context.run.id in ledger.intakes:
        write_dataset(folder, [])
        write_quarantine(folder, [])
        return None, Landed()
    params, today = context.params, _today(context)
    # A run sees a copy under names of ours; a person's own checkout has the folder itself.
    landing = Snapshot.at(context.root) or context.path("landing")
    intake = take_in(landing, params.ingest, params.seed, context.run.id, known, withdrawn=withdrawn, today=today)
    not_kept = intake.write(folder, ledger.quarantined)
    return intake, replace(intake.landed, not_kept=not_kept)


def _known(context: Context, ledger: Ledger) -> pa.Table:
    """Every asset that was ever taken in, learnt or not."""
    learnt = context.path("state/reference") / "known.parquet"
    tables = [read_table(learnt)] if learnt.is_file() else []
    intakes = manifest_of(context.root / "data" / run for run in sorted(ledger.intakes))
    return distinct(pa.concat_tables([*tables, intakes]))


def _today(context: Context) -> str:
    """The day on which the run began: it stays the same however late a step is tried again."""
    return context.run.started[:10] or datetime.now(UTC).date().isoformat()


def _consent_ended(context: Context, ledger: Ledger, known: pa.Table) -> list[str]:
    """The SHA-256 of what was taken in and may be used no more; `close` has it withdrawn. Not all of very many."""
    names = known.filter(pa.array(consent_ended(known, _today(context))))["sha256"].to_pylist()
    return [name for name in names if name not in ledger.tombstones][:NUM_REMEMBERED]


def _members(context: Context, ledger: Ledger) -> dict[str, Path]:
    """The stored intakes that the batch is made of, by run; raises Unavailable where one is not here."""
    runs = ledger.members(context.run, context.params.ingest.max_attempts)
    members = {run: context.root / "data" / run for run in runs}
    for run, folder in members.items():
        if not (folder / "manifest.parquet").is_file():
            raise Unavailable(f"the intake of run {run} is not here: `dvc pull data/{run}` brings it")
    return members


def _assemble(
    context: Context, members: dict[str, Path], withdrawn: Withdrawn, tonight: Path
) -> tuple[list[str], pa.Table]:
    """Copy the shards of all intakes and write one manifest over them; the runs and it."""
    folder = context.fresh("tonight/batch")
    parts = dict(members)
    if read_manifest(tonight).num_rows:
        parts[context.run.id] = tonight
    kept = [MANIFEST_SCHEMA.empty_table()]
    for run, part in parts.items():
        manifest = read_manifest(part)
        gone = withdrawn.among(manifest, context.params.ingest.near_duplicate_rmse)
        gone |= consent_ended(manifest, _today(context))
        kept.append(_copy_part(part, folder / run, manifest.filter(pa.array(~gone)), whole=not gone.any()))
    manifest = distinct(pa.concat_tables(kept).combine_chunks())
    write_manifest(folder, manifest)
    return sorted(parts), manifest


def _copy_part(part: Path, target: Path, kept: pa.Table, *, whole: bool) -> pa.Table:
    """Copy an intake's shards, byte for byte, or write them anew with the rows kept alone; returns those."""
    target.mkdir()
    if whole:
        for shard in sorted(part.glob("shard-*.parquet")):
            shutil.copyfile(shard, target / shard.name)
        return kept
    names = set(kept["sha256"].to_pylist())
    write_dataset(target, (asset for asset in iter_assets(part) if asset.sha256 in names), in_order=True)
    (target / "manifest.parquet").unlink()
    return kept


def _figures(ledger: Ledger, intake: Intake | None, runs: list[str], batch: pa.Table) -> dict[str, Any]:
    digest = content_digest(batch)
    new = intake.assets.manifest if intake else MANIFEST_SCHEMA.empty_table()
    refused = intake.quarantine if intake else ()
    news = [item for item in refused if item.key not in ledger.quarantined]
    answer = ledger.answer_for(digest) if batch.num_rows else None
    return {
        **(intake.counts if intake else dict.fromkeys(COUNTS, 0)),
        "quarantined_before": len(refused) - len(news),
        "unusable": sum(_is_for_a_picture(item.origin) for item in news),
        "quarantine_keys": sorted(item.key for item in news)[:NUM_REMEMBERED],
        "quarantine": [{"file": item.file, "code": item.code, "reason": item.reason} for item in refused[:NUM_SHOWN]],
        "intake": {"assets": new.num_rows, "slices": dict(Counter(new["slice"].to_pylist()))},
        "batch": {"runs": runs, "assets": batch.num_rows, "slices": _slices(batch), "digest": digest},
        "approved": {"by": answer.by, "reason": answer.reason, "run": answer.run} if answer else None,
    }


def _is_for_a_picture(origin: str) -> bool:
    """Whether a file of this name was meant as a picture; a line of metadata has none."""
    return bool(origin) and not is_metadata(origin) and suffix(origin) not in ARCHIVES


def _slices(batch: pa.Table) -> dict[str, dict[str, int]]:
    """Assets a slice and split."""
    counts = Counter(zip(batch["slice"].to_pylist(), batch["split"].to_pylist(), strict=True))
    return {name: {split: counts[name, split] for split in SPLITS} for name in sorted({name for name, _ in counts})}


def _report(context: Context, figures: dict[str, Any], landed: Landed) -> StepReport:
    """The verdict: a batch that a person approved is never too small, and a rebase needs none."""
    num_assets, num_new, num_refused = (figures["batch"]["assets"], figures["new"], figures["quarantined"])
    least = context.params.ingest.min_new_assets
    refused = f"; {num_refused} files or lines were quarantined, each with its reason" if num_refused else ""
    refused += "".join(f"; {words}" for words in landed.words())
    if context.run.rebase:
        return StepReport("ok", "a new base: nothing is taken in, and what is pending stays so", figures)
    if context.run.batch:
        why = f"the batch of run {context.run.batch} again: {num_assets} assets"
        return StepReport("ok", why, figures)
    if num_assets < least:
        why = f"{num_assets} assets are waiting and a run needs {least} (ingest.min_new_assets){refused}"
        return StepReport("too_few", why, figures)
    return StepReport("ok", f"{num_assets} assets to learn from, {num_new} of them new{refused}", figures)
