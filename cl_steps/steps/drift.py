"""Step: compare the batch with the reference of its slices. Quiet, drifted or alarming.

Every asset is measured once (features, agreement with its caption, image properties). The verdict is made by
`stats/drift_verdict.py` from the evidence of `stats/drift_evidence.py`; Evidently's report decides nothing.
A rebase has no batch to compare: a person asked for it, and the reference stays as it is.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cl_steps.config import Drift
from cl_steps.data.shards import (
    MANIFEST_SCHEMA,
    Asset,
    batched,
    distinct,
    iter_assets,
    read_manifest,
    read_table,
    write_table,
)
from cl_steps.documents import write_json
from cl_steps.progress import progress
from cl_steps.report.drift_figures import drift_figures, drift_plots
from cl_steps.report.evidently_report import write_evidently_report
from cl_steps.run.context import Context, StepReport
from cl_steps.stats.captions import agreement, specificity
from cl_steps.stats.drift_evidence import Evidence, gather
from cl_steps.stats.drift_verdict import decide
from cl_steps.stats.features import Extractor
from cl_steps.stats.items import Items, bounded, joined, read_items, write_items
from cl_steps.stats.properties import PROPERTIES, properties_of

FEATURES = "features.parquet"
KNOWN = "known.parquet"
AT_ONCE = 16
"""Images in memory at a time."""


def run(context: Context) -> StepReport:
    """Measure the batch, decide, and write the figures and the reference that a promotion would make."""
    if context.run.rebase:
        return _of_rebase(context)
    extractor = _extractor(context)
    reference = _read_reference(context.path("state/reference"), extractor)
    batch_folder = context.path("tonight/batch")
    manifest = read_manifest(batch_folder)
    batch = measure(iter_assets(batch_folder), extractor, total=len(manifest))
    evidence = _evidence(context, reference, batch)
    verdict = decide(evidence, context.params.drift)
    figures = drift_figures(evidence, verdict, context.params.drift) | _diversity(manifest)

    folder = context.fresh("tonight/drift/figures")
    write_items(folder / FEATURES, batch, extractor.digest)
    write_json(folder / "plots.json", drift_plots(reference, batch))
    page, level = folder / "evidently.html", context.params.drift.level
    figures["evidently"] = asdict(write_evidently_report(page, reference, batch, figures["slices"], level))
    _write_next_reference(context, joined(reference, batch), manifest, extractor)
    return StepReport(verdict.verdict, verdict.why, figures)


def _of_rebase(context: Context) -> StepReport:
    """Drifted by a person's word: no figures, and the reference byte for byte."""
    context.fresh("tonight/drift/figures")
    reference = context.fresh("tonight/drift/reference")
    shutil.copytree(context.path("state/reference"), reference, dirs_exist_ok=True)
    return StepReport("drifted", f"a new base (asked by {context.run.by or 'an unnamed person'})")


def build_reference(folder: Path, assets: Sequence[Asset], extractor: Extractor, knobs: Drift, seed: int) -> None:
    """Write the first reference of a line: the features of `reference_per_slice` assets a slice, and all as known.

    A slice without a reference is new to `drift`: give no assets for what a model drew itself.
    """
    items = bounded(measure(assets, extractor, total=len(assets)), knobs.reference_per_slice, seed)
    known = pa.Table.from_pylist([asset.row() for asset in assets], MANIFEST_SCHEMA)
    _write_reference(folder, items, known, extractor)


def measure(assets: Iterable[Asset], extractor: Extractor, total: int) -> Items:
    """Every asset measured, sorted by SHA-256; images are decoded a few at a time."""
    seen: list[Asset] = []
    features = [np.empty((0, extractor.num_features), np.float32)]
    properties = [np.empty((0, len(PROPERTIES)))]
    for some in batched(progress(assets, total, "measuring pictures"), AT_ONCE):
        images = [asset.picture() for asset in some]
        features.append(extractor.image_features(images))
        properties.append(np.stack([properties_of(i, a.text) for i, a in zip(images, some, strict=True)]))
        seen.extend(_without_image(asset) for asset in some)
    return _items(seen, np.concatenate(features), np.concatenate(properties), extractor)


def _items(assets: list[Asset], features: Any, properties: Any, extractor: Extractor) -> Items:
    slices, captions = tuple(asset.slice for asset in assets), [asset.text for asset in assets]
    unknown = np.full(len(assets), np.nan, dtype=np.float32)
    fits, specific = unknown, unknown
    if extractor.reads_text and assets:
        texts = extractor.text_features(captions)
        fits, specific = agreement(features, texts), specificity(features, texts, captions, slices)
    return Items(tuple(asset.sha256 for asset in assets), slices, features, fits, specific, properties).sorted()


def _without_image(asset: Asset) -> Asset:
    return Asset(**asset.row(), image=b"")


def _extractor(context: Context) -> Extractor:
    compute = context.params.compute
    if compute.threads:
        torch.set_num_threads(compute.threads)
    has_gpu = compute.device != "cpu" and torch.cuda.is_available()
    return Extractor(context.path("state/extractor"), device="cuda" if has_gpu else "cpu")


def _evidence(context: Context, reference: Items, batch: Items) -> Evidence:
    """The evidence; an approved batch comes without an intake, and then all of it is looked at as tonight's."""
    ingested = context.figures("ingest")
    arrived = read_manifest(context.path("tonight/intake"))["sha256"].to_pylist()
    tonight = batch.among(arrived) if arrived else batch
    approved = ingested.get("approved") or {}
    run = context.run
    return Evidence(
        gather(reference, batch, tonight, context.params.seed),
        look=max(1, len(ingested.get("batch", {}).get("runs", ()))),
        num_new=len(arrived),
        num_quarantined=int(ingested.get("unusable", 0)),
        approved=str(approved.get("by") or "an unnamed person") if approved else "",
        forced=f"{run.by or 'an unnamed person'}: {run.reason or 'no reason given'}" if run.force else "",
    )


def _diversity(manifest: pa.Table) -> dict[str, Any]:
    """How many different pictures the batch holds: near-duplicates of a few count for little."""
    groups = Counter(manifest["group"].to_pylist())
    largest = max(groups.values(), default=0)
    return {"diversity": {"assets": groups.total(), "distinct": len(groups), "largest_group": largest}}


def _read_reference(folder: Path, extractor: Extractor) -> Items:
    path = folder / FEATURES
    return (
        read_items(path, extractor.digest, extractor.num_features)
        if path.is_file()
        else measure((), extractor, total=0)
    )


def _write_next_reference(context: Context, items: Items, manifest: pa.Table, extractor: Extractor) -> None:
    kept = bounded(items, context.params.drift.reference_per_slice, context.params.seed)
    path = context.path("state/reference") / KNOWN
    known = read_table(path) if path.is_file() else MANIFEST_SCHEMA.empty_table()
    _write_reference(context.fresh("tonight/drift/reference"), kept, pa.concat_tables([known, manifest]), extractor)


def _write_reference(folder: Path, items: Items, known: pa.Table, extractor: Extractor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_items(folder / FEATURES, items, extractor.digest)
    write_table(folder / KNOWN, distinct(known.combine_chunks()))
