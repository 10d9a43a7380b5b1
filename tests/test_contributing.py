"""The examples of CONTRIBUTING.md are applied, all of them, to a copy of the tree, and the tests they name are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in GUIDE.split("\n## ")[1:]}
COPIED = ("cl_steps", "dags", "tests", "README.md", "params.yaml", "dvc.yaml", "pyproject.toml")


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with all that the guide adds to it."""
    root = tmp_path_factory.mktemp("tree")
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, root / name)
    for section in SECTIONS.values():
        for block in blocks(section, "python"):
            path, _, content = block.partition("\n")
            file = root / path.removeprefix("# ")
            assert not file.exists(), path
            file.write_text(content)
        for block in blocks(section, "diff"):
            for change in re.split(r"^--- ", block, flags=re.MULTILINE)[1:]:
                apply(root, change)
    return root


def apply(root: Path, change: str) -> None:
    """Replace lines that are in a file once, as one change of a diff says: a path, then lines with ` `, - or +."""
    path, _, rest = change.partition("\n")
    lines = rest.splitlines(keepends=True)
    old, new = ("".join(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")
    text = (root / path).read_text()
    assert text.count(f"\n{old}") == 1, f"{path} does not hold this just once:\n{old}"
    (root / path).write_text(text.replace(f"\n{old}", f"\n{new}"))


@pytest.mark.parametrize("title", SECTIONS)
def test_an_example_passes_the_tests_it_names(tree: Path, title: str) -> None:
    (command,) = blocks(SECTIONS[title], "sh")
    name, *arguments = shlex.split(command)
    assert name == "pytest"
    line = [sys.executable, "-m", "pytest", "-n", "0", "-vv", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(line, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    for word in arguments[arguments.index("-k") + 1].split(" or "):
        assert word in done.stdout, f"no test of {word} ran"


def test_the_new_files_are_as_we_write_them(tree: Path) -> None:
    added = [block for section in SECTIONS.values() for block in blocks(section, "python")]
    files = [tree / block.partition("\n")[0].removeprefix("# ") for block in added]
    ruff = [sys.executable, "-m", "ruff"]
    for arguments in (["check", "--ignore", "D1"], ["format", "--check"]):
        done = subprocess.run([*ruff, *arguments, *files], cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
