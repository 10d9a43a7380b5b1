"""The plots: what is in them, in which colours, and that labels stay labels."""

from __future__ import annotations

import itertools
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from cl_steps.report.histograms import histograms_plot, panels
from cl_steps.report.overview import Night, Overview
from cl_steps.report.plots import drift_plot, forgetting_plot, forgotten, gate_plot, measured, short, spread
from tests.report.fabricate import CHALK, NEON, OLD, RUNS, gate_check, report


def words(svg: object) -> set[str]:
    """The texts of a plot."""
    root = ElementTree.fromstring(str(svg))  # noqa: S314 - our own
    return {"".join(element.itertext()).strip() for element in root.iter("text")}


def gate_night(*checks: dict[str, object]) -> Night:
    """A night whose gate made these checks."""
    return Night({"run": "2026-11-09-x"}, {"gate": report("r", "gate", "promote", "", {"checks": list(checks)})})


def test_drift_names_the_slices_and_their_aucs(overview: Overview) -> None:
    found = words(drift_plot(overview.nights[3]))
    assert {"black-ink · pictures", "black-ink · captions, agreement", "0.93 · p < 0.0001"} <= found


def test_what_was_forgotten_is_said_of_versions_alone(overview: Overview) -> None:
    old = [step.values for step in measured(overview) if step.kept]
    assert len(old) == 3, "v1, v2, v3"
    known = {name: [values[name]["fidelity"] for values in old if name in values] for name in {*old[0], *old[1]}}
    lost = [max(scores[:-1]) - scores[-1] for scores in known.values() if len(scores) > 1]
    assert f"{-sum(lost) / len(lost):+.3f} against each one's best" in forgotten(overview)


def test_nothing_old_is_forgotten_in_one_night() -> None:
    assert forgotten(Overview("line", "v1", (), ())) == ""


def test_forgetting_names_slices_and_versions(overview: Overview) -> None:
    assert {*OLD, NEON, CHALK, "v1", "v2", "v3", "night 5"} <= words(forgetting_plot(overview))


def test_scores_are_relative_to_the_anchor_and_new_slices_begin_where_they_were_learnt(overview: Overview) -> None:
    first, second, third, rejected = measured(overview)
    assert (first.label, set(first.values)) == ("v1", set(OLD))
    assert first.values["black-ink"]["loss"] == 0
    assert second.values["black-ink"]["loss"] == pytest.approx(0.008)
    assert second.values[NEON] == {"fidelity": 0.87, "loss": 0}
    assert (third.kept, rejected.kept) == (True, False)
    assert rejected.values["black-ink"]["loss"] == pytest.approx(0.166)


def test_the_gate_names_every_check(overview: Overview) -> None:
    found = words(gate_plot(overview.nights[2]))
    assert {"black-ink · loss", "neon-ink · fidelity since its anchor", f"{CHALK} · fidelity", "asked for"} <= found


@pytest.mark.parametrize(("estimate", "colour"), [(0.0, "good"), (0.5, "bad"), (0.05, "warn")])
def test_the_gates_colour_is_the_verdict(estimate: float, colour: str) -> None:
    svg = str(gate_plot(gate_night(gate_check("ink", "loss", estimate, 0.02, 0.05))))
    line_colours = {c for c in ("good", "warn", "bad") if f"stroke: var(--{c})" in svg}
    assert line_colours == {colour}


def test_unknown_bounds_are_drawn_and_do_not_fail() -> None:
    check = gate_check("ink", "loss", 0.0, 0.01, 0.05) | {"estimate": None, "lower": None, "upper": None}
    assert "ink · loss" in words(gate_plot(gate_night(check)))


def test_a_plot_is_the_same_bytes_each_time_and_takes_its_colours_from_the_page(overview: Overview) -> None:
    night = overview.nights[2]
    for plot in (drift_plot, gate_plot, histograms_plot):
        once = str(plot(night))
        assert once == str(plot(night))
        assert "var(--ink)" in once
        assert "#0000" not in once


def test_hostile_labels_stay_labels() -> None:
    name = "<script>$\\frac$</script>\u202e名前"
    svg = gate_plot(gate_night(gate_check(name, "loss", 0.0, 0.01, 0.05)))
    assert any("<script>$\\frac$" in word for word in words(svg))
    assert "<script" not in str(svg)


def test_nothing_measured_is_no_plot() -> None:
    night = Night({"run": "r"})
    assert drift_plot(night) is gate_plot(night) is histograms_plot(night) is None
    assert forgetting_plot(Overview("line", "v1", (), (night,))) is None


def test_histograms_show_what_moved_most_first(overview: Overview) -> None:
    moved = [panel.moved for panel in panels(overview.nights[3])]
    assert max(moved) > 0.5
    assert panels(overview.nights[0]) == []
    assert "black-ink · specificity" in words(histograms_plot(overview.nights[3]))


def test_broken_series_are_no_plot(overview: Overview) -> None:
    night = overview.nights[3]
    for content in (b"{", b"[]", b'{"slices": {"a": {"b": {"edges": [0], "reference": 1, "batch": "x"}}}}'):
        broken = replace(night, pictures=replace(night.pictures, drift={"plots.json": content}))
        assert histograms_plot(broken) is None


def test_spread_keeps_order_and_gaps_and_moves_as_little_as_possible() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        places = sorted(rng.random(4).tolist())
        found = spread(places, 0.2)
        assert all(b - a >= 0.2 - 1e-9 for a, b in itertools.pairwise(found))
        cost = sum((a - b) ** 2 for a, b in zip(places, found, strict=True))
        for _ in range(200):  # no feasible neighbour is cheaper
            other = np.array(found) + rng.normal(0, 0.02, 4)
            if np.all(np.diff(other) >= 0.2):
                assert ((other - places) ** 2).sum() >= cost - 1e-9


def test_long_names_are_cut() -> None:
    assert short("a" * 40) == "a" * 25 + "…"
    assert RUNS[0] == short(RUNS[0])
