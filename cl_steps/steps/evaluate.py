"""Step: measure champion, candidate and anchors on everything the model ever knew.

Held-out images give denoising losses; distinct captions give samples, at the line's serving settings. All models see
the same images, timesteps, noise, prompts and seeds. After each look the rule that the gate will apply is asked whether
it can decide; while it cannot, and looks remain, more samples are drawn. Sealed rows are passed on and never opened.
Each image's and each sample's noise is its own, so that a smaller batch (`run.machine`: after memory ran out)
changes nothing but rounding.

In a rebase the candidate is measured on the new base, champion and anchors on the line's own; both are in memory. Where
the two differ in what a denoising loss is measured in (image size, autoencoder, prediction, noise schedule), losses are
left out with the reason, and what the models draw decides.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from cl_steps.config import Params
from cl_steps.data.evaluation import write_next
from cl_steps.data.shards import (
    iter_assets,
    manifest_of,
    read_manifest,
)
from cl_steps.documents import write_json
from cl_steps.errors import IntegrityError
from cl_steps.models.lora import FILE_NAME, adapter_digest, adapter_path
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.pipeline import NEW_BASE
from cl_steps.progress import progress, say
from cl_steps.run.context import Context, StepReport
from cl_steps.run.machine import Machine
from cl_steps.stats.decision import Decision, decide
from cl_steps.stats.evaluation_set import SliceSet, choose, seed_plan
from cl_steps.stats.features import Extractor
from cl_steps.stats.figures import Figures, Plan, write_figures
from cl_steps.stats.measure import Bench, HeldOut, Measured, figures_of, measure_losses, measure_samples, summary
from cl_steps.stats.samples import PROMPTS, grid_file

SIDE_IN_GRID = 256
SET_FOLDERS = ("state/global_eval", "tonight/batch")


@dataclass(frozen=True)
class Line:
    """What is compared: the known slices with the adapter each was learnt with, the new ones, and the digests."""

    slices: tuple[str, ...]
    new_slices: tuple[str, ...]
    anchors: Mapping[str, str]
    champion: str
    candidate: str
    seed_plan: int

    def models(self, slice_name: str) -> dict[str, str]:
        """The adapters that are measured in a slice; an anchor that is the champion is not measured again."""
        anchor = self.anchors.get(slice_name, self.champion)
        extra = {} if anchor == self.champion else {"anchor": f"anchor-{anchor}"}
        return {"champion": "champion", "candidate": "candidate"} | extra


@dataclass(frozen=True)
class Benches:
    """Who measures champion and anchors (`own`) and who the candidate: the same but in a rebase.

    `incomparable` says why their losses do not compare; empty where they do.
    """

    own: Bench
    candidate: Bench
    incomparable: str = ""

    def of(self, model: str) -> Bench:
        """The one that measures a model."""
        return self.candidate if model == "candidate" else self.own

    def left_out(self, found: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        """What is left out in each slice and why, given what was found to be so already."""
        if not self.incomparable:
            return found
        return {name: {**found.get(name, {}), "loss": self.incomparable} for name in self.own.held_out}


def run(context: Context) -> StepReport:
    """Measure, look by look, and write figures, samples, the next evaluation set and the next anchors."""
    line = _line(context)
    measured, figures, decision = _measure(_benches(context, line), line, context.params)
    write_figures(context.fresh("tonight/evaluation/figures"), figures)
    _write_samples(context.fresh("tonight/evaluation/samples"), measured)
    before, batch = (context.path(name) for name in SET_FOLDERS)
    write_next(context.fresh("tonight/evaluation/global_eval"), before, batch)
    _write_anchors(context, line)
    return StepReport(None, _why(figures, decision), _report(figures))


def _line(context: Context) -> Line:
    champion = _json(context.path("state/champion.json"))
    anchors = _json(context.path("state/anchors/anchors.json"))
    known = set(champion["slices"])
    if missing := sorted(known - anchors.keys()):
        raise IntegrityError(f"state/anchors has no anchor for {missing[0]!r}: restore the state of a version")
    arrived = set(read_manifest(context.path("tonight/batch"))["slice"].to_pylist())
    return Line(
        tuple(sorted(known)),
        tuple(sorted(arrived - known)),
        {name: anchors[name] for name in sorted(known)},
        adapter_digest(context.path("state/adapter")),
        adapter_digest(context.path("tonight/candidate/adapter")),
        champion["seed_plan"],
    )


def _benches(context: Context, line: Line) -> Benches:
    own = _bench(context, line)
    if not context.run.rebase:
        return Benches(own, own)
    new = open_denoiser(context.path(NEW_BASE), context.params.compute, context.params.serving)
    new.adapters.load("candidate", context.path("tonight/candidate/adapter"))
    assert isinstance(own.model, Denoiser)
    differs = own.model.loss_space.differs(new.loss_space)
    # What both make of the held-out images is the same wherever their losses are measured at all.
    return Benches(own, replace(own, model=new), f"the new base has another {differs}" if differs else "")


def _bench(context: Context, line: Line) -> Bench:
    """Load the models that sit on the line's own base and encode the evaluation set."""
    params = context.params
    plan = seed_plan(params.seed, line.seed_plan)
    folders = [context.path(name) for name in SET_FOLDERS]
    groups = choose(manifest_of(folders).to_pylist(), plan, params.evaluate.images_per_slice)
    denoiser = open_denoiser(context.path("state/base"), params.compute, params.serving)
    _load_adapters(context, denoiser, line)
    extractor = Extractor(context.path("state/extractor"), str(denoiser.device))
    images, held_out = _images(folders, groups, denoiser), {}
    for name, group in groups.items():
        own = [images[row["sha256"]] for row in group.rows]
        held_out[name] = HeldOut.of(group, own, denoiser).read(own, extractor)
    at_once = Machine.of(os.environ).at_once(params.evaluate.batch_size)
    evaluate = params.evaluate.model_copy(update={"batch_size": at_once})
    return Bench(denoiser, extractor, held_out, plan, evaluate, params.serving)


