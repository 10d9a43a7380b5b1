"""The README cannot rot: it names every command, step, outcome and exit code, and its links lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cl_steps.__main__ import COMMANDS
from cl_steps.errors import RetainError
from cl_steps.pipeline import Outcome

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_is_shown(name: str) -> None:
    assert f"retain {name}" in README


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_is_explained(outcome: str) -> None:
    assert f"`{outcome}`" in README


def test_every_exit_code_is_explained() -> None:
    codes = {kind.exit_code for kind in all_errors(RetainError)}
    table = README[README.index("| exit code") : README.index("## How it works")]
    assert codes <= {int(code) for code in re.findall(r"\b\d+\b", table)}


def test_the_first_screen_has_the_picture_and_both_commands() -> None:
    first = "\n".join(README.splitlines()[:40])
    assert all(words in first for words in ("make demo", "make test", "!["))


PAGES = [ROOT / "README.md", ROOT / "dags" / "README.md", *sorted((ROOT / ".github").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_tree_names_every_part() -> None:
    tree = README[README.index("## The tree") :]
    parts = [path for path in (ROOT / "cl_steps").iterdir() if path.name[0] not in "_." and path.name != "template"]
    assert [path.name for path in parts if path.name not in tree] == []


def test_every_folder_says_its_question_and_its_ways_in() -> None:
    folders = [path for path in (ROOT / "cl_steps").rglob("__init__.py") if "template" not in path.parts]
    sentences = {str(path.parent): ast.get_docstring(ast.parse(path.read_text())) or "" for path in folders}
    assert [name for name, text in sentences.items() if len(re.findall(r"[.?](\s|$)", text)) < 2] == []


def test_help_imports_nothing_heavy() -> None:
    heavy = "[name for name in ('torch', 'dvc', 'pydantic', 'yaml') if name in sys.modules]"
    code = f"import sys, cl_steps.__main__ as m; m._parser(); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def all_errors(kind: type[RetainError]) -> set[type[RetainError]]:
    return {kind}.union(*(all_errors(child) for child in kind.__subclasses__()))
