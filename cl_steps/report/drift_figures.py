"""The figures of the drift step, as JSON: what the report holds, and the series that the page draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_steps.config import Drift
from cl_steps.stats.drift_evidence import Evidence, SliceEvidence
from cl_steps.stats.drift_verdict import Verdict, floor_of
from cl_steps.stats.items import Items
from cl_steps.stats.properties import PROPERTIES
from cl_steps.stats.sequential import spent_at
from cl_steps.stats.two_sample import Comparison

NUM_BINS = 24


def drift_figures(evidence: Evidence, verdict: Verdict, knobs: Drift) -> dict[str, Any]:
    """The figures of `reports/drift.json`, with the thresholds that were applied."""
    slices = {own.name: _of_slice(own, verdict, knobs) for own in evidence.slices}
    return {
        "slices": slices,
        "agreement": {own.name: _asdict(own.agreement) for own in evidence.slices if own.agreement},
        "specificity": {own.name: _asdict(own.specificity) for own in evidence.slices if own.specificity},
        "alarms": list(verdict.alarms),
        "quarantine": {"new": evidence.num_new, "quarantined": evidence.num_quarantined},
        "tests": verdict.tests,
        "look": evidence.look,
        "levels": {
            "tonight": knobs.level / 2,
            "pending": spent_at(evidence.look, knobs.level / 2),
            "alarm": knobs.alarm_level,
        },
        "forced": evidence.forced or None,
        "approved": evidence.approved or None,
    }


def _of_slice(own: SliceEvidence, verdict: Verdict, knobs: Drift) -> dict[str, Any]:
    """One slice; its headline `auc` and `p_value` are those of the clearer of the two tests."""
    made = [comparison for comparison in (own.tonight, own.pending) if comparison]
    clearest = min(made, key=lambda comparison: (comparison.p_value, -comparison.auc), default=None)
    return {
        "auc": clearest.auc if clearest else (own.nearest.auc if own.nearest else None),
        "p_value": clearest.p_value if clearest else None,
        "new": own.is_new,
        "drifted": own.name in verdict.drifted or own.name in verdict.new,
        "items": {"reference": own.num_reference, "tonight": own.num_tonight, "pending": own.num_pending},
        "tonight": _comparison(own.tonight, knobs),
        "pending": _comparison(own.pending, knobs),
        "misfits": _asdict(own.misfits),
        "outlandish": _asdict(own.outlandish),
        "nearest": _asdict(own.nearest),
    }


def _comparison(comparison: Comparison | None, knobs: Drift) -> dict[str, float] | None:
    return None if comparison is None else asdict(comparison) | {"floor": floor_of(comparison, knobs)}


def _asdict(value: Any) -> dict[str, float] | None:
    return None if value is None else asdict(value)


def drift_plots(reference: Items, batch: Items) -> dict[str, Any]:
    """`plots.json`: for each slice of the batch and each measure, histograms (in shares) over common bins."""
    return {"slices": {name: _histograms(reference.of_slice(name), batch.of_slice(name)) for name in batch.names}}


def _histograms(known: Items, new: Items) -> dict[str, Any]:
    columns = {name: (known.property_of(name), new.property_of(name)) for name in PROPERTIES}
    columns["agreement"] = known.agreement.astype(np.float64), new.agreement.astype(np.float64)
    columns["specificity"] = known.specificity.astype(np.float64), new.specificity.astype(np.float64)
    return {name: found for name, (old, now) in columns.items() if (found := histogram(old, now))}


def histogram(known: NDArray[np.float64], new: NDArray[np.float64]) -> Mapping[str, list[float]] | None:
    """Shares of both in `NUM_BINS` common bins; None where nothing was measured."""
    known, new = known[~np.isnan(known)], new[~np.isnan(new)]
    if not len(known) + len(new):
        return None
    edges = np.histogram_bin_edges(np.concatenate([known, new]), bins=NUM_BINS)
    shares = [np.histogram(part, edges)[0] / max(1, len(part)) for part in (known, new)]
    return {"edges": _rounded(edges), "reference": _rounded(shares[0]), "batch": _rounded(shares[1])}


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
