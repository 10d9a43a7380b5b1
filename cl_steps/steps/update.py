"""The step `update`: learn the batch without forgetting; the candidate's adapter and the next replay buffer.

    batch (train) ----> new pool ----+
    replay (train) ---> replay pool -+--> train, watched by the guard --> moving average --> tonight/candidate/adapter
    replay (probe) ---> guard's bank +
    replay + batch (train, probe) --> bottom-k per slice ---------------------------------> tonight/candidate/replay

Rows of the split `evaluation` are never opened here.

In a rebase the student begins as an empty adapter on the new base and learns what there is to keep, all of the replay
buffer, which passes on as it is. Nobody teaches it: the champion sits on another base, whose latents, prediction and
text encoder may all be others. Where its start stood is what the guard compares with: the new base as it came.

Where the machine gives several processes (`run.machine`), the step starts them on its own checkout and each does
the same as the step would alone, with its share of every batch; the first of them writes what the step writes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from cl_steps.config import Compute, Params, RunSpec
from cl_steps.data.replay import write_next
from cl_steps.data.shards import content_digest, iter_assets, read_manifest
from cl_steps.digests import file_sha256
from cl_steps.documents import write_json
from cl_steps.errors import NoUsableData, UsageError
from cl_steps.learning.guard import Bank, Guard
from cl_steps.learning.launch import employed, is_alive, launch
from cl_steps.learning.learner import STUDENT, Learner, Pool, Pools
from cl_steps.learning.loop import Keeper, train
from cl_steps.learning.methods.catalogue import METHODS
from cl_steps.learning.methods.method import TEACHER, Method
from cl_steps.learning.methods.plain import REBASE
from cl_steps.learning.processes import ALONE, Processes, joined
from cl_steps.models.checkpoints import Checkpoints
from cl_steps.models.loading import choose_device
from cl_steps.models.lora import adapter_digest, check_shape
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.pipeline import NEW_BASE
from cl_steps.progress import progress, say
from cl_steps.run.context import Context, StepReport
from cl_steps.run.machine import Machine

Item = TypeVar("Item")
BATCH, REPLAY, BASE, ADAPTER = "tonight/batch", "state/replay", "state/base", "state/adapter"


def run(context: Context) -> StepReport:
    """Train the candidate; report its losses and what the probes say. On a node that only helps the report is empty.

    Raises:
        UsageError: parameters that do not fit the line or the machine, or training that does not converge.
        NoUsableData: the batch (in a rebase the replay buffer) has no training images.
        IntegrityError: an image or the adapter is not what its digest or the base says.
        Unavailable: the place for checkpoints cannot be read.
        SystemExit: 143 on SIGTERM, after a checkpoint.
    """
    began = time.monotonic()
    check_shape(context.path(ADAPTER), context.params.update.lora)
    checkpoints = Checkpoints(context.work, run_key(context) if context.work else "")
    machine = Machine.of(os.environ).counted(torch.cuda.device_count)
    if machine.total > 1:
        return _shared(context, checkpoints, machine)
    return learn(context, checkpoints, parts=machine.parts, began=began)


def learn(
    context: Context,
    checkpoints: Checkpoints,
    processes: Processes = ALONE,
    *,
    parts: int = 1,
    began: float = 0.0,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> StepReport:
    """What one process does; only the first of several keeps checkpoints, writes and reports, the others' is empty."""
    method = REBASE if context.run.rebase else METHODS[context.params.update.method]
    base, params = context.path(NEW_BASE if context.run.rebase else BASE), context.params
    denoiser = open_denoiser(base, params.compute, params.serving)
    learner = prepare(context, denoiser, method, processes, parts)
    if processes.rank:
        denoiser.rest()
        train(learner, None, is_abandoned)
        return StepReport()
    if count := denoiser.cut(learner.new.texts):
        say(f"update: {count} captions are longer than the base's text encoder reads, and their ends are cut")
    banks = _banks(context, denoiser)
    denoiser.encode_prompts([text for bank in banks for text in bank.pool.texts])
    denoiser.rest()
    guard = Guard.before(learner, *banks)
    keeper = Keeper(guard, checkpoints, clock=lambda: time.monotonic() - began)
    train(learner, keeper, is_abandoned)
    probe = guard.settle(learner, may_back_off=method.guarded)
    denoiser.adapters.save(STUDENT, context.fresh("tonight/candidate/adapter"))
    _write_replay(context, context.fresh("tonight/candidate/replay"))
    return StepReport(
        why=_why(learner, probe, "replayed images on the new base" if context.run.rebase else "new images"),
        figures=_figures(context, learner, method, probe),
        processes=processes.size,
        earlier_seconds=keeper.earlier_seconds,
        once_stored=checkpoints.remove,
    )


