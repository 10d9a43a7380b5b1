"""A small line whose data are real and whose model is not, for the tests of lineage.

Ingest, shards, splits, ledger, Git and DVC are the real ones. Drift, update and evaluate write what the real steps
would write, from a "model" whose adapter is a digest of everything that it learnt: what a picture had an influence on
can be seen in the bytes.

    line = line_after(tmp_path / "line", nights=3)     # v4 is its champion; played once, then copied in no time
    assert night(line, "r-4", range(90, 100)) == "v5"  # 2 to 3 seconds
    begin(line, "r-5", range(110, 120))                # its stages ran; now `finish`, or `promote.run`, `close.run`
    rebase(line, "r-6", "a new base")                  # the version on a base whose weights are these words
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors.numpy import save_file

from cl_steps import close, ingest, promote
from cl_steps.config import Params, RunSpec, load_params
from cl_steps.data import evaluation, replay
from cl_steps.data.intake import take_in
from cl_steps.data.shards import (
    MANIFEST_SCHEMA,
    Asset,
    decode,
    distinct,
    iter_assets,
    read_manifest,
    write_dataset,
    write_table,
)
from cl_steps.errors import StaleRun, UsageError
from cl_steps.lineage.rebase import Wish, ask
from cl_steps.lineage.records import first_record
from cl_steps.pipeline import DRIFT, EVALUATE, GATE, INGEST, STAGES, UPDATE
from cl_steps.stats.figures import Figures, HeldOutFeatures, Plan, Samples, write_figures
from cl_steps.stats.items import Items, bounded, joined, read_items, write_items
from cl_steps.stats.properties import properties_of
from cl_steps.workspace.branch import open_run
from cl_steps.workspace.context import Context, StepReport, write_json
from cl_steps.workspace.create import lay_out, publish, store_state
from cl_steps.workspace.execute import StepFunction, run_stage
from cl_steps.workspace.git import git
from cl_steps.workspace.line import Line, local
from tests.data.landings import encoded, jsonl, picture, put

ROOT = Path(__file__).parents[2]
FILE_NAME = "pytorch_lora_weights.safetensors"
EXTRACTOR = "e" * 64
NUM_FEATURES = 4
KNOBS = {
    "ingest": {"min_new_assets": 4},
    "drift": {"reference_per_slice": 20},
    "update": {"replay_capacity": 16},
}
"""So small that a few nights fill the replay buffer and the reference, and both must drop some."""

Pictures = Mapping[str, bytes] | Iterable[int]
"""Files by name, or numbers of pictures that `tests.data.landings.picture` draws."""


def drawn(numbers: Iterable[int]) -> dict[str, bytes]:
    """The files of pictures by their numbers: `012.png` is picture 12."""
    return {f"{number:03d}.png": encoded(picture(number)) for number in numbers}


def sha_of(number: int) -> str:
    """The SHA-256 of a drawn picture's file: what its asset is called."""
    return hashlib.sha256(encoded(picture(number))).hexdigest()


def make_line(folder: Path, known: Iterable[int] = range(12), **knobs: Mapping[str, object]) -> Line:
    """A published line at v1 that knows some pictures as the slice `old`; `knobs` are blocks of its params.yaml."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder / "dvc.yaml")
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for block, settings in {**KNOBS, **knobs}.items():
        values[block] |= settings
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    (folder / "run.yaml").write_text(yaml.safe_dump(RunSpec().model_dump()), encoding="utf-8")
    lay_out(folder)
    _write_first_state(folder, load_params(folder), known)
    digests = store_state(folder)
    write_json(folder / "versions/v0001.json", first_record(digests, ["old"], values, folder / "state"))
    line = local(folder)
    publish(folder, line)
    return line


def line_after(folder: Path, nights: int) -> Line:
    """A line of its own in `folder` after `nights` nights, `r-1` (v2), `r-2` (v3) ..., played once and copied.

    v1 knows pictures 0 to 11 as the slice `old`; night n brought 20n to 20n+11 as `new`, from the source `studio`.
    """
    return copied(_played(nights), folder)


def copied(source: Path, folder: Path) -> Line:
    """A line of its own in `folder`: what the line in the folder `source` is now."""
    shutil.copytree(source, folder, symlinks=True)
    line = local(folder)
    line.save(folder)
    git(folder, "remote", "set-url", "origin", line.git)
    return line


@cache
def _played(nights: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="retain-played-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if not nights:
        make_line(folder / "line")
    else:
        line = line_after(folder / "line", nights - 1)
        assert night(line, f"r-{nights}", range(20 * nights, 20 * nights + 12)) == f"v{nights + 1}"
    return folder / "line"


def land(line: Line, pictures: Pictures, slice_name: str = "new", source: str = "studio") -> None:
    """Empty the landing and put these pictures there, each with a caption of its name."""
    landing = Path(line.landing)
    shutil.rmtree(landing, ignore_errors=True)
    landing.mkdir()
    files = pictures if isinstance(pictures, Mapping) else drawn(pictures)
    for name, content in files.items():
        put(landing, name, content)
        jsonl(landing, {"file_name": name, "text": f"picture {name}", "slice": slice_name, "source": source})


def begin(
    line: Line,
    run: str,
    pictures: Pictures = (),
    verdicts: Mapping[str, str] | None = None,
    *,
    until: str = "gate",
    slice_name: str = "new",
    source: str = "studio",
    **spec: object,
) -> None:
    """Land the pictures, open the run and run its stages up to `until`.

    `verdicts` are those of drift (else `drifted`) and gate (else `promote`); ingest gives its own.
    """
    land(line, pictures, slice_name, source)
    open_run(line, RunSpec(id=run, **spec))
    given = {"drift": "drifted", "gate": "promote", **(verdicts or {})}
    for step in STAGES:
        run_stage(line, run, step, _stage(step.name, given))
        if step.name == until:
            break


def finish(line: Line, run: str) -> str:
    """Promote the run where its gate said so, close it, and return its version, else how it ended."""
    version = ""
    with patch.object(promote, "_check_figures", lambda *_: None), suppress(UsageError, StaleRun):
        version = promote.run(line, run)
    ended = close.run(line, run)
    return version or ended


def night(
    line: Line, run: str, pictures: Pictures = (), verdicts: Mapping[str, str] | None = None, **more: object
) -> str:
    """A whole night; returns the version that it made, else how it ended (`rejected`, `stale`, ...)."""
    begin(line, run, pictures, verdicts, **more)  # type: ignore[arg-type]
    return finish(line, run)


def ask_for(line: Line, run: str, weights: str = "a new base") -> str:
    """Have ops ask for a base of these weights, for a run; returns what the store calls it."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "base").mkdir()
        (Path(scratch) / "base/weights").write_text(weights, encoding="utf-8")
        event = ask(line, Path(scratch) / "base", Wish(run, "it draws hands", "ops", "command line"))
    return str(event["after"]["md5"])


