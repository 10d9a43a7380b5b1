"""A row and a seed, task by task, by the package's learner; what is done is not done again.

    FOLDER/task-1.json       what was measured after a task, with the SHA-256 of the weights; written last
    FOLDER/task-1/           the promoted adapter and what the methods keep: to go on from, gone a task later
    FOLDER/../../first/      the weights after the first task, by seed and rate

A row of real pictures keeps as many of each class that it knows. A row of generated ones draws them from the champion
before each task. The student begins as the promoted average of the task before, and so does its teacher. Where nothing
is known yet there is nothing to forget: the first task is plain training for every row, and learnt once for a seed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from cl_steps.config import Compute, Lora, Serving, Update, validate_block
from cl_steps.digests import file_sha256
from cl_steps.documents import Json, write_json
from cl_steps.learning.kept import read_kept, write_kept
from cl_steps.learning.learner import STUDENT, Learner
from cl_steps.learning.methods.catalogue import NONE, Kept, Methods, method
from cl_steps.learning.methods.method import TEACHER
from cl_steps.learning.plan import generator
from cl_steps.learning.pools import EMPTY, Pool, Pools
from cl_steps.models.classes import ClassPipeline, Pixels
from cl_steps.models.loading import choose_device
from cl_steps.models.lora import FILE_NAME
from cl_steps.models.model import Denoiser
from cl_steps.models.tensors import tensor_bytes
from cl_steps.progress import progress
from tests.benchmarks.mnist5 import authors
from tests.benchmarks.mnist5.digits import Digits, Pictures, pool
from tests.benchmarks.mnist5.nets import Plain, Residual
from tests.benchmarks.mnist5.scores import Judged, frechet, scores
from tests.benchmarks.mnist5.settings import TASKS, Choice, Form, Row

SAMPLED_AT_ONCE = 250
OTHERS = {"second_pass": authors.METHOD}
"""Methods that are not the package's."""


@dataclass(frozen=True)
class Bench:
    """What all rows have in common; `part` of the digits is what is scored on."""

    form: Form
    digits: Digits
    nets: Mapping[str, Plain | Residual]
    tasks: tuple[tuple[int, ...], ...] = TASKS
    part: str = "test"

    @property
    def classes(self) -> tuple[int, ...]:
        """Of all tasks."""
        return tuple(label for task in self.tasks for label in task)

    @cached_property
    def real(self) -> Mapping[str, Judged]:
        """The real pictures as each net sees them."""
        pictures, labels = self.digits.of(self.part, self.classes)
        return {name: Judged.by(net, pictures, labels) for name, net in self.nets.items()}