def _write_replay(context: Context, folder: Path) -> None:
    """The buffer that follows; a rebase has no batch, and what was kept stays, byte for byte."""
    if context.run.rebase:
        shutil.copytree(context.path(REPLAY), folder, dirs_exist_ok=True)
        return
    sources = (context.path(REPLAY), context.path(BATCH))
    write_next(folder, sources, context.params.update.replay_capacity, context.params.seed)


def work(folder: Path) -> None:
    """What each process that `_shared` starts does, with the job in `folder`; raises as `run` does."""
    with employed(folder) as job:
        began = time.monotonic()
        params, run_spec = Params.model_validate_json(job["params"]), RunSpec.model_validate_json(job["run"])
        context = Context(Path(job["root"]), params, run_spec, job["work"])
        with joined(choose_device(params.compute)) as processes:
            checkpoints = Checkpoints(context.work, job["key"])
            abandoned = partial(_is_gone, int(job["parent"]))
            report = learn(context, checkpoints, processes, parts=job["parts"], began=began, is_abandoned=abandoned)
        if not processes.rank:
            facts = {"why": report.why, "figures": report.figures, "earlier_seconds": report.earlier_seconds}
            write_json(folder / "result.json", facts)


def _shared(context: Context, checkpoints: Checkpoints, machine: Machine) -> StepReport:
    """The same by several processes on this checkout, which read and write it as this one would."""
    _check_gpus(context.params.compute, machine)
    job = {
        "root": str(context.root.resolve()),
        "work": str(context.work) if context.work else None,
        "key": checkpoints.key,
        "params": context.params.model_dump_json(),
        "run": context.run.model_dump_json(),
        "parts": machine.parts,
    }
    found = launch("cl_steps.steps.update", job, machine)
    return StepReport(**found, processes=machine.total, once_stored=checkpoints.remove)


def _check_gpus(compute: Compute, machine: Machine) -> None:
    there = torch.cuda.device_count()
    if choose_device(compute).type == "cuda" and machine.processes > there:
        raise UsageError(
            f"RETAIN_PROCESSES is {machine.processes} and {there} GPUs are visible: lower it, or set it to auto"
        )


def _is_gone(parent: int) -> bool:
    return not is_alive(parent)


def prepare(
    context: Context, denoiser: Denoiser, method: Method, processes: Processes = ALONE, parts: int = 1
) -> Learner:
    """The student where the champion ended (in a rebase: empty), its teacher if it has one, and what they look at."""
    update = context.params.update
    if method.teaches:
        denoiser.adapters.load(TEACHER, context.path(ADAPTER))
    if context.run.rebase:
        denoiser.adapters.add_fresh(STUDENT, update.lora, context.params.seed)
    else:
        denoiser.adapters.load(STUDENT, context.path(ADAPTER))
    new = encode(denoiser, context.path(REPLAY if context.run.rebase else BATCH), "train")
    if not len(new):
        _refuse_empty(context)
    replay = encode(denoiser, context.path(REPLAY), "train") if method.replays else encode(denoiser, Path(), "none")
    return Learner(
        denoiser,
        Pools(new, replay),
        update,
        seed=context.params.seed,
        penalties=method.penalties(update),
        processes=processes,
        parts=parts,
    )


def _refuse_empty(context: Context) -> NoReturn:
    if context.run.rebase:
        raise NoUsableData(
            "the replay buffer holds no training images to learn on the new base: `retain init` begins anew"
        )
    raise NoUsableData("the batch has no training images: let more assets land, or lower ingest.evaluation_share")


