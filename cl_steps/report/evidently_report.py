"""Evidently's page of the night: image properties and agreement, per slice, with our own figures on top.

Evidently does not decide anything. Methods, thresholds and columns are pinned, because its defaults change with the
number of rows and it tests columns that nobody named. Its page is self-contained; nothing is sent anywhere. Its random
identifiers are replaced, so that the same night gives the same bytes.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_steps.documents import Json
from cl_steps.stats.items import Items
from cl_steps.stats.properties import PROPERTIES

if TYPE_CHECKING:
    import pandas as pd

METHOD = "ks"
MEASURES = ("agreement", "specificity", *PROPERTIES)
MAX_COLUMNS = 36
"""Each column costs about 0.1 s and 12 kB: the largest slices come first, the others are in `plots.json` alone."""
MIN_ROWS = 2
ALL_SLICES = "all"
HEADER = ("slice", "state", "AUC", "p-value", "reference items", "new items")

_SAFE = re.compile(r"[^\w .:+-]")
_IDENTIFIER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|metric_[0-9a-f]{32}")


@dataclass(frozen=True)
class EvidentlyResult:
    """What Evidently said of each column (score, status), and the errors it met; recorded, never deciding."""

    method: str = METHOD
    threshold: float = 0.0
    columns: Mapping[str, Json] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


def write_evidently_report(
    path: Path, reference: Items, batch: Items, slices: Mapping[str, Json], level: float
) -> EvidentlyResult:
    """Write `evidently.html` of the batch against the reference of the same slices.

    Args:
        path: the page.
        reference: what is known.
        batch: what is pending.
        slices: our own figures, by slice.
        level: the level of all columns together; each gets its share.

    An error inside Evidently is returned in `errors`, and the page says so; it is not raised, since the verdict does
    not rest on it.
    """
    columns = columns_of(reference, batch)
    threshold = level / max(1, len(columns))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its imports warn of is not about this night
            html, found = _run(columns, our_rows(slices), threshold)
    except Exception as error:  # recorded in the report and on the page
        text = f"{type(error).__name__}: {error}"
        path.write_text("<!DOCTYPE html><title>Evidently</title><p>Evidently failed; see reports/drift.json", "utf-8")
        return EvidentlyResult(threshold=threshold, errors=(text,))
    path.write_text(stable(html), encoding="utf-8")
    errors = tuple(name for name, result in sorted(found.items()) if result["status"] not in ("SUCCESS", "FAIL"))
    return EvidentlyResult(threshold=threshold, columns=found, errors=errors)


def columns_of(reference: Items, batch: Items) -> dict[str, tuple[Any, Any]]:
    """Name -> (reference's values, batch's values): for all known slices together, and for each, the largest first."""
    known = [name for name in batch.names if len(reference.of_slice(name)) >= MIN_ROWS]
    known.sort(key=lambda name: (-len(batch.of_slice(name)), name))
    places = [at for at, name in enumerate(batch.slices) if name in known]
    groups = {ALL_SLICES: (_of_slices(reference, known), batch.take(places))}
    groups |= {safe(name): (reference.of_slice(name), batch.of_slice(name)) for name in known}
    columns = {}
    for group, (old, new) in groups.items():
        for measure in MEASURES:
            pair = _measured(old, measure), _measured(new, measure)
            if min(map(len, pair)) >= MIN_ROWS:
                columns[f"{measure} ({group})"] = pair
    return dict(list(columns.items())[:MAX_COLUMNS])


def our_rows(slices: Mapping[str, Json]) -> list[list[str]]:
    """The table of our own figures: `HEADER`."""
    rows = []
    for name, figures in sorted(slices.items()):
        state = "new" if figures["new"] else "drifted" if figures["drifted"] else "as known"
        auc, p_value = ("-" if value is None else f"{value:.3g}" for value in (figures["auc"], figures["p_value"]))
        items = figures["items"]
        rows.append([safe(name), state, auc, p_value, str(items["reference"]), str(items["pending"])])
    return rows


def safe(name: str) -> str:
    """A slice's name for Evidently, which puts labels into a script unescaped: letters, digits and ` .:+-_` alone."""
    return _SAFE.sub("?", name)


def stable(html: str) -> str:
    """The page with Evidently's random identifiers numbered in the order in which they occur."""
    numbers: dict[str, str] = {}
    return _IDENTIFIER.sub(lambda match: numbers.setdefault(match.group(), f"retain_{len(numbers)}"), html)


def _of_slices(items: Items, names: Sequence[str]) -> Items:
    return items.take([at for at, name in enumerate(items.slices) if name in names])


def _measured(items: Items, measure: str) -> Any:
    values = getattr(items, measure) if measure in ("agreement", "specificity") else items.property_of(measure)
    return values[values == values]  # noqa: PLR0124 - NaN: not measured


def _run(
    columns: Mapping[str, tuple[Any, Any]], rows: list[list[str]], threshold: float
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Evidently's page, and its score and status of each column."""
    os.environ["DO_NOT_TRACK"] = "1"  # before the import: it decides then
    from evidently import DataDefinition, Dataset, Report
    from evidently.core.container import MetricContainer
    from evidently.legacy.renderers.html_widgets import table_data
    from evidently.metrics import ValueDrift

    class OurFigures(MetricContainer):  # type: ignore[misc]
        """A table of our own, through Evidently's interface for groups of metrics."""

        def generate_metrics(self, context: Any) -> list[Any]:  # noqa: ARG002 - Evidently's signature
            return []

        def render(self, context: Any, child_widgets: Any = None) -> list[Any]:  # noqa: ARG002 - as above
            return [table_data(title="Retain's own tests, which decide", column_names=HEADER, data=rows)]

    definition = DataDefinition(numerical_columns=list(columns), categorical_columns=[])
    old, new = (Dataset.from_pandas(_frame(columns, side), data_definition=definition) for side in (0, 1))
    metrics = [ValueDrift(column=name, method=METHOD, threshold=threshold) for name in columns]
    snapshot = Report([OurFigures(include_tests=False), *metrics], include_tests=True).run(new, old)
    return snapshot.get_html_str(as_iframe=False), _found(snapshot.dict())


def _frame(columns: Mapping[str, tuple[Any, Any]], side: int) -> pd.DataFrame:
    """The values of one side; columns of different lengths are filled with NaN, which Evidently leaves out."""
    import pandas as pd

    return pd.DataFrame({name: pd.Series(pair[side], dtype="float64") for name, pair in columns.items()})


def _found(document: Json) -> dict[str, dict[str, Any]]:
    scores = {metric["config"]["column"]: float(metric["value"]) for metric in document["metrics"]}
    statuses = {
        test["metric_config"]["params"]["column"]: str(getattr(test["status"], "value", test["status"]))
        for test in document["tests"]
    }
    return {
        name: {"score": score if math.isfinite(score) else None, "status": statuses.get(name, "MISSING")}
        for name, score in scores.items()
    }
