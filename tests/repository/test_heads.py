"""Main only goes forward, and a file outside of the workspace remembers where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cl_steps.commands.watch import watch
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.repository.git import git, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading


@pytest.fixture
def lines(line: Line, tmp_path: Path) -> Path:
    file = tmp_path / "lines.yaml"
    file.write_text(json.dumps({"lines": [{"name": "one", "workspace": line.git}]}), encoding="utf-8")
    return file


def look(lines: Path) -> object:
    return watch(str(lines), None, None, False, str(lines.with_name("heads.json")), True)


def forward(line: Line, name: str) -> None:
    with reading(line.git) as main:
        main.swap(lambda: Change({f"checks/{name}": b""}, name))


def test_an_older_main_is_seen_and_goes_on_being_seen(line: Line, lines: Path) -> None:
    look(lines)
    forward(line, "one")
    forward(line, "two")
    look(lines)
    git(Path(line.git), "update-ref", "refs/heads/main", text(Path(line.git), "rev-parse", "main~1"))
    for _ in range(2):
        with pytest.raises(IntegrityError, match="pushed an older one"):
            look(lines)
    forward(line, "three")
    with pytest.raises(IntegrityError, match="pushed an older one"):
        look(lines)


def test_a_main_that_went_on_is_as_it_should_be(line: Line, lines: Path) -> None:
    look(lines)
    forward(line, "one")
    forward(line, "two")
    look(lines)
    kept = json.loads(lines.with_name("heads.json").read_text(encoding="utf-8"))
    assert kept == {"one": text(Path(line.git), "rev-parse", "main")}


@pytest.mark.parametrize("content", ["{", "[]", '{"one": 1}'])
def test_a_file_of_heads_that_is_none_says_so(lines: Path, content: str) -> None:
    lines.with_name("heads.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"heads\.json"):
        look(lines)
    assert lines.with_name("heads.json").read_text(encoding="utf-8") == content
