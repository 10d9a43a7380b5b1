"""How fast the parts of a night are on this machine: `make bench`. Nothing is judged; the scoreboard gets the figures.

python tests/benchmarks/run.py [NAME ...]      imports, learning, sampling, duplicates, drift, landing, ledger, lines,
                                               index
python tests/benchmarks/run.py nights          fifty at once; takes minutes, and so must be named
python tests/benchmarks/run.py versions        long lines; takes minutes, too
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.scoreboard import Scoreboard, busy, this_machine

if TYPE_CHECKING:
    from cl_steps.repository.line import Line

IMPORTS = (
    "cl_steps.__main__",
    "cl_steps.steps.ingest",
    "cl_steps.steps.drift",
    "cl_steps.steps.update",
    "cl_steps.steps.evaluate",
    "cl_steps.orchestration.line_dag",
)


@dataclass(frozen=True)
class Clock:
    """What one benchmark measures, printed and entered into the scoreboard; names are `group/figure`."""

    scoreboard: Scoreboard

    @contextmanager
    def __call__(self, name: str, count: int = 1, what: str = "", form: str = "") -> Iterator[None]:
        """The CPU seconds of what runs within it and of its commands; of many, how many a CPU second."""
        wall, cpu = time.perf_counter(), _cpu_seconds()
        yield
        wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
        print(f"{wall:7.2f} s wall {cpu:7.2f} s CPU  ", end="")
        self.enter(name, *((count / cpu, f"{what} / CPU s") if count > 1 else (cpu, "CPU s")), form)

    def enter(self, name: str, value: float, unit: str, form: str = "") -> None:
        """A figure that something else measured."""
        print(f"{name}: {value:.4g} {unit}", flush=True)
        self.scoreboard.record(name, value, unit, form=form)


def _cpu_seconds() -> float:
    """Of this process so far, and in hundredths of those that it waited for."""
    return time.process_time() + sum(os.times()[2:4])


def imports(clock: Clock) -> None:
    """What each kind of process pays before it begins."""
    for name in IMPORTS:
        with clock(f"night/start of a process: {name}"):
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True, capture_output=True)


def learning(clock: Clock, steps: int = 60) -> None:
    """Training steps of the demo's model: batch 16 + 16, replay and distillation, all layers, one thread."""
    import torch

    from cl_steps.commands.demo import OVERRIDES
    from cl_steps.config import Lora, Update
    from cl_steps.learning.learner import Learner
    from cl_steps.learning.methods.catalogue import Methods
    from cl_steps.learning.pools import Pool, Pools

    denoiser, lora = _denoiser(), Lora(rank=16, alpha=64, target_modules=tuple(OVERRIDES["update.lora.target_modules"]))
    for name in ("default", "teacher"):
        denoiser.adapters.add_fresh(name, lora, 0)
    said = {"steps": steps, "batch_size": 32, "learning_rate": 1.8e-3, "base_learning_rate": 2e-3, "lora": lora}
    latents = torch.randn(200, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pool = Pool(latents, ("a handwritten three in blue ink",) * 200, ("blue-ink",) * 200, (denoiser.size,) * 200)
    knobs = {"distillation": {"weight": 2.0}}
    for label, method in (("replay and distillation", "replay_distill"), ("replay", "replay")):
        update = Update.model_validate({**said, "method": method, "methods": knobs})
        learner = Learner(denoiser, Pools(pool, pool), update, seed=0, methods=Methods.of(update))
        with clock(f"models/demo model, learning: {label}", steps, "steps", "batch 32, all layers, one thread"):
            for _ in range(steps):
                learner.advance()


def sampling(clock: Clock, count: int = 96) -> None:
    """Samples of the demo's model: 10 steps with guidance, batch 16, one thread."""
    from cl_steps.config import Serving

    denoiser, serving = _denoiser(), Serving(num_inference_steps=10, guidance_scale=2.0)
    with clock("models/demo model, sampling", count, "images", "10 steps, guidance, batch 16, one thread"):
        denoiser.sample(["a handwritten three in blue ink"] * count, list(range(count)), serving, None)


def duplicates(clock: Clock, new: int = 5_000, known: int = 100_000) -> None:
    """Near-duplicate search of a large night against a large line, smooth random pictures."""
    import numpy as np

    from cl_steps.data.duplicates import Prints, near_any, prints_of

    random = np.random.default_rng(0)

    def prints(count: int) -> Prints:
        hashes = random.integers(0, 256, (count, 8), dtype=np.uint8)
        thumbnails = random.integers(0, 256, (count, 192), dtype=np.uint8)
        return prints_of((row.tobytes() for row in hashes), (row.tobytes() for row in thumbnails))

    first, second = prints(new), prints(known)
    with clock(f"ingest/near-duplicates: {new:,} new against {known:,} known"):
        near_any(first, second, 3.0)


def ledger(clock: Clock, events: int = 1_000) -> None:
    """Reading main of a line after many runs."""
    from cl_steps.ledger.fold import fold
    from tests.lasting import event

    said = {"kind": "run", "outcome": "promoted", "version": "v2", "intake": {"md5": "0" * 32, "assets": 10}}
    rows = [event(**said, run=f"r{n}", batch={"runs": [f"r{n}"]}) for n in range(events)]
    with clock(f"night/ledger of {events:,} runs, read"):
        fold(rows)


def landing(clock: Clock, files: int = 20_000, keys: int = 2_000, lines: int = 100_000) -> None:
    """What a run copies of a landing of small files before it looks at them; and bad metadata, taken in and written."""
    from cl_steps.config import Ingest, Params
    from cl_steps.data.intake import take_in
    from cl_steps.landing.place import open_landing
    from cl_steps.landing.snapshot import Snapshot, take_snapshot
    from cl_steps.repository.line import Line
    from tests.buckets import s3_server

    with tempfile.TemporaryDirectory() as scratch, s3_server() as bucket:
        here, root = Path(scratch, "landing"), Path(scratch, "root")
        root.mkdir()
        for number in range(files):
            path = here / str(number % 20) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(4096))
            if number < keys:
                bucket.pipe_file(f"bucket/{number}.png", os.urandom(4096))
        places = {"in a folder": (str(here), files), "in S3, its server beside it": ("s3://bucket", keys)}
        for kind, (place, count) in places.items():
            with clock(f"ingest/snapshot of {count:,} files of 4 KB, {kind}", count, "files"):
                take_snapshot(open_landing(Line("", "", "", place), Params(), root), Ingest(), "r", root)
        (bad := Path(scratch, "bad")).mkdir()
        (bad / "metadata.jsonl").write_text("\n".join(f"{{{number}" for number in range(lines)), encoding="utf-8")
        with clock(f"ingest/{lines:,} bad lines of metadata, each told", lines, "lines"):
            take_snapshot(open_landing(Line("", "", "", str(bad)), Params(), root), Ingest(), "r", root)
            take_in(Snapshot(root), Ingest(), 0, "r").write(Path(scratch, "out"))


