"""Made-up figures of one evaluation, for tests of what is decided on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cl_steps.stats.figures import Figures, Floats, HeldOutFeatures, Plan, Samples

UNITS = 48
KNOWN = ("black-ink", "blue-ink")
Amounts = Mapping[str, float]


def night(
    *,
    new: tuple[str, ...] = (),
    loss: Amounts | None = None,
    fidelity: Amounts | None = None,
    shift: Amounts | None = None,
    shrink: Amounts | None = None,
    anchor_fidelity: Amounts | None = None,
    no_fidelity: bool = False,
    noise: float = 0.0,
    units: int = UNITS,
    looks: tuple[int, ...] = (48, 96),
    seed: int = 0,
) -> Figures:
    """A candidate that is the champion but for what is named: a factor on the loss, a change of fidelity (with a
    little noise), a shift or shrinking of its samples' features; `noise` on everything."""
    rng = np.random.default_rng(seed)
    items: dict[tuple[str, str, str], dict[str, float]] = {}
    samples, real = {}, {}
    anchors = dict.fromkeys(KNOWN, "champion") | dict.fromkeys(anchor_fidelity or {}, "other")
    for name in (*KNOWN, *new):
        factor, change = (loss or {}).get(name, 1.0), (fidelity or {}).get(name, 0.0)
        losses, fits = rng.gamma(5, 0.05, units), rng.normal(0.9, 0.1, units)
        jitter = (max(noise, 0.02 if change else 0.0) * rng.normal(size=units)) if noise or change else 0.0
        champion = rng.normal(size=(units, 1, 6))
        moved = champion * (shrink or {}).get(name, 1.0) + (shift or {}).get(name, 0.0)
        moved = moved + noise * rng.normal(size=moved.shape)
        models = {
            "champion": (losses, fits, champion),
            "candidate": (losses * factor * (1 + 0.1 * noise * rng.normal(size=units)), fits + change + jitter, moved),
        }
        if name in (anchor_fidelity or {}):
            models["anchor"] = (losses, fits + (anchor_fidelity or {})[name], champion)
        for model, (loss_values, fit_values, features) in models.items():
            items[model, name, "loss"] = _by_unit(loss_values)
            if not no_fidelity:
                items[model, name, "fidelity"] = _by_unit(fit_values)
            samples[model, name] = Samples(tuple(_units(units)), features.astype(np.float32).astype(np.float64))
        features = rng.normal(size=(units, 6)).astype(np.float32).astype(np.float64)
        real[name] = HeldOutFeatures(
            tuple(f"image-{number:04d}" for number in range(units)), tuple(_units(units)), features
        )
    left_out = {name: {"fidelity": "the extractor reads no text"} for name in (*KNOWN, *new)} if no_fidelity else {}
    plan = Plan(KNOWN, new, "champion", "candidate", anchors, looks, 1, 3, left_out)
    return Figures(plan, items, samples, real)


def _units(count: int) -> list[str]:
    return [f"unit-{number:04d}" for number in range(count)]


def _by_unit(values: Floats) -> dict[str, float]:
    return dict(zip(_units(len(values)), map(float, values), strict=True))
