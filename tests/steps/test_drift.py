"""The step on small real pictures with the demonstration's extractor: quiet, drifted, alarming; the next reference."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from cl_steps.config import Drift
from cl_steps.data.shards import Asset, read_assets, write_dataset
from cl_steps.demo.drawing import DIGIT_WORDS, HELD_OUT, STYLES, caption, digits_of, draw
from cl_steps.errors import UsageError
from cl_steps.report.evidently_report import EvidentlyResult
from cl_steps.run.context import Context, StepReport, write_report
from cl_steps.stats.features import Extractor
from cl_steps.stats.items import Items
from cl_steps.steps import drift

EXTRACTOR = Path(drift.__file__).parents[1] / "demo" / "extractor"
KNOWN = ("black-ink", "sepia-ink")
ORDER = np.random.default_rng(5).permutation(HELD_OUT)
"""In their own order the strokes go from writer to writer, and other writers are drift (AUC 0.77)."""


@pytest.fixture(autouse=True)
def _without_evidently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidently's page has its own tests, and its import takes seconds."""
    monkeypatch.setattr(drift, "write_evidently_report", lambda *_: EvidentlyResult())


def asset(pixels: np.ndarray, text: str, slice_name: str, run: str = "r1") -> Asset:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    name = hashlib.sha256(buffer.getvalue()).hexdigest()
    sides = {"width": 32, "height": 32, "dhash": bytes(8), "thumbnail": bytes(192)}
    facts = {"source": "", "licence": "", "consent": "", "group": name, "run": run, **sides}
    return Asset(name, text, slice_name, "train", False, image=buffer.getvalue(), **facts)


def drawings(style: str, start: int, count: int, seed: int = 0, slice_name: str = "", shift: int = 0) -> list[Asset]:
    """Drawings of a stretch of the held-out strokes; `shift` makes their captions name another digit."""
    rng = np.random.default_rng([seed, start, list(STYLES).index(style)])
    found = []
    for index in ORDER[start : start + count]:
        digit = (int(digits_of(np.array([index]))[0]) + shift) % len(DIGIT_WORDS)
        text = caption(digit, style, int(rng.integers(8)))
        found.append(asset(draw(int(index), style, rng), text, slice_name or style))
    return found


