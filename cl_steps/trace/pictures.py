"""The pictures that two versions left in the store when they were evaluated, for a comparison by eye."""

from __future__ import annotations

from collections.abc import Mapping

from cl_steps.data.manifests import Manifests
from cl_steps.ledger.record import Record
from cl_steps.repository.mainline import Mainline
from cl_steps.stats.samples import SAMPLE_FILES
from cl_steps.trace.changes import named, night_of_both
from cl_steps.trace.versions import records_of, stored

SAMPLES = "tonight/evaluation/samples"


def sample_files(main: Mainline, manifests: Manifests, old: str, new: str) -> tuple[list[dict[str, bytes]], str]:
    """The sample grids to show, in folders as `evaluate` writes them, and a sentence on what they are.

    Parent and child were drawn on the same prompts and seeds when the child was evaluated: one folder. Others have one
    each, drawn in their own nights, of which only the `candidate` counts. Raises as `changes.changes` does.
    """
    records = records_of(main)
    before, after = (records[named(main, records, name)] for name in (old, new))
    judge = night_of_both(before, after)
    if judge:
        files = _samples(manifests, judge)
        words = f"The same prompts and seeds, drawn when {judge.version} was evaluated."
        return [files if judge is after else _swapped(files)], words
    both = [_own(_samples(manifests, record)) for record in (before, after)]
    lacking = [record.version for record, files in zip((before, after), both, strict=True) if not files]
    words = f" Of {' and '.join(lacking)} the store has no pictures." if lacking else ""
    return both, f"Each version's own pictures, drawn in its own night with its own prompts and seeds.{words}"


def _swapped(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The grids with champion and candidate in each other's place."""
    other = {"champion": "candidate", "candidate": "champion"}
    found = {}
    for name, content in files.items():
        stem, dash, model = name.removesuffix(".png").rpartition("-")
        found[f"{stem}{dash}{other[model]}.png" if model in other else name] = content
    return found


def _samples(manifests: Manifests, record: Record) -> dict[str, bytes]:
    md5 = stored(record).get(SAMPLES)
    return manifests.files(md5, SAMPLE_FILES) if md5 else {}


def _own(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The pictures that a version drew itself."""
    return {name: content for name, content in files.items() if not name.endswith(("-champion.png", "-anchor.png"))}
