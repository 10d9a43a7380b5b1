"""An Airflow of this session's own, and a tiny line whose steps are stubs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_steps.config import RunSpec
from cl_steps.orchestration.play import Player, configure
from cl_steps.repository.git import git
from cl_steps.repository.line import Line, local
from tests.dags.stub import StubChild
from tests.lasting import whole_champion

HOME = Path(tempfile.mkdtemp(prefix="retain-airflow-"))
LINES = HOME / "lines.yaml"
WORKSPACE = HOME / "tiny"
ENTRY = {"name": "tiny", "workspace": str(WORKSPACE), "retry_seconds": 0, "page": False}
LINES.write_text(yaml.safe_dump({"lines": [ENTRY]}), encoding="utf-8")
# Airflow reads its settings when it is first imported.
configure(HOME, LINES)


@pytest.fixture(scope="session")
def player() -> Iterator[Player]:
    """The tiny line's DAG and a fresh Airflow database; gone afterwards."""
    yield Player.open(HOME, LINES, "tiny", Silent())
    shutil.rmtree(HOME, ignore_errors=True)


class Silent:
    """Watches and says nothing."""

    def began(self, task: str) -> None:
        """Nothing."""

    said = began

    def ended(self, task: str, state: str) -> None:
        """Nothing."""


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write down what the steps of a fresh tiny line shall find; returns the line."""
    from cl_steps.orchestration import runners

    monkeypatch.setattr(runners, "Child", StubChild)

    def prepare(**verdicts: Any) -> Line:
        """Verdicts, or `{"codes": [...]}`, by step."""
        shutil.rmtree(WORKSPACE, ignore_errors=True)
        (WORKSPACE / "landing").mkdir(parents=True)
        (WORKSPACE / "scenario.json").write_text(json.dumps(verdicts), encoding="utf-8")
        return make_line(WORKSPACE)

    return prepare


def make_line(folder: Path) -> Line:
    """A line with a main of a few files, and nothing under DVC."""
    line = local(folder)
    line.save(folder)
    draft = folder / "draft"
    draft.mkdir()
    git(None, "init", "-q", "--bare", "-b", "main", line.git)
    git(None, "init", "-q", "-b", "main", str(draft))
    (draft / "params.yaml").write_text("format: 1\n", encoding="utf-8")
    (draft / "run.yaml").write_text(yaml.safe_dump(RunSpec().model_dump()), encoding="utf-8")
    (draft / "state").mkdir()
    (draft / "state" / "champion.json").write_text(json.dumps(whole_champion("v1")), encoding="utf-8")
    git(draft, "add", "--all")
    git(draft, "commit", "-q", "-m", "begin")
    git(draft, "push", "-q", line.git, "main")
    shutil.rmtree(draft)
    return line