def encode(denoiser: Denoiser, folder: Path, split: str) -> Pool:
    """The latents of one split of a dataset folder, each image encoded once, sorted by SHA-256."""
    rows = read_manifest(folder)["split"].to_pylist().count(split)
    assets = progress(iter_assets(folder, split), rows, f"update: encode {folder.name} ({split})") if rows else ()
    items: list[tuple[str, str, str]] = []
    latents = [torch.empty((0, *denoiser.latent_shape))]
    for some in batched(assets, denoiser.encoded_at_once):
        items += [(asset.sha256, asset.text, asset.slice) for asset in some]
        latents.append(denoiser.encode_images([asset.picture(denoiser.size) for asset in some]))
    order = sorted(range(len(items)), key=lambda place: items[place][0])
    _, texts, slices = zip(*(items[place] for place in order), strict=True) if items else ((), (), ())
    return Pool(torch.cat(latents)[order], tuple(texts), tuple(slices))


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last of which may be shorter."""
    some = iter(items)
    while part := list(islice(some, size)):
        yield part


def run_key(context: Context) -> str:
    """The digest of everything that training depends on: who has the same key may share checkpoints."""
    package = Path(__file__).parents[1]
    folders = (sorted((package / name).rglob("*.py")) for name in ("learning", "models"))
    code = [Path(__file__), *chain.from_iterable(folders)]
    bases = (BASE, NEW_BASE) if context.run.rebase else (BASE,)
    parts = (
        context.params.update.model_dump_json(),
        context.params.compute.model_dump_json(exclude={"threads"}),
        str(context.params.seed),
        str((context.params.serving.width, context.params.serving.height)),
        adapter_digest(context.path(ADAPTER)),
        *(_digest_of(file for file in sorted(context.path(base).rglob("*")) if file.is_file()) for base in bases),
        content_digest(read_manifest(context.path(BATCH))),
        content_digest(read_manifest(context.path(REPLAY))),
        _digest_of(code),
        torch.__version__,
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _banks(context: Context, denoiser: Denoiser) -> tuple[Bank, Bank]:
    """The probes of what the line knows and of what it is to learn, with fixed timesteps and noise."""
    folders = (context.path(REPLAY), context.path(BATCH))
    pools = [encode(denoiser, folder, "probe") for folder in folders]
    old, new = (Bank.of(pool, context.params.seed) for pool in pools)
    return old, new


def _digest_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _why(learner: Learner, probe: dict[str, Any], what: str) -> str:
    """One sentence on how it went; `what` was learnt."""
    last = probe["last"]
    if not last["beyond_budget"]:
        return f"learnt {len(learner.new)} {what} in {learner.step} steps, the probes of old slices within budget"
    rise = f"the probe loss of {last['worst_slice']} rose by {last['rise']:.1%}, beyond {probe['budget']:.1%}"
    return f"{rise}: went back to step {probe['kept_step']}" if probe["backed_off"] else rise


def _figures(context: Context, learner: Learner, method: Method, probe: dict[str, Any]) -> dict[str, Any]:
    losses = learner.tail_means()
    return {
        "method": context.params.update.method,
        "replayed": method.replays,
        "taught_by": adapter_digest(context.path(ADAPTER)) if method.teaches else None,
        "penalised": [penalty.name for penalty in method.penalties(context.params.update)],
        "steps": learner.step,
        "examples_new": len(learner.new),
        "examples_replay": len(learner.replay),
        "parameters_trained": learner.student.numel(),
        "micro_batches": learner.parts,
        "learning_rate": context.params.update.learning_rate,
        "loss_new": losses["new"],
        "loss_replay": losses["replay"] if len(learner.replay) else None,
        "loss_distillation": None,
        **{f"loss_{penalty.name}": losses[penalty.name] for penalty in learner.penalties},
        "probe": probe,
        **(_of_rebase(learner, losses) if context.run.rebase else {}),
    }


def _of_rebase(learner: Learner, losses: dict[str, float]) -> dict[str, Any]:
    """The figures that are others in a rebase: what is learnt as new there is what was kept."""
    replayed = {"replayed": True, "examples_replay": len(learner.new), "loss_replay": losses["new"]}
    return {"method": "rebase", "examples_new": 0, "loss_new": None, **replayed}


if __name__ == "__main__":
    work(Path(sys.argv[1]))