def _denoiser():  # noqa: ANN202  (torch is imported late)
    import torch

    from cl_steps.config import Compute
    from cl_steps.models.model import open_denoiser

    torch.set_num_threads(1)
    return open_denoiser(Path(__file__).parents[2] / "cl_steps" / "demo" / "base", Compute(threads=1))


def drift(clock: Clock) -> None:
    """Features and properties of a night's pictures with the demo's extractor."""
    from cl_steps.config import Ingest
    from cl_steps.data.intake import take_in
    from cl_steps.demo.nights import write_initial
    from cl_steps.stats.features import Extractor
    from cl_steps.steps.drift import measure

    extractor = Extractor.open(Path(__file__).parents[2] / "cl_steps" / "demo" / "extractor")
    with tempfile.TemporaryDirectory() as scratch:
        write_initial(Path(scratch), 0)
        with clock("ingest/450 pictures of 32x32", 450, "images"):
            assets = list(take_in(Path(scratch), Ingest(), 0, "bench").assets)
        with clock("drift/features and properties of 450 pictures", 450, "images", "the demo's extractor"):
            measure(assets, extractor, len(assets))


def lines(clock: Clock, count: int = 500) -> None:
    """Many lines under one Airflow, their steps as pods: reading `lines.yaml`, making the DAGs, serialising them."""
    import yaml

    secrets = {"step": "s", "trusted": "t"}
    places = [{"name": f"l{n}", "workspace": f"https://git/l{n}", "store": f"s3://b/l{n}"} for n in range(count)]
    entries = [{**place, "profile": "gpu", "jitter_minutes": 60, "secrets": secrets} for place in places]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "lines.yaml"
        file.write_text("lines: []", encoding="utf-8")
        os.environ.update({"RETAIN_LINES": str(file), "AIRFLOW_HOME": scratch})
        from airflow.serialization.serialized_objects import DagSerialization

        import dags.acts
        import dags.maintenance
        from cl_steps.orchestration.line_dag import build_all

        file.write_text(yaml.safe_dump({"profiles": {"gpu": {"image": "i"}}, "lines": entries}), encoding="utf-8")
        with clock(f"night/{count} lines of pods, read and made into DAGs"):
            made = build_all()
        with clock(f"night/audit, prune, rollback and withdrawal of {count} lines, made into DAGs"):
            for command in (dags.maintenance.audit, dags.maintenance.prune):
                dags.maintenance.weekly("0 5 * * 6", "weekly", command)
            dags.acts.build_acts([entry["name"] for entry in entries])
        with clock(f"night/{count} DAGs serialised by Airflow"):
            for dag in made.values():
                DagSerialization.to_dict(dag)


