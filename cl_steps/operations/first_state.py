"""The state of v1: base, extractor, the adapter that it begins with, and what both know, as slices."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cl_steps.config import Lora, Params
from cl_steps.data.intake import take_in
from cl_steps.data.replay import select
from cl_steps.data.shards import MANIFEST_SCHEMA, Asset, write_dataset
from cl_steps.documents import write_json
from cl_steps.errors import NoUsableData
from cl_steps.landing.place import source_of
from cl_steps.models.loading import hub_snapshot
from cl_steps.models.lora import adapter_digest
from cl_steps.models.model import Denoiser
from cl_steps.operations.base import begin_adapter, copy_model, open_base, take_base
from cl_steps.operations.check import refusals, why_nothing
from cl_steps.progress import progress, say
from cl_steps.stats.features import Extractor
from cl_steps.steps.drift import build_reference

DEMO = Path(__file__).parents[1] / "demo"
HUB_EXTRACTOR = "openai/clip-vit-base-patch32"
PROMPTS = Path(__file__).with_name("prompts.txt")
RUN = "init"
AT_ONCE = 8
"""Pictures of the base that are drawn at a time."""


@dataclass(frozen=True)
class Sources:
    """Where a line's first things come from.

    Attributes:
        base: a folder or hub id of a diffusers pipeline, or a checkpoint of one file; None takes the demo's.
        like: where `base` is one file, a pipeline of its family (`models.single_file`).
        extractor: a folder or hub id of the model whose features drift and gate look at; None chooses by base.
        data: an imagefolder with what the base knows already: the line's first slices.
        adapter: a LoRA file to go on from, of whatever tool.
    """

    base: str | None = None
    like: str | None = None
    extractor: str | None = None
    data: str | None = None
    adapter: str | None = None


def write_state(root: Path, params: Params, sources: Sources) -> tuple[list[str], Lora]:
    """Fill `root/state`; returns the names of the slices, and the adapter's shape; raises as `init_line` does."""
    base, data = sources.base, sources.data
    state = root / "state"
    say("init: taking the base")
    take_base(base or str(DEMO / "base"), state / "base", sources.like)
    seer = _extractor_folder(base, sources.extractor)
    Extractor.open(seer)
    copy_model(seer, state / "extractor")
    denoiser = open_base(state / "base", params, "init")
    lora = begin_adapter(denoiser, Path(sources.adapter) if sources.adapter else None, state / "adapter")
    assets = _take(data, params) if data else _own_samples(denoiser, params)
    _write_slices(state, assets, params)
    # The base's own drawings say nothing of what real pictures look like: the first night is then first data.
    build_reference(
        state / "reference", assets if data else [], Extractor.open(state / "extractor"), params.drift, params.seed
    )
    return sorted({asset.slice for asset in assets}), lora


def _extractor_folder(base: str | None, extractor: str | None) -> Path:
    if not extractor and not base:
        return DEMO / "extractor"
    source = extractor or HUB_EXTRACTOR
    return Path(source) if Path(source).is_dir() else hub_snapshot(source)


def _take(place: str, params: Params) -> list[Asset]:
    taken = take_in(source_of(place), params.ingest, params.seed, RUN)
    if not len(taken.assets):
        raise NoUsableData(f"{place} holds no usable image with a caption: {why_nothing(taken)}")
    for row in refusals(taken):
        say(f"init: left out {row['count']} x {row['code']}: {row['reason']} ({', '.join(row['examples'])})")
    for words in taken.landed.words():
        say(f"init: {words}")
    return list(taken.assets)


def _own_samples(denoiser: Denoiser, params: Params) -> list[Asset]:
    """The model's own pictures of shipped prompts, as the slice `general`: what it knows when nobody brings data."""
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        lines = []
        for begin in progress(range(0, len(prompts), AT_ONCE), -(-len(prompts) // AT_ONCE), "init: the base's samples"):
            some = prompts[begin : begin + AT_ONCE]
            seeds = [params.seed + begin + place for place in range(len(some))]
            for number, image in enumerate(denoiser.sample(some, seeds, params.serving), start=begin):
                name = f"{number:03d}.png"
                image.save(Path(scratch) / name)
                lines.append(
                    json.dumps({"file_name": name, "text": prompts[number], "source": "the base's own sample"})
                )
        (Path(scratch) / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return _take(scratch, params)


def _write_slices(state: Path, assets: list[Asset], params: Params) -> None:
    learnable = pa.Table.from_pylist([a.row() for a in assets if a.split != "evaluation"], schema=MANIFEST_SCHEMA)
    kept = set(select(learnable, params.update.replay_capacity, params.seed)["sha256"].to_pylist())
    write_dataset(state / "replay", [asset for asset in assets if asset.sha256 in kept])
    write_dataset(state / "global_eval", [asset for asset in assets if asset.split == "evaluation"])
    digest = adapter_digest(state / "adapter")
    shutil.copytree(state / "adapter", state / "anchors" / digest)
    write_json(state / "anchors" / "anchors.json", {asset.slice: digest for asset in assets})
    (state / "evaluation").mkdir()
    write_json(state / "evaluation" / "none.json", {"why": "v1 was not evaluated: it is the base as it came"})
