"""A run's branch as somebody hostile leaves it: what is trusted says one sentence at once, and main stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.errors import RetainError
from cl_steps.repository.git import git
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from cl_steps.repository.run_branch import read_run
from cl_steps.steps import promote
from tests.lines.cheap import put_run
from tests.lines.small import GOOD, make_workspace
from tests.test_documents import BOMB

FILES: dict[str, str] = {
    "run.yaml": f"id: r-1\nset:\n  a: 1\n{BOMB}",
    "dvc.lock": f"stages:\n  x: &x {{outs: []}}\n{BOMB}",
    "dvc.yaml": BOMB,
    "params.yaml": BOMB,
    "reports/gate.json": "[" * 100_000,
    "reports/ingest.json": '{"schema": 1, "step": "ingest", "figures": NaN}',
    "reports/times.json": '{"update": {"seconds": 1, "gpu_seconds": -5}}',
}


@pytest.mark.parametrize("name", FILES)
def test_a_bomb_holds_nobody(tmp_path: Path, name: str) -> None:
    line = make_workspace(tmp_path / "line")
    put_run(line, "r-1", GOOD)
    spoil(line, name)
    with reading(line.git) as main:
        before = main.tip
    with pytest.raises(RetainError) as caught:
        promote.run(line, "r-1")
    assert 0 < len(str(caught.value)) < 500
    if name not in ("dvc.yaml", "params.yaml"):
        with pytest.raises(RetainError):
            read_run(line, "r-1")
    with reading(line.git) as main:
        assert main.tip == before


def spoil(line: Line, name: str) -> None:
    with reading(line.git) as main:
        git(main.folder, "fetch", "-q", line.git, "+refs/heads/runs/*:refs/heads/runs/*")
        commit = main.commit(Change({name: FILES[name].encode()}, "x"), parent="refs/heads/runs/r-1")
        git(main.folder, "push", "-q", line.git, f"{commit}:refs/heads/runs/r-1")
