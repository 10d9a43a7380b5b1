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
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import diffusers
import torch
import transformers

from cl_steps.config import Compute, Params, RunSpec
from cl_steps.data.replay import write_next
from cl_steps.data.shards import content_digest, read_manifest
from cl_steps.digests import file_sha256
from cl_steps.documents import write_json
from cl_steps.errors import NoUsableData, UsageError
from cl_steps.learning.encoding import Encoder, encoder
from cl_steps.learning.guard import Bank, Guard, Looks
from cl_steps.learning.kept import read_kept, write_kept
from cl_steps.learning.launch import employed, is_alive, launch
from cl_steps.learning.learner import Learner
from cl_steps.learning.loop import Keeper, train
from cl_steps.learning.methods.catalogue import REBASE, Methods
from cl_steps.learning.methods.method import STUDENT, TEACHER
from cl_steps.learning.pools import EMPTY, Pool, Pools
from cl_steps.learning.processes import ALONE, Processes, joined
from cl_steps.models.checkpoints import Checkpoints
from cl_steps.models.loading import choose_device
from cl_steps.models.lora import adapter_digest, check_shape
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.pipeline import NEW_BASE
from cl_steps.progress import say
from cl_steps.run.context import Context, StepReport
from cl_steps.run.machine import Machine
from cl_steps.store.places import open_work

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
    base = base_digest(context) if context.work else ""
    checkpoints = Checkpoints(context.work, run_key(context, base) if context.work else "")
    machine = Machine.of(os.environ).counted(torch.cuda.device_count)
    if machine.total > 1:
        return _shared(context, checkpoints, base, machine)
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        return learn(context, checkpoints, base, Path(scratch), parts=machine.parts, began=began)


