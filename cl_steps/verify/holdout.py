"""The sealed images: a tenth of each slice's evaluation set, which nothing reads but an audit.

Night after night the same open images decide what is promoted, so that in time they are learnt by choice although
nobody trains on them. The sealed ones decide nothing: where the champion is worse than a slice's anchor on them by
more than the total budget, the gate was fooled. Paired denoising losses, the unit is the image, Holm over slices.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cl_steps.config import Params, load_params
from cl_steps.data.shards import iter_assets, read_manifest
from cl_steps.errors import IntegrityError
from cl_steps.models.lora import adapter_digest
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.progress import progress
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline
from cl_steps.run.machine import Machine
from cl_steps.stats.evaluation_set import SliceSet, seed_plan
from cl_steps.stats.measure import Bench, HeldOut, measure_losses
from cl_steps.stats.paired import MIN_UNITS, Estimate, holm, relative_increase
from cl_steps.store import dvc
from cl_steps.store.pointers import read_dvc_file

ALL = "all slices"
PARTS = ("base", "adapter", "anchors", "global_eval")


@dataclass(frozen=True)
class SliceAudit:
    """What the sealed images of a slice say: the relative rise of the champion's loss above its anchor's.

    `rise` and its bounds at `level` are None with fewer than 8 images; `open_rise` is the same on the open ones.
    """

    slice: str
    images: int
    rise: float | None
    lower: float | None
    upper: float | None
    open_rise: float | None
    margin: float
    level: float
    worse: bool

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def audit_sealed(line: Line, main: Mainline) -> list[SliceAudit]:
    """Ask the sealed images of every slice that the champion knows.

    Raises:
        IntegrityError: an object of the state is missing or is not what its name says.
        Unavailable: the store cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        root = Path(scratch)
        (root / "params.yaml").write_bytes(main.read("params.yaml") or b"")
        digests = {name: _digest(main, name) for name in PARTS}
        dvc.fetch(root / "state", line.store, digests)
        champion = main.champion()
        return ask(root / "state", load_params(root), list(champion.slices), champion.seed_plan)


def ask(state: Path, params: Params, slices: list[str], plan: int) -> list[SliceAudit]:
    """The same on a state that lies in a folder."""
    anchors: dict[str, str] = json.loads((state / "anchors" / "anchors.json").read_text(encoding="utf-8"))
    denoiser = open_denoiser(state / "base", params.compute, params.serving)
    denoiser.adapters.load("champion", state / "adapter")
    for digest in sorted({anchors[name] for name in slices}):
        denoiser.adapters.load(digest, state / "anchors" / digest)
    benches = {
        sealed: _bench(state, denoiser, params, f"{seed_plan(params.seed, plan)}:audit", slices, sealed=sealed)
        for sealed in (True, False)
    }
    champion = adapter_digest(state / "adapter")
    rises = {sealed: _rises(bench, anchors, champion, sealed=sealed) for sealed, bench in benches.items()}
    return judge([*slices, ALL], rises[True], rises[False], params)


def judge(
    slices: list[str], sealed: Mapping[str, Estimate], opened: Mapping[str, Estimate], params: Params
) -> list[SliceAudit]:
    """The answers to the rises of the loss; the chance of any false alarm is the gate's level."""
    margin, level = params.gate.total.loss, params.gate.level
    nothing = Estimate(float("nan"), float("nan"), 0)
    estimates = [sealed.get(name, nothing) for name in slices]
    worse = holm([estimate.p_above(margin) for estimate in estimates], level)
    return [
        SliceAudit(
            name,
            estimate.units,
            _known(estimate, estimate.value),
            _known(estimate, estimate.lower(level)),
            _known(estimate, estimate.upper(level)),
            _known(opened.get(name, nothing), opened.get(name, nothing).value),
            margin,
            level,
            bad,
        )
        for name, estimate, bad in zip(slices, estimates, worse, strict=True)
    ]


def in_words(found: SliceAudit) -> str:
    """One slice's answer in one line."""
    if found.rise is None:
        return f"{found.slice}: {found.images} sealed images, {MIN_UNITS} are needed to say anything"
    bounds = f"between {found.lower:+.1%} and {found.upper:+.1%}, budget {found.margin:.0%}"
    beside = "" if found.open_rise is None else f"; on open images {found.open_rise:+.1%}"
    return f"{found.slice}: loss on {found.images} sealed images {found.rise:+.1%} since its anchor ({bounds}){beside}"


def _rises(bench: Bench, anchors: Mapping[str, str], champion: str, *, sealed: bool) -> dict[str, Estimate]:
    """By what share the champion's loss lies above the anchor's, by slice and over all images together."""
    pairs = {}
    for name in progress(list(bench.held_out), len(bench.held_out), "sealed images" if sealed else "open images"):
        ours = measure_losses(bench, name, "champion")
        theirs = ours if anchors[name] == champion else measure_losses(bench, name, anchors[name])
        pairs[name] = np.array([[ours[unit], theirs[unit]] for unit in ours])
    if pairs:
        pairs[ALL] = np.concatenate(list(pairs.values()))
    return {name: relative_increase(pair[:, 0], pair[:, 1]) for name, pair in pairs.items()}


def _bench(state: Path, denoiser: Denoiser, params: Params, plan: str, slices: list[str], *, sealed: bool) -> Bench:
    """The sealed, or the open, evaluation images of the slices, encoded."""
    rows = [
        row
        for row in read_manifest(state / "global_eval").to_pylist()
        if row["split"] == "evaluation" and row["sealed"] == sealed and row["slice"] in slices
    ]
    wanted = {row["sha256"] for row in rows}
    images = {
        asset.sha256: asset.picture(denoiser.size_for((asset.width, asset.height)))
        for asset in iter_assets(state / "global_eval", "evaluation", wanted)
    }
    held_out = {}
    for name in sorted({row["slice"] for row in rows}):
        group = SliceSet(name, tuple(row for row in rows if row["slice"] == name), ())
        held_out[name] = HeldOut.of(group, [images[row["sha256"]] for row in group.rows], denoiser)
    at_once = Machine.of(os.environ).at_once(params.evaluate.batch_size)
    evaluate = params.evaluate.model_copy(update={"batch_size": at_once})
    # Losses need no extractor.
    return Bench(denoiser, None, held_out, plan, evaluate, params.serving)  # type: ignore[arg-type]


def _known(estimate: Estimate, value: float) -> float | None:
    return float(f"{value:.6g}") + 0.0 if estimate.known and np.isfinite(value) else None


def _digest(main: Mainline, name: str) -> str:
    content = main.read(f"state/{name}.dvc")
    if content is None:
        raise IntegrityError(f"main has no state/{name}.dvc: restore it from Git's history")
    return str(read_dvc_file(content)["md5"])