def _load_adapters(context: Context, denoiser: Denoiser, line: Line) -> None:
    denoiser.adapters.load("champion", context.path("state/adapter"))
    if not context.run.rebase:
        denoiser.adapters.load("candidate", context.path("tonight/candidate/adapter"))
    for digest in sorted(set(line.anchors.values()) - {line.champion}):
        folder = context.path("state/anchors") / digest
        if adapter_digest(folder) != digest:
            raise IntegrityError(f"the anchor in {folder} is not what its name says: fetch it again")
        denoiser.adapters.load(f"anchor-{digest}", folder)


def _images(folders: list[Path], groups: Mapping[str, SliceSet], denoiser: Denoiser) -> dict[str, Image.Image]:
    """The chosen images, by SHA-256, at their sizes; a sealed row is not decoded."""
    wanted = {row["sha256"] for group in groups.values() for row in group.rows}
    assets = (asset for folder in folders for asset in iter_assets(folder, "evaluation", wanted))
    return {asset.sha256: asset.picture(denoiser.size_for((asset.width, asset.height))) for asset in assets}


def _measure(benches: Benches, line: Line, params: Params) -> tuple[Measured, Figures, Decision]:
    """Losses once, then look after look until the rule decides or the looks are used up."""
    measured = Measured()
    every = [(model, name, adapter) for name in benches.own.held_out for model, adapter in line.models(name).items()]
    for model, name, adapter in progress(every, len(every), "losses") if not benches.incomparable else ():
        measured.losses[model, name, "loss"] = measure_losses(benches.of(model), name, adapter)
    for number, look in enumerate(params.evaluate.looks, start=1):
        for model, name, adapter in progress(every, len(every), f"samples of look {number}"):
            measure_samples(benches.of(model), measured, (model, name), adapter, look)
        plan = partial(_plan, benches, line, params.evaluate.looks, number)
        figures = figures_of(benches.own, measured, plan)
        decision = decide(figures, params)
        say(f"look {number} of {len(params.evaluate.looks)}: {decision.verdict}")
        if decision.verdict != "inconclusive":
            break
    return measured, figures, decision


def _plan(
    benches: Benches, line: Line, looks: tuple[int, ...], look: int, left_out: Mapping[str, Mapping[str, str]]
) -> Plan:
    return Plan(
        line.slices,
        line.new_slices,
        line.champion,
        line.candidate,
        line.anchors,
        looks,
        look,
        line.seed_plan,
        benches.left_out(left_out),
    )


def _write_samples(folder: Path, measured: Measured) -> None:
    """A row of pictures a slice and model, the same prompts and seeds in the same order, and `prompts.json`."""
    prompts: dict[str, list[dict[str, Any]]] = {}
    for (model, name), pictures in sorted(measured.pictures.items()):
        prompts[name] = [{"prompt": draw.prompt, "seed": draw.seed} for draw in pictures]
        _grid(list(pictures.values())).save(folder / grid_file(name, model))
    write_json(folder / PROMPTS, prompts)


def _grid(pictures: list[Image.Image]) -> Image.Image:
    """Pictures side by side, each at most `SIDE_IN_GRID` pixels wide and high, in cells that hold the largest."""
    sides = [max(picture.size[axis] for picture in pictures) for axis in (0, 1)]
    scale = min(1.0, SIDE_IN_GRID / max(sides))
    width, height = (max(1, round(side * scale)) for side in sides)
    grid = Image.new("RGB", (width * len(pictures), height))
    for place, picture in enumerate(pictures):
        cell = ImageOps.pad(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS, "white")
        grid.paste(cell, (place * width, 0))
    return grid


def _write_anchors(context: Context, line: Line) -> None:
    """The next anchors: those there are, and the candidate for each new slice; after a rebase for all."""
    folder = context.fresh("tonight/evaluation/anchors")
    begun = (*line.slices, *line.new_slices) if context.run.rebase else line.new_slices
    anchors = dict(line.anchors) | dict.fromkeys(begun, line.candidate)
    for digest in sorted(set(anchors.values())):
        new = digest == line.candidate
        source = context.path("tonight/candidate/adapter") if new else context.path("state/anchors") / digest
        (folder / digest).mkdir()
        shutil.copyfile(adapter_path(source), folder / digest / FILE_NAME)
    write_json(folder / "anchors.json", anchors)


def _why(figures: Figures, decision: Decision) -> str:
    plan = figures.plan
    looks = f"{plan.look} of {len(plan.looks)} looks at {plan.looks[plan.look - 1]} prompts a slice"
    left = sorted(plan.left_out.items())
    missing = [f"; no fidelity in {name}: {why['fidelity']}" for name, why in left if "fidelity" in why]
    missing += sorted({f"; no losses: {why['loss']}" for _, why in left if "loss" in why})
    return f"{looks}: {decision.verdict}{''.join(missing)}"


def _report(figures: Figures) -> dict[str, Any]:
    plan = figures.plan
    return {
        "slices": summary(figures),
        "looks": plan.look,
        "seed_plan": plan.seed_plan,
        "new_slices": list(plan.new_slices),
        "left_out": {name: dict(why) for name, why in plan.left_out.items()},
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path} cannot be read: restore the state of a version") from error
    return document