def index(clock: Clock, versions: int = 1_000, arrivals: int = 1_000, replay: int = 3_000) -> None:
    """The asset index of a long line: 5,000 rows of manifests a version (its intake, its batch, its replay buffer)."""
    from cl_steps.trace.assets import find
    from cl_steps.trace.index import ask, place

    with tempfile.TemporaryDirectory() as scratch:
        line, names = _long_line(Path(scratch), versions, arrivals, replay)
        name, form = f"night/asset index of {versions:,} versions", f"{versions * arrivals:,} images"
        with clock(f"{name}, made anew", form=form):
            ask(line, lambda db: None)
        clock.enter(f"{name}, its size", place(line).stat().st_size / 2**20, "MiB", form)
        with clock(f"{name}, a question", form=form):
            ask(line, lambda db: find(db, names[0]))
        took = ask(line, partial(_look_up, names=names[:: len(names) // 200]))
        clock.enter(f"{name}, a look-up, median of {len(took)}", statistics.median(took), "CPU ms", form)
        clock.enter(f"{name}, the slowest look-up of {len(took)}", max(took), "CPU ms", form)


def _look_up(db: sqlite3.Connection, names: list[str]) -> list[float]:
    from cl_steps.trace.assets import find

    took = []
    for name in names:
        began = time.process_time()
        find(db, name)
        took.append(1000 * (time.process_time() - began))
    return took


def _long_line(folder: Path, versions: int, arrivals: int, replay: int) -> tuple[Line, list[str]]:
    """A line's main and store as nights of `arrivals` images leave them, a tenth of the replay buffer new each time."""
    import numpy as np
    import pyarrow as pa

    from cl_steps.data.shards import LATER, MANIFEST_SCHEMA
    from tests.lines.explaining import Fabricated

    made, names = Fabricated(folder), []
    buffer = made.state["replay"]
    for _ in range(versions - 1):
        thumbs = made.random.integers(0, 256, (arrivals, 192), dtype=np.uint8)
        shas = sorted(hashlib.sha256(row.tobytes()).hexdigest() for row in thumbs)
        same = {
            "slice": "a",
            "split": "train",
            "sealed": False,
            "source": "s",
            "licence": "",
            "consent": "",
            "run": "r",
            **dict.fromkeys(LATER),
        }
        prints = {"dhash": [row[:8].tobytes() for row in thumbs], "thumbnail": [row.tobytes() for row in thumbs]}
        columns = {"sha256": shas, "text": shas, "group": shas, "width": [32] * arrivals, "height": [32] * arrivals}
        columns |= {key: [value] * arrivals for key, value in same.items()} | prints
        rows = pa.table([pa.array(columns[f.name], f.type) for f in MANIFEST_SCHEMA], schema=MANIFEST_SCHEMA)
        buffer = pa.concat_tables([rows.slice(0, replay // 10), buffer]).slice(0, replay).combine_chunks()
        made.enter(rows, buffer)
        names += shas[:5]
    made.push()
    return made.line, names


def versions(clock: Clock, numbers: tuple[int, ...] = (10, 100, 1000)) -> None:
    """What a line of many versions costs: its size, reading it, and the parts of a night that touch main."""
    from tests.benchmarks.long_line import calls, long_line

    for number in numbers:
        with tempfile.TemporaryDirectory() as scratch:
            line = long_line(Path(scratch) / "line", number)
            size = sum(path.stat().st_size for path in Path(line.git).rglob("*") if path.is_file())
            clock.enter(f"night/line of {number:,} versions: Git remote", size / 1e6, "MB")
            for label, call in calls(line, Path(scratch)).items():
                with clock(f"night/line of {number:,} versions: {label}"):
                    call()
            for label, words in {"retain verify": (), "retain verify --all": ("--all",)}.items():
                _verify(clock, line, f"night/line of {number:,} versions: {label}", words)


WITH_MEMORY = """
import atexit, pathlib, runpy
atexit.register(lambda: print(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]))
runpy.run_module("cl_steps", run_name="__main__")
"""
"""Runs `retain` and ends with the most memory that it had, in KiB; that of a child counts what its parent had."""


def _verify(clock: Clock, line: Line, name: str, words: tuple[str, ...]) -> None:
    """In a process of its own, for its memory; it says that fabricated records name other commits and files."""
    where = str(Path(line.git).parents[1])
    with clock(name):
        command = [sys.executable, "-c", WITH_MEMORY, "verify", *words, "--dir", where]
        found = subprocess.run(command, check=False, capture_output=True)
    assert found.returncode in (0, 5), found.stderr.decode()
    *_, said, peak = found.stdout.decode().splitlines()
    print(said)
    clock.enter(f"{name}, its memory at most", int(peak) / 1024, "MiB")


def nights(clock: Clock, count: int = 50) -> None:
    """Nights of many lines at once, their steps stubs: what Airflow itself takes."""
    from contextlib import nullcontext

    from tests.dags.nights import play
    from tests.dags.postgres import postgres, why_not

    with tempfile.TemporaryDirectory() as scratch, nullcontext("") if why_not() else postgres() as database:
        found = play(Path(scratch), count, database)
    where = "PostgreSQL" if database else "SQLite"
    name, form = f"night/{count} nights at once", f"{found.tasks} tasks, stub steps, {where}"
    clock.enter(f"{name}, until all ended", found.seconds, "s", form)
    clock.enter(f"{name}, memory at most", found.peak_bytes / 2**30, "GiB", form)


BENCHMARKS: dict[str, Callable[[Clock], None]] = {
    "imports": imports,
    "learning": learning,
    "sampling": sampling,
    "duplicates": duplicates,
    "drift": drift,
    "landing": landing,
    "ledger": ledger,
    "lines": lines,
    "index": index,
}

LONG: dict[str, Callable[[Clock], None]] = {"nights": nights, "versions": versions}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or BENCHMARKS:
        board = Scoreboard(f"python tests/benchmarks/run.py {chosen}", this_machine(), busy())
        (BENCHMARKS | LONG)[chosen](Clock(board))