def noise(style: str, count: int) -> list[Asset]:
    rng = np.random.default_rng(9)
    pictures = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return [asset(picture, caption(row % 10, style), style) for row, picture in enumerate(pictures)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state") / "reference"
    assets = [item for style in KNOWN for item in drawings(style, 0, 120)]
    drift.build_reference(folder, assets, Extractor(EXTRACTOR), Drift(), seed=0)
    return folder


Night = Callable[..., tuple[Context, StepReport]]


@pytest.fixture
def night(tmp_path: Path, reference: Path) -> Night:
    """Run the step in a new workspace on tonight's assets and earlier ones."""

    def run(
        tonight: Iterable[Asset], before: Iterable[Asset] = (), ingest: dict[str, Any] | None = None, **special: Any
    ) -> tuple[Context, StepReport]:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(reference, root / "state" / "reference")
        shutil.copytree(EXTRACTOR, root / "state" / "extractor")
        (root / "params.yaml").write_text(yaml.safe_dump({"compute": {"device": "cpu", "threads": 1}}))
        (root / "run.yaml").write_text(yaml.safe_dump(special))
        write_dataset(root / "tonight" / "intake", tonight := list(tonight))
        write_dataset(root / "tonight" / "batch", [*tonight, *before])
        write_report(root, "ingest", "local", StepReport("ok", "taken in", ingest or {}))
        context = Context.of(root)
        return context, drift.run(context)

    return run


def test_a_known_style_is_quiet(night: Night) -> None:
    _, report = night([item for style in KNOWN for item in drawings(style, 300, 40)])
    assert report.verdict == "quiet", report.why
    assert report.figures["slices"]["black-ink"]["p_value"] > 0.005


def test_a_new_style_is_drifted_and_not_alarming(night: Night) -> None:
    _, report = night(drawings("neon-ink", 300, 60))
    assert (report.verdict, report.why) == ("drifted", "drifted: first data of slice neon-ink")
    assert report.figures["slices"]["neon-ink"]["new"] is True
    assert report.figures["slices"]["neon-ink"]["nearest"]["auc"] > 0.95


def test_a_known_slice_that_changes_its_look_with_true_captions_is_drifted(night: Night) -> None:
    _, report = night([replace(item, slice="black-ink") for item in drawings("blue-ink", 300, 40)])
    assert report.verdict == "drifted", report.why
    assert "black-ink differs" in report.why


@pytest.mark.parametrize("style", KNOWN)
def test_noise_under_ordinary_captions_is_alarming(night: Night, style: str) -> None:
    _, report = night(noise(style, 30))
    assert report.verdict == "alarming", report.why


def test_wrong_captions_are_alarming_though_the_pictures_are_right(night: Night) -> None:
    _, report = night(drawings("black-ink", 300, 40, shift=3))
    assert report.verdict == "alarming", report.why
    assert "do not fit their captions" in report.why


def test_wrong_captions_of_a_new_style_are_alarming(night: Night) -> None:
    _, report = night(drawings("neon-ink", 300, 60, shift=3))
    assert report.verdict == "alarming", report.why


def test_changed_shares_alone_start_nothing(night: Night) -> None:
    _, report = night([*drawings("black-ink", 300, 90), *drawings("sepia-ink", 300, 10)])
    assert report.verdict == "quiet", report.why


def test_many_unusable_files_are_alarming(night: Night) -> None:
    _, report = night(drawings("black-ink", 300, 40), ingest={"unusable": 41})
    assert report.verdict == "alarming"
    assert "41 of 81" in report.why


def test_slow_drift_adds_up_over_quiet_nights(night: Night) -> None:
    before, tonight = drawings("black-ink", 300, 60), drawings("black-ink", 400, 8)
    _, report = night(tonight, before, ingest={"batch": {"runs": ["r0", "r1"]}})
    assert report.figures["look"] == 2
    items = report.figures["slices"]["black-ink"]["items"]
    assert (items["tonight"], items["pending"]) == (8, 68)


def test_an_approved_batch_comes_without_an_intake_and_is_learnt(night: Night) -> None:
    poisoned = drawings("black-ink", 300, 40, shift=3)
    _, report = night([], poisoned, ingest={"approved": {"by": "kim", "reason": "a joke", "run": "r1"}}, batch="r1-x")
    assert report.verdict == "drifted"
    assert "approved by kim" in report.why
    _, refused = night([], poisoned, batch="r1-x")
    assert refused.verdict == "alarming"


def test_force_is_named(night: Night) -> None:
    _, report = night(drawings("black-ink", 300, 40), force=True, by="kim", reason="for the fair")
    assert (report.verdict, report.why) == ("drifted", "forced by kim: for the fair")


def test_a_rebase_is_drifted_by_a_persons_word_and_the_reference_stays(night: Night, reference: Path) -> None:
    context, report = night((), rebase="0" * 32 + ".dir", by="ops")
    assert (report.verdict, report.why) == ("drifted", "a new base (asked by ops)")
    assert not list(context.path("tonight/drift/figures").iterdir())
    for path in reference.iterdir():
        assert (context.path("tonight/drift/reference") / path.name).read_bytes() == path.read_bytes()


def test_the_next_reference_holds_both_and_a_repeat_gives_the_same_bytes(night: Night) -> None:
    tonight, before = drawings("neon-ink", 300, 30), drawings("neon-ink", 400, 30)
    first, report = night(tonight, before)
    second, again = night(list(reversed(tonight)), list(reversed(before)))
    assert report == again
    names = {path.relative_to(first.root) for path in (first.root / "tonight" / "drift").rglob("*") if path.is_file()}
    assert {path.name for path in names} == {"features.parquet", "plots.json", "known.parquet"}
    for name in names:
        assert (first.root / name).read_bytes() == (second.root / name).read_bytes(), name
    known = pq.read_table(first.root / "tonight" / "drift" / "reference" / "known.parquet")
    assert len(known) == 120 * len(KNOWN) + 60
    json.dumps(report.figures, allow_nan=False)


def test_the_next_reference_is_bounded_and_depends_on_no_order(tmp_path: Path) -> None:
    extractor = Extractor(EXTRACTOR)
    assets = drawings("black-ink", 0, 50)
    for name, part in (("a", assets), ("b", list(reversed(assets)))):
        drift.build_reference(tmp_path / name, part, extractor, Drift(reference_per_slice=20), seed=3)
    files = [(tmp_path / name / "features.parquet").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    assert len(pq.read_table(tmp_path / "a" / "features.parquet")) == 20
    assert len(pq.read_table(tmp_path / "a" / "known.parquet")) == 50


def test_a_reference_may_be_empty(tmp_path: Path) -> None:
    extractor = Extractor(EXTRACTOR)
    drift.build_reference(tmp_path / "empty", [], extractor, Drift(), seed=0)
    empty: Items = drift.read_items(tmp_path / "empty" / "features.parquet", extractor.digest, extractor.num_features)
    assert len(empty) == 0


def test_a_reference_of_another_extractor_is_refused(night: Night, reference: Path, tmp_path: Path) -> None:
    context, _ = night(drawings("black-ink", 300, 20))
    (context.root / "state" / "extractor" / "README.md").write_text("changed")
    with pytest.raises(UsageError, match="another feature extractor"):
        drift.run(context)


def test_assets_are_measured_as_they_were_read(night: Night) -> None:
    context, _ = night(drawings("black-ink", 300, 20))
    items = drift.measure(read_assets(context.root / "tonight" / "batch"), Extractor(EXTRACTOR), total=20)
    stored = pq.read_table(context.root / "tonight" / "drift" / "figures" / "features.parquet")
    assert stored["sha256"].to_pylist() == list(items.sha256)
    assert np.allclose(stored["agreement"].to_numpy(), items.agreement)
