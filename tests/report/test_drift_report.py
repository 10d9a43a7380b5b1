"""The drift figures, and Evidently's page: self-contained, the same bytes each time, errors recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cl_steps.config import Drift
from cl_steps.report import evidently_report
from cl_steps.report.drift_figures import drift_figures, drift_plots, histogram
from cl_steps.report.evidently_report import MAX_COLUMNS, columns_of, safe, stable, write_evidently_report
from cl_steps.stats.drift_evidence import Evidence, gather
from cl_steps.stats.drift_verdict import decide
from cl_steps.stats.items import Items
from cl_steps.stats.properties import PROPERTIES

HOSTILE = "</script><script>alert(1)</script>"


def items_of(slices: dict[str, int], seed: int, brighter: float = 0.0) -> Items:
    rng = np.random.default_rng(seed)
    names = [name for name, count in slices.items() for _ in range(count)]
    count = len(names)
    properties = rng.normal(30, 2, size=(count, len(PROPERTIES)))
    properties[:, 0] += brighter
    agreement = rng.normal(0.5, 0.1, count).astype(np.float32)
    keys = tuple(f"{seed}-{row:04d}" for row in range(count))
    features = rng.normal(size=(count, 4)).astype(np.float32)
    return Items(keys, tuple(names), features, agreement, np.full(count, np.nan, np.float32), properties)


@pytest.fixture(scope="module")
def night() -> tuple[Items, Items, dict[str, object]]:
    reference = items_of({"ink": 60, HOSTILE: 40}, 0)
    batch = items_of({"ink": 30, HOSTILE: 20, "neon": 20}, 1, brighter=20.0)
    evidence = Evidence(gather(reference, batch, batch, seed=0))
    return reference, batch, drift_figures(evidence, decide(evidence, Drift()), Drift())


def test_figures_are_json_without_nan(night: tuple[Items, Items, dict[str, object]]) -> None:
    figures = json.loads(json.dumps(night[2], allow_nan=False))
    assert figures["slices"]["neon"]["new"] is True
    assert figures["slices"]["neon"]["p_value"] is None
    assert figures["slices"]["ink"]["drifted"] is True
    assert figures["slices"]["ink"]["auc"] > 0.95
    assert figures["tests"] >= 4


def test_plots_are_shares_over_common_bins(night: tuple[Items, Items, dict[str, object]]) -> None:
    series = drift_plots(night[0], night[1])["slices"]["ink"]
    assert "specificity" not in series
    assert sum(series["brightness"]["batch"]) == pytest.approx(1, abs=1e-4)
    assert len(series["brightness"]["edges"]) == len(series["brightness"]["batch"]) + 1
    assert histogram(np.array([np.nan]), np.array([])) is None


def test_the_page_is_self_contained_stable_and_escapes(
    night: tuple[Items, Items, dict[str, object]], tmp_path: Path
) -> None:
    reference, batch, figures = night
    pages = []
    for name in ("a.html", "b.html"):
        result = write_evidently_report(tmp_path / name, reference, batch, figures["slices"], 0.005)
        pages.append((tmp_path / name).read_text(encoding="utf-8"))
    assert result.errors == ()
    assert result.columns["brightness (ink)"]["status"] == "FAIL"
    assert result.columns["contrast (ink)"]["status"] == "SUCCESS"
    assert result.threshold == pytest.approx(0.005 / len(result.columns))
    assert pages[0] == pages[1]
    assert "alert(1)" not in pages[0]
    assert "<script src=" not in pages[0]
    assert "which decide" in pages[0]


def test_columns_are_bounded_and_named_only_for_known_slices() -> None:
    many = {f"s{number:02d}": 5 + number for number in range(30)}
    columns = columns_of(items_of(many, 0), items_of(many | {"new": 50}, 1))
    assert len(columns) == MAX_COLUMNS
    assert "brightness (s29)" in columns
    assert not any("(new)" in name for name in columns)


def test_nothing_known_makes_a_page_too(tmp_path: Path) -> None:
    batch = items_of({"neon": 20}, 1)
    evidence = Evidence(gather(batch.take([]), batch, batch, seed=0))
    figures = drift_figures(evidence, decide(evidence, Drift()), Drift())
    result = write_evidently_report(tmp_path / "a.html", batch.take([]), batch, figures["slices"], 0.005)
    assert (result.columns, result.errors) == ({}, ())


def test_an_error_inside_evidently_is_recorded(
    night: tuple[Items, Items, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such metric")

    monkeypatch.setattr(evidently_report, "_run", broken)
    result = write_evidently_report(tmp_path / "a.html", night[0], night[1], night[2]["slices"], 0.005)
    assert result.errors == ("RuntimeError: no such metric",)
    assert "failed" in (tmp_path / "a.html").read_text()


def test_names_are_made_safe_and_identifiers_stable() -> None:
    assert "<" not in safe(HOSTILE)
    uuid = "01890a5d-ac96-774b-bcce-b302099a8057"
    assert stable(f"{uuid} x {uuid}") == "retain_0 x retain_0"
