"""`retain --version`: what pyproject.toml says, which the changelog, the chart and its images say too."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from cl_steps import version as versions
from cl_steps.__main__ import main

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_it_says_the_version_and_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"retain {VERSION}\n"


def test_nothing_heavy_is_imported_for_it() -> None:
    code = "import sys, cl_steps.__main__ as m\ntry: m.main(['--version'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'dvc', 'pydantic', 'yaml') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"retain {VERSION}\n[]\n"


def test_without_a_source_tree_it_is_what_was_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(versions, "PYPROJECT", tmp_path / "pyproject.toml")
    assert versions.version() == metadata.version("retain")


def test_the_changelog_begins_with_it_and_the_chart_is_of_it() -> None:
    changes = (ROOT / ".github" / "CHANGELOG.md").read_text()
    assert changes.index(f"\n## {VERSION}\n") == changes.index("\n## ")
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == VERSION