def learn(
    context: Context,
    checkpoints: Checkpoints,
    digest: str,
    scratch: Path,
    processes: Processes = ALONE,
    *,
    parts: int = 1,
    began: float = 0.0,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> StepReport:
    """What one process does; only the first of several keeps checkpoints, writes and reports, the others' is empty.

    `digest` is the base's (`base_digest`); `scratch` is a folder of this node alone, for what is encoded. Where each
    holds a share of the base all do the same, so that they keep step.
    """
    methods = REBASE if context.run.rebase else Methods.of(context.params.update)
    base, params = context.path(NEW_BASE if context.run.rebase else BASE), context.params
    denoiser = open_denoiser(base, params.compute, params.serving)
    place = open_work(context.work, "encoded", _encoded_by(denoiser, digest)) if context.work else None
    learner, probes = prepare(context, denoiser, methods, encoder(denoiser, processes, place, scratch), parts)
    if learner.in_step:
        learner.keep_step([text for pool in probes for text in pool.texts])
    denoiser.rest()
    if processes.rank and not learner.in_step:
        train(learner, None, is_abandoned)
        return StepReport()
    if not processes.rank and (count := denoiser.cut(learner.new.texts)):
        say(f"update: {count} captions are longer than the base's text encoder reads, and their ends are cut")
    looks = Looks.within(params.update, len({name for pool in probes for name in pool.slices}))
    old, new = (Bank.of(pool, params.seed, looks) for pool in probes)
    guard = Guard.before(learner, old, new, looks.every)
    own = Checkpoints(None, checkpoints.key) if processes.rank else checkpoints
    keeper = Keeper(guard, own, clock=lambda: time.monotonic() - began)
    train(learner, keeper, is_abandoned)
    probe = guard.settle(learner, may_back_off=methods.guarded)
    if processes.rank:
        return StepReport()
    folder = context.fresh("tonight/candidate/adapter")
    denoiser.adapters.save(STUDENT, folder)
    learner.processes = ALONE  # the others are done
    write_kept(folder, methods.keep(learner, learner.new, learner.kept))
    _write_replay(context, context.fresh("tonight/candidate/replay"))
    return StepReport(
        why=_why(learner, probe, "replayed images on the new base" if context.run.rebase else "new images"),
        figures=_figures(context, learner, methods, probe),
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
            report = learn(
                context, checkpoints, job["base"], folder / "encoded", processes,
                parts=job["parts"], began=began, is_abandoned=abandoned,
            )  # fmt: skip
        if not processes.rank:
            facts = {"why": report.why, "figures": report.figures, "earlier_seconds": report.earlier_seconds}
            write_json(folder / "result.json", facts)


def _shared(context: Context, checkpoints: Checkpoints, base: str, machine: Machine) -> StepReport:
    """The same by several processes on this checkout, which read and write it as this one would."""
    _check_gpus(context.params.compute, machine)
    job = {
        "root": str(context.root.resolve()),
        "work": str(context.work) if context.work else None,
        "key": checkpoints.key,
        "base": base,
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
    context: Context, denoiser: Denoiser, methods: Methods, encoder: Encoder, parts: int = 1
) -> tuple[Learner, list[Pool]]:
    """The student where the champion ended (in a rebase: empty), its teacher if it has one, and what they look at.

    Beside the learner the probes of what the line knows, and of what it is to learn.
    """
    update = context.params.update
    if methods.teaches:
        denoiser.adapters.load(TEACHER, context.path(ADAPTER))
    if context.run.rebase:
        denoiser.adapters.add_fresh(STUDENT, update.lora, context.params.seed)
    else:
        denoiser.adapters.load(STUDENT, context.path(ADAPTER))
    replay, batch = context.path(REPLAY), context.path(BATCH)
    learnt = (replay if context.run.rebase else batch, "train")
    remembered = [(replay, "train")] if methods.remembers else []
    new, *old, old_probe, new_probe = encoder.pools([learnt, *remembered, (replay, "probe"), (batch, "probe")])
    memory = old[0] if old else EMPTY
    if not len(new):
        _refuse_empty(context)
    learner = Learner(
        denoiser,
        Pools(new, memory if methods.replays else EMPTY, memory),
        update,
        seed=context.params.seed,
        methods=methods,
        kept={} if context.run.rebase else read_kept(context.path(ADAPTER)),
        processes=encoder.processes,
        parts=parts,
        in_step=context.params.compute.shard and encoder.processes.size > 1,
    )
    return learner, [old_probe, new_probe]


def _refuse_empty(context: Context) -> NoReturn:
    if context.run.rebase:
        raise NoUsableData(
            "the replay buffer holds no training images to learn on the new base: `retain init` begins anew"
        )
    raise NoUsableData("the batch has no training images: let more assets land, or lower ingest.evaluation_share")


AS_GOOD = {"threads", "checkpointing", "offload", "shard"}
"""Of `compute` what changes time and memory only: a run goes on from its checkpoint with another choice."""


def base_digest(context: Context) -> str:
    """The digest of the base that is learnt on; it reads all of it."""
    return _digest_of(_files(context.path(NEW_BASE if context.run.rebase else BASE)))


def run_key(context: Context, base: str = "") -> str:
    """The digest of everything that training depends on: who has the same key may share checkpoints.

    `base` is that of `base_digest`, where it is known.
    """
    package = Path(__file__).parents[1]
    folders = (sorted((package / name).rglob("*.py")) for name in ("learning", "models"))
    code = [Path(__file__), *chain.from_iterable(folders)]
    before = (_digest_of(_files(context.path(BASE))),) if context.run.rebase else ()
    parts = (
        context.params.update.model_dump_json(),
        context.params.compute.model_dump_json(exclude=AS_GOOD),
        str(context.params.seed),
        str((context.params.serving.width, context.params.serving.height)),
        adapter_digest(context.path(ADAPTER)),
        *before,
        base or base_digest(context),
        content_digest(read_manifest(context.path(BATCH))),
        content_digest(read_manifest(context.path(REPLAY))),
        _digest_of(code),
        torch.__version__,
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _encoded_by(denoiser: Denoiser, base: str) -> str:
    """The digest of all that says what a picture or a caption becomes."""
    package, device = Path(__file__).parents[1], denoiser.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    code = (file for name in ("models", "data") for file in sorted((package / name).glob("*.py")))
    parts = (base, _digest_of(code), str(denoiser.dtype), name, torch.__version__)
    return hashlib.sha256("\n".join((*parts, diffusers.__version__, transformers.__version__)).encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


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


def _figures(context: Context, learner: Learner, methods: Methods, probe: dict[str, Any]) -> dict[str, Any]:
    losses = learner.tail_means()
    return {
        "method": context.params.update.method,
        "methods": sorted(methods.members),
        "replayed": methods.replays,
        "taught_by": adapter_digest(context.path(ADAPTER)) if methods.teaches else None,
        "penalised": [penalty.name for penalty in learner.penalties],
        "steps": learner.step,
        "examples_new": len(learner.new),
        "examples_replay": len(learner.replay),
        "sizes": {f"{width}x{height}": count for (width, height), count in sorted(Counter(learner.new.sizes).items())},
        "parameters_trained": learner.student.numel(),
        "micro_batches": learner.parts,
        "learning_rate": context.params.update.learning_rate,
        "loss_new": losses["new"],
        "loss_replay": losses["replay"] if len(learner.replay) else None,
        "loss_distillation": None,
        **{f"loss_{penalty.name}": losses[penalty.name] for penalty in learner.penalties},
        **{key: value for rule in learner.rules for key, value in rule.figures().items()},
        "probe": probe,
        **(_of_rebase(learner, losses) if context.run.rebase else {}),
    }


def _of_rebase(learner: Learner, losses: dict[str, float]) -> dict[str, Any]:
    """The figures that are others in a rebase: what is learnt as new there is what was kept."""
    replayed = {"replayed": True, "examples_replay": len(learner.new), "loss_replay": losses["new"]}
    return {"method": "rebase", "examples_new": 0, "loss_new": None, **replayed}


if __name__ == "__main__":
    work(Path(sys.argv[1]))
