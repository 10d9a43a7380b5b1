"""A small line whose data are real and whose model is not, for the tests of lineage.

Ingest, shards, splits, ledger, Git and DVC are the real ones, the other steps those of `fake_model`.

    line = line_after(tmp_path / "line", nights=3)     # v4 is its champion; played once, then copied in no time
    assert night(line, "r-4", range(90, 100)) == "v5"  # 2 to 3 seconds
    begin(line, "r-5", range(110, 120))                # its stages ran; now `finish`, or `promote.run`, `close.run`
    rebase(line, "r-6", "a new base")                  # the version on a base whose weights are these words
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import yaml

from cl_steps.acts.rebase import RebaseRequest, ask
from cl_steps.config import RunSpec, load_params
from cl_steps.errors import StaleRun, UsageError
from cl_steps.operations.begin import commit_and_push, lay_out, store_state
from cl_steps.pipeline import STAGES
from cl_steps.records.builders import first_record
from cl_steps.records.signer import version_files
from cl_steps.repository.git import git
from cl_steps.repository.line import Line, local
from cl_steps.repository.run_branch import open_run
from cl_steps.run.stage import run_stage
from cl_steps.steps import close, promote
from cl_steps.verify.judging import Judging
from tests.data.landings import encoded, jsonl, picture, put
from tests.lines.fake_model import stage, write_first_state
from tests.lines.small import with_keys
from tests.once import made_once

ROOT = Path(__file__).parents[2]
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


def make_line(
    folder: Path, known: Iterable[int] = range(12), *, signed: bool = False, **knobs: Mapping[str, object]
) -> Line:
    """A published line at v1 that knows some pictures as the slice `old`; `knobs` are blocks of its params.yaml.

    A `signed` one has keys of its own, as `retain init` makes them.
    """
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder / "dvc.yaml")
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for block, settings in {**KNOBS, **knobs}.items():
        values[block] |= settings
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    (folder / "run.yaml").write_text(yaml.safe_dump(RunSpec().model_dump()), encoding="utf-8")
    lay_out(folder)
    write_first_state(folder, load_params(folder), drawn(known))
    digests = store_state(folder)
    line = with_keys(local(folder), folder) if signed else local(folder)
    record = first_record(digests, ["old"], values, folder / "state")
    for path, content in version_files(line, record, folder / "state/adapter").items():
        (folder / path).write_bytes(content)
    commit_and_push(folder, line)
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


def _played(nights: int) -> Path:
    def play(folder: Path) -> None:
        if not nights:
            make_line(folder)
            return
        line = line_after(folder, nights - 1)
        assert night(line, f"r-{nights}", range(20 * nights, 20 * nights + 12)) == f"v{nights + 1}"

    return made_once(f"played-{nights}", play)


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
    pictures: Pictures | None = (),
    verdicts: Mapping[str, str] | None = None,
    *,
    until: str = "gate",
    slice_name: str = "new",
    source: str = "studio",
    **spec: object,
) -> None:
    """Land the pictures (None: what lies there already), open the run and run its stages up to `until`.

    `verdicts` are those of drift (else `drifted`) and gate (else `promote`); ingest gives its own.
    """
    if pictures is not None:
        land(line, pictures, slice_name, source)
    open_run(line, RunSpec(id=run, **spec))
    given = {"drift": "drifted", "gate": "promote", **(verdicts or {})}
    for step in STAGES:
        run_stage(line, run, step, stage(step.name, given), Judging(line))
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
    line: Line, run: str, pictures: Pictures | None = (), verdicts: Mapping[str, str] | None = None, **more: object
) -> str:
    """A whole night; returns the version that it made, else how it ended (`rejected`, `stale`, ...)."""
    begin(line, run, pictures, verdicts, **more)  # type: ignore[arg-type]
    return finish(line, run)


def ask_for(line: Line, run: str, weights: str = "a new base") -> str:
    """Have ops ask for a base of these weights, for a run; returns what the store calls it."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "base").mkdir()
        (Path(scratch) / "base/weights").write_text(weights, encoding="utf-8")
        event = ask(line, Path(scratch) / "base", RebaseRequest(run, "it draws hands", "ops", "command line"))
    return event.after["md5"]


def rebase(line: Line, run: str, weights: str = "a new base", verdicts: Mapping[str, str] | None = None) -> str:
    """A whole rebase while pictures wait in the landing; returns its version, else how it ended."""
    md5 = ask_for(line, run, weights)
    begin(line, run, range(900, 912), verdicts, rebase=md5, by="ops", reason="it draws hands")
    return finish(line, run)