def rebase(line: Line, run: str, weights: str = "a new base", verdicts: Mapping[str, str] | None = None) -> str:
    """A whole rebase while pictures wait in the landing; returns its version, else how it ended."""
    md5 = ask_for(line, run, weights)
    begin(line, run, range(900, 912), verdicts, rebase=md5, by="ops", reason="it draws hands")
    return finish(line, run)


def _stage(name: str, verdicts: Mapping[str, str]) -> StepFunction:
    if name == INGEST.name:
        return ingest.run
    stubs = {
        DRIFT.name: partial(_drift, verdicts["drift"]),
        UPDATE.name: _update,
        EVALUATE.name: _evaluate,
        GATE.name: partial(_gate, verdicts["gate"]),
    }
    return stubs[name]


def _write_first_state(folder: Path, params: Params, known: Iterable[int]) -> None:
    state, landing = folder / "state", folder / "known"
    for name in ("base", "extractor"):
        (state / name).mkdir(parents=True)
        (state / name / "weights").write_text(name, encoding="utf-8")
    for name, content in drawn(known).items():
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
    """As `cl_steps.drift`: the figures, and the reference that a promotion would make."""
    if context.run.rebase:
        context.fresh("tonight/drift/figures")
        reference = context.fresh("tonight/drift/reference")
        shutil.copytree(context.path("state/reference"), reference, dirs_exist_ok=True)
        return StepReport(verdict, f"drift says {verdict}")
    batch = _measured(iter_assets(context.path("tonight/batch")))
    reference, folder = context.path("state/reference"), context.fresh("tonight/drift/figures")
    write_items(folder / "features.parquet", batch, EXTRACTOR)
    items = joined(read_items(reference / "features.parquet", EXTRACTOR, NUM_FEATURES), batch)
    known = pq.read_table(reference / "known.parquet").cast(MANIFEST_SCHEMA)
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
    """As `cl_steps.evaluate`: figures that name their images, samples, the next evaluation set and anchors."""
    champion = json.loads(context.path("state/champion.json").read_text(encoding="utf-8"))
    arrived = set(read_manifest(context.path("tonight/batch"))["slice"].to_pylist())
    figures = _figures(context, champion, sorted(arrived - set(champion["slices"])))
    write_figures(context.fresh("tonight/evaluation/figures"), figures)
    (context.fresh("tonight/evaluation/samples") / "prompts.json").write_text("{}\n", encoding="utf-8")
    folders = (context.path(name) for name in ("state/global_eval", "tonight/batch"))
    evaluation.write_next(context.fresh("tonight/evaluation/global_eval"), *folders)
    _write_anchors(context, champion["slices"] if context.run.rebase else figures.plan.new_slices)
    slices = sorted({*champion["slices"], *arrived})
    scores = {name: {"loss": {"champion": 1.0, "candidate": 0.9, "anchor": 1.0}} for name in slices}
    return StepReport(None, "measured", {"slices": scores, "looks": 1, "seed_plan": champion["seed_plan"]})


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
    properties = np.array([properties_of(decode(asset.image), asset.text) for asset in seen]).reshape(len(seen), -1)
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
