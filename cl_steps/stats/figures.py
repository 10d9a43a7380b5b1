"""The figures that a decision rests on, a value a (model, slice, metric, unit), and their folder.

    items.parquet     model, slice, metric, unit, value: loss (unit: an image), fidelity and cosine (unit: a prompt)
    samples.parquet   model, slice, unit, draw, features: of every sample
    real.parquet      slice, unit, prompt, features: of the held-out images; `prompt` is the unit of its caption
    plan.json         what was to be measured, and of which models

Models are "champion", "candidate" and "anchor". Higher is better except for the loss.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cl_steps.errors import IntegrityError

Floats = NDArray[np.float64]
Key = tuple[str, str, str]

MODELS = ("champion", "candidate", "anchor")
_ITEMS = pa.schema([(name, pa.string()) for name in ("model", "slice", "metric", "unit")] + [("value", pa.float64())])
_FEATURES = ("features", pa.list_(pa.float32()))
_SAMPLES = pa.schema([(name, pa.string()) for name in ("model", "slice", "unit")] + [("draw", pa.int32()), _FEATURES])
_REAL = pa.schema([(name, pa.string()) for name in ("slice", "unit", "prompt")] + [_FEATURES])


@dataclass(frozen=True)
class Plan:
    """What was to be measured: nothing that is asked here may be missing when a decision is taken.

    `slices` are the known ones, `new_slices` those the champion never learnt; `anchors` name, for each known slice,
    the adapter it was learnt with; `left_out` says why a slice has no figures of a metric.
    """

    slices: tuple[str, ...]
    new_slices: tuple[str, ...]
    champion: str
    candidate: str
    anchors: Mapping[str, str]
    looks: tuple[int, ...]
    look: int
    seed_plan: int
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def measures(self, slice_name: str, metric: str) -> bool:
        """Whether the metric was to be measured in the slice."""
        return metric not in self.left_out.get(slice_name, {})


@dataclass(frozen=True)
class Samples:
    """Features of a model's samples in a slice: `units` n prompts, `features` (n, s draws, d)."""

    units: tuple[str, ...]
    features: Floats


@dataclass(frozen=True)
class HeldOutFeatures:
    """A slice's m held-out images: `units` their names, `prompts` the units of their captions, features (m, d)."""

    units: tuple[str, ...]
    prompts: tuple[str, ...]
    features: Floats

    def own(self, units: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which of these images have the caption of which unit of samples: (n, m)."""
        same: NDArray[np.bool_] = np.array(units)[:, None] == np.array(self.prompts)[None, :]
        return same


@dataclass(frozen=True)
class Figures:
    """All figures of one evaluation: `items[model, slice, metric][unit]`, `samples[model, slice]`, `real[slice]`."""

    plan: Plan
    items: Mapping[Key, Mapping[str, float]]
    samples: Mapping[tuple[str, str], Samples]
    real: Mapping[str, HeldOutFeatures]

    def paired(self, one: str, other: str, slice_name: str, metric: str) -> tuple[Floats, Floats] | None:
        """Two models' values for the same units, in one order, (n,) each; None where they are not the same units."""
        left, right = (self.items.get((model, slice_name, metric), {}) for model in (one, other))
        if not left or left.keys() != right.keys():
            return None
        units = sorted(left)
        return np.array([left[unit] for unit in units]), np.array([right[unit] for unit in units])

    def mean(self, model: str, slice_name: str, metric: str) -> float | None:
        """A model's mean of an item metric in a slice; None where it was not measured."""
        values = self.items.get((model, slice_name, metric))
        return float(np.mean(list(values.values()))) if values else None


def write_figures(folder: Path, figures: Figures) -> None:
    """Write the folder, rows sorted."""
    items = [(*key, unit, value) for key, values in figures.items.items() for unit, value in values.items()]
    samples = [
        (model, name, unit, draw, features)
        for (model, name), block in figures.samples.items()
        for unit, draws in zip(block.units, block.features, strict=True)
        for draw, features in enumerate(draws)
    ]
    real = [
        (name, *row)
        for name, block in figures.real.items()
        for row in zip(block.units, block.prompts, block.features, strict=True)
    ]
    _write(folder / "items.parquet", items, _ITEMS)
    _write(folder / "samples.parquet", samples, _SAMPLES)
    _write(folder / "real.parquet", real, _REAL)
    (folder / "plan.json").write_text(json.dumps(asdict(figures.plan), indent=1, sort_keys=True) + "\n")


def read_figures(folder: Path) -> Figures:
    """The figures in a folder.

    Raises:
        IntegrityError: a file is missing or not what it should be.
    """
    try:
        plan = _plan(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
        items: dict[Key, dict[str, float]] = {}
        for model, name, metric, unit, value in zip(*_columns(folder / "items.parquet", _ITEMS), strict=True):
            items.setdefault((model, name, metric), {})[unit] = value
        return Figures(plan, items, _read_samples(folder), _read_real(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise IntegrityError(f"the figures in {folder} cannot be read ({error}): run evaluate again") from error


def _plan(document: dict[str, Any]) -> Plan:
    return Plan(**document | {name: tuple(document[name]) for name in ("slices", "new_slices", "looks")})


def _read_samples(folder: Path) -> dict[tuple[str, str], Samples]:
    found: dict[tuple[str, str], dict[str, list[Floats]]] = {}
    for model, name, unit, _, features in zip(*_columns(folder / "samples.parquet", _SAMPLES), strict=True):
        found.setdefault((model, name), {}).setdefault(unit, []).append(features)
    return {
        key: Samples(tuple(sorted(units)), np.array([units[unit] for unit in sorted(units)]))
        for key, units in found.items()
    }


def _read_real(folder: Path) -> dict[str, HeldOutFeatures]:
    found: dict[str, list[tuple[str, str, Floats]]] = {}
    for name, *row in zip(*_columns(folder / "real.parquet", _REAL), strict=True):
        found.setdefault(name, []).append((row[0], row[1], row[2]))
    blocks = {name: tuple(zip(*rows, strict=True)) for name, rows in found.items()}
    return {name: HeldOutFeatures(units, prompts, np.array(rows)) for name, (units, prompts, rows) in blocks.items()}


def _columns(path: Path, schema: pa.Schema) -> list[list[Any]]:
    table = pq.ParquetFile(path).read().select(schema.names).cast(schema)
    return [_values(table[name].combine_chunks()) for name in schema.names]


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values; lists of numbers as rows of one array, all of one length."""
    if not pa.types.is_list(column.type):
        return list(column.to_pylist())
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return list(flat.reshape(len(column), -1)) if len(column) else []


def _write(path: Path, rows: list[tuple[Any, ...]], schema: pa.Schema) -> None:
    rows = sorted(rows, key=lambda row: row[: len(schema) - 1])
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [_array(list(column), kind.type) for column, kind in zip(columns, schema, strict=True)]
    pq.write_table(pa.table(arrays, schema=schema), path, compression="zstd", version="2.6")


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    flat = np.asarray(values, dtype=np.float32)
    width = flat.shape[1] if len(values) else 0
    offsets = pa.array(np.arange(len(values) + 1) * width, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(flat.reshape(-1), pa.float32()))