@dataclass
class Run:
    """A row with one choice of its knobs, and a seed."""

    bench: Bench
    row: Row
    choice: Choice
    seed: int
    folder: Path
    denoiser: Denoiser = field(init=False)
    kept: Kept = field(init=False, default_factory=dict)

    @property
    def tasks(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each task; all at once where all is known from the start."""
        return (self.bench.classes,) if self.row.old == "all" else self.bench.tasks

    def begin(self) -> None:
        """A network and a student that have learnt nothing."""
        self.denoiser = new_denoiser(self.bench.form, self.seed)
        self.denoiser.adapters.add_fresh(STUDENT, Lora(rank="full"), seed=0)

    def play(self) -> list[Json]:
        """What was measured after each task."""
        done = [
            json.loads(file.read_bytes()) for number in range(len(self.tasks)) if (file := self._file(number)).exists()
        ]
        if len(done) == len(self.tasks):
            return done
        self.begin()
        while done and not self._goes_on_from(len(done) - 1, done[-1]["weights"]):
            done.pop()
        return [*done, *(self._task(number) for number in range(len(done), len(self.tasks)))]

    def _task(self, number: int) -> Json:
        began = time.process_time()
        learner, seconds = self._learn(number)
        found = {"scores": self._scores(number), "cpu_seconds_a_step": seconds, "steps": learner.update.steps}
        folder = self.folder / f"task-{number + 1}"
        shutil.rmtree(folder, ignore_errors=True)
        self.denoiser.adapters.save(STUDENT, folder)
        write_kept(folder, self.kept)
        minutes = max(time.process_time() - began, seconds * learner.update.steps) / 60
        found |= {"cpu_minutes": round(minutes, 2), "weights": file_sha256(folder / FILE_NAME), "task": number + 1}
        write_json(self._file(number), found)
        shutil.rmtree(self.folder / f"task-{number}", ignore_errors=True)
        return found

    def _learn(self, number: int) -> tuple[Learner, float]:
        """The learner after a task, its average in the student; and the CPU seconds of a step."""
        learner = self.learner(number)
        is_first = not number and self.row.old != "all"
        average, seconds = self._first(learner) if is_first else self._trained(learner)
        learner.put(average)
        self.kept = self.methods().keep(learner, learner.new, learner.kept)
        return learner, seconds

    def learner(self, number: int) -> Learner:
        """The learner before a task, on the student as it is."""
        form, row, seed = self.bench.form, self.row, 100 * self.seed + number
        adapters, methods = self.denoiser.adapters, self.methods()
        pools = self._pools(number, methods)
        steps = sum(map(form.steps_of, range(len(self.bench.tasks)))) if row.old == "all" else form.steps_of(number)
        rate = form.learning_rate * self.choice.rate
        update = Update(
            steps=row.steps * steps,
            batch_size=form.batch_size * (row.batch if len(pools.replay) else 1),
            learning_rate=rate,
            base_learning_rate=2 * rate,
            ema_decay=form.ema_decay,
            caption_dropout=0.0,
            checkpoint_every=row.steps * steps,
            lora=Lora(rank="full"),
        )
        if methods.teaches and number:
            adapters.add_fresh(TEACHER, Lora(rank="full"), seed=0)
            adapters.put(TEACHER, adapters.flat(STUDENT).detach())
        own = methods if number else NONE
        return Learner(self.denoiser, pools, update, seed=seed, methods=own, kept=self.kept if number else {})

    def _trained(self, learner: Learner) -> tuple[Tensor, float]:
        """The average after all steps, and the CPU seconds of one."""
        steps, began = learner.update.steps, time.process_time()
        for _ in progress(range(steps), steps, f"{self.row.words}: steps"):
            learner.advance()
        return learner.average, round((time.process_time() - began) / steps, 5)

    def _first(self, learner: Learner) -> tuple[Tensor, float]:
        """The same after the first task, learnt by whichever row came first."""
        file = self.folder.parents[1] / "first" / f"{self.seed}-{learner.update.learning_rate}.safetensors"
        if not file.exists():
            average, seconds = self._trained(learner)
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f"{os.getpid()}.draft")
            draft.write_bytes(tensor_bytes({"average": average, "seconds": torch.tensor(seconds, dtype=torch.float64)}))
            draft.replace(file)
        found = load_file(file)
        return found["average"].to(learner.student.device), float(found["seconds"])

    def methods(self) -> Methods:
        """Those of the choice, with its knobs."""
        said = {name: dict(knobs) for name, knobs in self.choice.methods.items()}
        if "ewc" in said:
            said["ewc"]["draws"] = self.bench.form.fisher_draws
        own = {name: OTHERS.get(name) or method(name) for name in said}
        return Methods({name: (found, validate_block(found.knobs, said[name], name)) for name, found in own.items()})

    def _pools(self, number: int, methods: Methods) -> Pools:
        task = self.tasks[number]
        new = pool(*self.bench.digits.of("train", task), self.bench.tasks)
        known = tuple(label for before in self.tasks[:number] for label in before)
        old = self._old(number, known) if known and self.row.old != "none" else EMPTY
        return Pools(new, old) if methods.replays else Pools(new, EMPTY, old)

    def _old(self, number: int, known: tuple[int, ...]) -> Pool:
        """Pictures of the classes that are known."""
        if self.row.old == "generated":
            pictures, labels = self._sample(known, self.bench.form.generated, "generated", self.seed, number)
            return pool(pictures, labels, self.bench.tasks)
        count = int(self.row.old) // len(known)
        some = [self.bench.digits.some(label, count, self.seed) for label in known]
        return pool(np.concatenate(some), np.repeat(known, [len(own) for own in some]), self.bench.tasks)

    def _sample(self, classes: tuple[int, ...], count: int, *what: object) -> tuple[Pictures, NDArray[np.int64]]:
        """`count` pictures of each class, by the student as it is; the noise is fixed by `what`."""
        labels = np.repeat(np.array(classes, dtype=np.int64), count)
        seeds = torch.randint(2**62, (len(labels),), generator=generator(0, *what)).tolist()
        serving = Serving(num_inference_steps=self.bench.form.sampling_steps)
        images = self.denoiser.sample(list(map(str, labels)), seeds, serving, STUDENT, SAMPLED_AT_ONCE)
        return np.stack([np.asarray(image) for image in images]), labels

    def _scores(self, number: int) -> Json:
        """After the last task of everything, before it of what was just learnt."""
        is_last = number == len(self.tasks) - 1
        classes = self.bench.classes if is_last else self.tasks[number]
        pictures, labels = self._sample(classes, self.bench.form.a_class, "scored", self.seed, number)
        found: dict[str, Any] = {}
        for name, net in self.bench.nets.items():
            samples, real = Judged.by(net, pictures, labels), self.bench.real[name]
            tasks = self.bench.tasks if is_last else (self.tasks[number],)
            found[name] = {
                "tasks": {_word(task): frechet(samples.of(task).features, real.of(task).features) for task in tasks}
            }
            if is_last:
                found[name] |= scores(samples, real)
        return found

    def _goes_on_from(self, number: int, digest: str) -> bool:
        """Have the student and what is kept as they were after a task; False where they are not there whole."""
        folder = self.folder / f"task-{number + 1}"
        if not (folder / FILE_NAME).exists() or file_sha256(folder / FILE_NAME) != digest:
            return False
        self.denoiser.adapters.load(STUDENT, folder)
        self.kept = read_kept(folder)
        return True

    def _file(self, number: int) -> Path:
        return self.folder / f"task-{number + 1}.json"


def _word(task: tuple[int, ...]) -> str:
    return "".join(map(str, task))


def new_denoiser(form: Form, seed: int) -> Denoiser:
    """A network that has learnt nothing yet."""
    device = choose_device(Compute(threads=form.threads))
    down = ["AttnDownBlock2D" if level in form.attention else "DownBlock2D" for level in range(len(form.channels))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet2DModel(
            sample_size=form.size,
            in_channels=1,
            out_channels=1,
            block_out_channels=form.channels,
            layers_per_block=form.layers,
            down_block_types=tuple(down),
            up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
            add_attention=bool(form.attention),
            norm_num_groups=form.groups,
            num_class_embeds=10,
        )
    pipeline = ClassPipeline(network.eval().requires_grad_(False), DDIMScheduler(), Pixels(1))
    return Denoiser(pipeline.to(device), device)
