"""The steps of a line whose model is none: what the real ones would write, in milliseconds.

The adapter is a digest of everything that it learnt: what a picture had an influence on can be seen in the bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from safetensors.numpy import save_file

from cl_steps.config import Params
from cl_steps.data import evaluation, replay
from cl_steps.data.intake import take_in
from cl_steps.data.shards import (
    MANIFEST_SCHEMA,
    Asset,
    distinct,
    iter_assets,
    read_manifest,
    read_table,
    write_dataset,
    write_table,
)
from cl_steps.documents import write_json
from cl_steps.pipeline import DRIFT, EVALUATE, GATE, INGEST, UPDATE
from cl_steps.run.context import Context, StepReport
from cl_steps.run.stage import StepFunction
from cl_steps.stats.figures import Figures, HeldOutFeatures, Plan, Samples, write_figures
from cl_steps.stats.items import Items, bounded, joined, read_items, write_items
from cl_steps.stats.properties import properties_of
from cl_steps.steps import ingest
from tests.data.landings import encoded, jsonl, put

FILE_NAME = "pytorch_lora_weights.safetensors"
EXTRACTOR = "e" * 64
NUM_FEATURES = 4


def stage(name: str, verdicts: Mapping[str, str]) -> StepFunction:
    """A stage's function: ingest is the real one, and drift and gate give the verdicts that they are told."""
    if name == INGEST.name:
        return ingest.run
    stubs = {
        DRIFT.name: partial(_drift, verdicts["drift"]),
        UPDATE.name: _update,
        EVALUATE.name: _evaluate,
        GATE.name: partial(_gate, verdicts["gate"]),
    }
    return stubs[name]


def write_first_state(folder: Path, params: Params, known: Mapping[str, bytes]) -> None:
    """The state of v1 in a workspace: a base and an extractor of a word each, and those pictures as the slice `old`."""
    state, landing = folder / "state", folder / "known"
    for name in ("base", "extractor"):
        (state / name).mkdir(parents=True)
        (state / name / "weights").write_text(name, encoding="utf-8")
    for name, content in known.items():
        put(landing, name, content)
        jsonl(landing, {"file_name": name, "text": f"picture {name}", "slice": "old", "source": "archive"})
    assets = list(take_in(landing, params.ingest, params.seed, "init").assets)
    shutil.rmtree(landing)
    learnable = pa.Table.from_pylist([a.row() for a in assets if a.split != "evaluation"], MANIFEST_SCHEMA)
    kept = set(replay.select(learnable, params.update.replay_capacity, params.seed)["sha256"].to_pylist())
    write_dataset(state / "replay", [asset for asset in assets if asset.sha256 in kept])
    write_dataset(state / "global_eval", [asset for asset in assets if asset.split == "evaluation"])
    _write_adapter(state / "adapter", hashlib.sha256(b"fresh").digest())
    digest = _adapter_digest(state / "adapter")
    shutil.copytree(state / "adapter", state / "anchors" / digest)
    write_json(state / "anchors/anchors.json", {"old": digest})
    (state / "evaluation").mkdir()
    write_json(state / "evaluation/none.json", {"why": "v1 was not evaluated: it is the base as it came"})
    rows = pa.Table.from_pylist([asset.row() for asset in assets], MANIFEST_SCHEMA)
    _write_reference(state / "reference", _measured(assets), rows, params)
    champion = {"version": "v1", "seed_plan": 1, "slices": ["old"], "anchors": {"old": "v1"}}
    write_json(state / "champion.json", champion)


def _drift(verdict: str, context: Context) -> StepReport:
    """As `cl_steps.steps.drift`: the figures, and the reference that a promotion would make."""
    if context.run.rebase:
        context.fresh("tonight/drift/figures")
        reference = context.fresh("tonight/drift/reference")
        shutil.copytree(context.path("state/reference"), reference, dirs_exist_ok=True)
        return StepReport(verdict, f"drift says {verdict}")
    batch = _measured(iter_assets(context.path("tonight/batch")))
    reference, folder = context.path("state/reference"), context.fresh("tonight/drift/figures")
    write_items(folder / "features.parquet", batch, EXTRACTOR)
    items = joined(read_items(reference / "features.parquet", EXTRACTOR, NUM_FEATURES), batch)
    known = read_table(reference / "known.parquet")
    rows = pa.concat_tables([known, read_manifest(context.path("tonight/batch"))])
    _write_reference(context.fresh("tonight/drift/reference"), items, rows, context.params)
    return StepReport(verdict, f"drift says {verdict}")


def _update(context: Context) -> StepReport:
    """The candidate: a digest of its teacher (of its base, where that is new) and of everything it learnt; and the next
    replay buffer.
    """
    teacher = (context.path("state/adapter") / FILE_NAME).read_bytes()
    if context.run.rebase:
        teacher = (context.path("tonight/base") / "weights").read_bytes()
    learnt = [
        [(asset.sha256, asset.text) for asset in sorted(iter_assets(context.path(name), "train"), key=_name)]
        for name in ("tonight/batch", "state/replay")
    ]
    digest = hashlib.sha256(teacher + json.dumps([learnt, context.params.seed]).encode()).digest()
    _write_adapter(context.fresh("tonight/candidate/adapter"), digest)
    sources = (context.path("state/replay"), context.path("tonight/batch"))
    capacity = context.params.update.replay_capacity
    replay.write_next(context.fresh("tonight/candidate/replay"), sources, capacity, context.params.seed)
    return StepReport(None, "learnt", {"examples_new": len(learnt[0]), "examples_replay": len(learnt[1])})


