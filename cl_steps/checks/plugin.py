"""What a check is given: the fixtures `evaluation` and `params`.

A file `checks/test_*.py` of a workspace may hold

    def test_neon_stays_recognisable(evaluation):
        assert evaluation.mean("neon-ink", "fidelity") > 0.7

This module is loaded inside the closed room; `RETAIN_CHECK_INPUTS` names the folder with copies of what is decided on.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest

from cl_steps.checks.sandbox import INPUTS
from cl_steps.config import Params
from cl_steps.stats.decision import Check, Decision, decide
from cl_steps.stats.figures import Figures, read_figures


class Evaluation:
    """The figures of tonight's evaluation and the decision on them, for checks to read.

    Models are "champion", "candidate" and (where a slice's anchor is another version) "anchor"; metrics "loss" (lower
    is better), "fidelity" and "cosine" (higher is better).
    """

    def __init__(self, figures: Figures, decision: Decision) -> None:
        self.figures = figures
        self.slices: tuple[str, ...] = figures.plan.slices
        self.new_slices: tuple[str, ...] = figures.plan.new_slices
        self.checks: tuple[Check, ...] = decision.checks

    def mean(self, slice_name: str, metric: str, model: str = "candidate") -> float:
        """A model's mean of a metric in a slice; raises KeyError where it was not measured."""
        value = self.figures.mean(model, slice_name, metric)
        if value is None:
            raise KeyError(f"{metric} of the {model} was not measured in {slice_name}")
        return value

    def values(self, slice_name: str, metric: str, model: str = "candidate") -> dict[str, float]:
        """A model's value for each held-out image or prompt; raises KeyError where it was not measured."""
        return dict(self.figures.items[model, slice_name, metric])

    def change(self, slice_name: str, metric: str) -> float:
        """Candidate minus champion, in the mean; raises KeyError where it was not measured."""
        return self.mean(slice_name, metric) - self.mean(slice_name, metric, "champion")


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    """Tonight's figures."""
    return _evaluation()


@pytest.fixture(scope="session")
def params() -> Params:
    """The parameters of the run."""
    return _params()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a check, for every test that asks for `check`."""
    if "check" in metafunc.fixturenames:
        checks = _evaluation().checks
        names = [f"{check.slice}-{check.metric}-{check.against}" for check in checks]
        metafunc.parametrize("check", checks, ids=names)


class BreakWatch:
    """What was broken off has not passed, be it with `pytest.exit(returncode=0)`."""

    def __init__(self) -> None:
        self.broken_off = False

    def pytest_keyboard_interrupt(self) -> None:
        """A check ended the session."""
        self.broken_off = True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Say so in the exit code, whatever the check asked for."""
        if self.broken_off:
            session.exitstatus = pytest.ExitCode.INTERRUPTED


def pytest_configure(config: pytest.Config) -> None:
    """Watch for sessions that are broken off."""
    config.pluginmanager.register(BreakWatch())


@cache
def _evaluation() -> Evaluation:
    figures = read_figures(_inputs() / "figures")
    return Evaluation(figures, decide(figures, _params()))


@cache
def _params() -> Params:
    document = json.loads((_inputs() / "params.json").read_text(encoding="utf-8"))
    return Params.model_validate(document, strict=False)


def _inputs() -> Path:
    return Path(os.environ[INPUTS])
