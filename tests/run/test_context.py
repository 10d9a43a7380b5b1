"""What a step is given, and what it says of itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cl_steps
from cl_steps.run.context import code_digest


def test_the_code_is_the_same_where_it_is_installed(tmp_path: Path) -> None:
    """An installed package holds Airflow's DAG files too, and the templates of a workspace."""
    package = tmp_path / "cl_steps"
    shutil.copytree(Path(cl_steps.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "demo"))
    shutil.copytree(Path(cl_steps.__file__).parent / "demo", package / "demo", ignore=shutil.ignore_patterns("*.safe*"))
    found = [_digest(tmp_path)]
    (package / "orchestration/dag_files").mkdir()
    (package / "orchestration/dag_files/lines.py").write_text("build = 1\n", encoding="utf-8")
    found.append(_digest(tmp_path))
    (package / "steps/update.py").write_text("", encoding="utf-8")
    found.append(_digest(tmp_path))
    assert found[:2] == [code_digest()] * 2
    assert found[2] != found[1]


def _digest(root: Path) -> str:
    code = "from cl_steps.run.context import code_digest; print(code_digest())"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