def _evaluate(context: Context) -> StepReport:
    """As `cl_steps.steps.evaluate`: figures that name their images, samples, the next evaluation set and anchors."""
    champion = json.loads(context.path("state/champion.json").read_text(encoding="utf-8"))
    arrived = set(read_manifest(context.path("tonight/batch"))["slice"].to_pylist())
    figures = _figures(context, champion, sorted(arrived - set(champion["slices"])))
    write_figures(context.fresh("tonight/evaluation/figures"), figures)
    _write_samples(context)
    folders = (context.path(name) for name in ("state/global_eval", "tonight/batch"))
    evaluation.write_next(context.fresh("tonight/evaluation/global_eval"), *folders)
    _write_anchors(context, champion["slices"] if context.run.rebase else figures.plan.new_slices)
    slices = sorted({*champion["slices"], *arrived})
    scores = {name: {"loss": {"champion": 1.0, "candidate": 0.9, "anchor": 1.0}} for name in slices}
    return StepReport(None, "measured", {"slices": scores, "looks": 1, "seed_plan": champion["seed_plan"]})


def _write_samples(context: Context) -> None:
    """For each slice of the batch two grids of one grey picture, and the captions that they would be drawn from."""
    folder, prompts = context.fresh("tonight/evaluation/samples"), {}
    for row in read_manifest(context.path("tonight/batch")).to_pylist():
        prompts.setdefault(row["slice"], []).append({"prompt": row["text"], "seed": 1})
    for name in prompts:
        for shade, model in enumerate(("champion", "candidate")):
            (folder / f"grid-{name}-{model}.png").write_bytes(encoded(Image.new("L", (8, 8), 100 * shade)))
    write_json(folder / "prompts.json", prompts)


def _figures(context: Context, champion: Mapping[str, object], new_slices: list[str]) -> Figures:
    known, batch = (read_manifest(context.path(name)) for name in ("state/global_eval", "tonight/batch"))
    rows = [row for table in (known, batch) for row in table.to_pylist() if row["split"] == "evaluation"]
    units: dict[str, list[str]] = {}
    for row in rows:
        units.setdefault(row["slice"], []).append(row["sha256"])
    old = tuple(sorted(champion["slices"]))  # type: ignore[call-overload]
    adapters = [_adapter_digest(context.path(name)) for name in ("state/adapter", "tonight/candidate/adapter")]
    plan = Plan(old, tuple(new_slices), *adapters, {}, (1,), 1, int(str(champion["seed_plan"])))
    models = ("champion", "candidate")
    items = {(m, name, "loss"): dict.fromkeys(names, 1.0) for name, names in units.items() for m in models}
    samples = {(m, name): Samples(("prompt",), np.ones((1, 1, NUM_FEATURES))) for name in units for m in models}
    real = {
        name: HeldOutFeatures(tuple(sorted(names)), ("prompt",) * len(names), np.ones((len(names), NUM_FEATURES)))
        for name, names in units.items()
    }
    return Figures(plan, items, samples, real)


def _write_anchors(context: Context, new_slices: Iterable[str]) -> None:
    folder, before = context.fresh("tonight/evaluation/anchors"), context.path("state/anchors")
    if not context.run.rebase:
        shutil.copytree(before, folder, dirs_exist_ok=True)
    anchors = json.loads((before / "anchors.json").read_text(encoding="utf-8"))
    for name in new_slices:
        anchors[name] = _adapter_digest(context.path("tonight/candidate/adapter"))
        shutil.copytree(context.path("tonight/candidate/adapter"), folder / anchors[name], dirs_exist_ok=True)
    write_json(folder / "anchors.json", anchors)


def _gate(verdict: str, context: Context) -> StepReport:
    (context.root / "reports/junit.xml").write_text("<testsuites/>\n", encoding="utf-8")
    return StepReport(verdict, f"the gate says {verdict}")


def _measured(assets: Iterable[Asset]) -> Items:
    """Items whose features are the mean colours of the picture and its spread."""
    seen = sorted(assets, key=_name)
    thumbs = np.array([np.frombuffer(asset.thumbnail, np.uint8) for asset in seen]).reshape(len(seen), 64, 3)
    features = np.column_stack([thumbs.mean(axis=1), thumbs.std(axis=(1, 2))]).astype(np.float32)
    properties = np.array([properties_of(asset.picture(), asset.text) for asset in seen]).reshape(len(seen), -1)
    unknown = np.full(len(seen), np.nan, np.float32)
    names, slices = tuple(asset.sha256 for asset in seen), tuple(asset.slice for asset in seen)
    return Items(names, slices, features, unknown, unknown, properties)


def _write_reference(folder: Path, items: Items, known: pa.Table, params: Params) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = bounded(items, params.drift.reference_per_slice, params.seed)
    write_items(folder / "features.parquet", kept, EXTRACTOR)
    write_table(folder / "known.parquet", distinct(known.combine_chunks()))


def _write_adapter(folder: Path, digest: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = np.frombuffer(digest, np.uint8).astype(np.float32)
    save_file({"unet.to_q.lora_A.weight": weights.reshape(4, 8)}, folder / FILE_NAME)


def _adapter_digest(folder: Path) -> str:
    return hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()[:16]


def _name(asset: Asset) -> str:
    return asset.sha256
