"""Words that pretend to be markup, commands, templates or trailers change nothing: two lines live the same life, one of
plain words and one of forged ones, and only what is quoted differs.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from tests.lines.forging import CLEAN, COMPUTED, FORGED, HARMLESS, HOSTILE, MARKUP, OWNED, TEMPLATE, Life, Words, live
from tests.lines.playing import make_line, sha_of


@pytest.fixture
def lived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Life]:
    """Plays a line's life in a folder of its own, with an empty folder as the process's."""

    def play(name: str, words: Words) -> Life:
        around = tmp_path / name
        for folder in (around, around / "cwd"):
            folder.mkdir()
        (around / "secret").write_text("not of the landing", encoding="utf-8")
        monkeypatch.chdir(around / "cwd")
        line = make_line(around / "line", signed=True)
        line.save(around / "line")
        return live(line, words, capsys)

    return play


class Elements(HTMLParser):
    """The shape of a page: its elements, each with the names of its attributes; where it leads to; its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.shapes: set[tuple[str, tuple[str, ...]]] = set()
        self.links: set[str] = set()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shapes.add((tag, tuple(sorted(name for name, _ in attrs))))
        self.links |= {str(value) for name, value in attrs if name in ("src", "href", "action", "data", "xlink:href")}

    def handle_data(self, data: str) -> None:
        self.words += data


def test_forged_words_change_nothing(lived: Callable[..., Life]) -> None:
    harmless, hostile = lived("harmless", HARMLESS), lived("hostile", HOSTILE)
    assert hostile.ends == harmless.ends
    assert [end for end in hostile.ends if isinstance(end, str)] == ["v2", "held", "v3"]
    assert dict(end for end in hostile.ends if isinstance(end, tuple))["verify"] == 0
    check_commits(hostile)
    check_places(hostile)
    check_pages(hostile, harmless)
    check_terminal(hostile)
    check_documents(hostile)


def check_commits(life: Life) -> None:
    """Messages hold nothing of it; each Run-Id is of the run whose event the commit brought, each Event of its own."""
    everything = text(Path(life.line.git), "log", "--all", "--format=%B%an%ae%cn%ce")
    for word in ("forged", "script", OWNED, "1234567", "outside", "mallory", "\x1b"):
        assert word not in everything
    names = text(Path(life.line.git), "log", "--all", "--format=%(trailers:key=Run-Id,valueonly)").split()
    assert set(names) == {"r-1", "r-2", "r-3"}
    keys = text(Path(life.line.git), "log", "--all", "--format=%(trailers:keyonly)").split()
    assert set(keys) <= {"Run-Id", "Event", "Seconds"}
    for commit in text(Path(life.line.git), "rev-list", "main").split():
        run, event = (
            text(Path(life.line.git), "log", "-1", f"--format=%(trailers:key={key},valueonly)", commit).strip()
            for key in ("Run-Id", "Event")
        )
        added = text(Path(life.line.git), "show", "--format=", "--name-only", "--diff-filter=A", commit).splitlines()
        assert not run or any(re.fullmatch(rf"events/\w+-(run|answer)-{run}\.json", path) for path in added)
        assert not event or f"events/{event}.json" in added


def check_places(life: Life) -> None:
    """No shell and no landing's file name made a file; what Git and the store call their files are our own words."""
    around, landing = life.folder.parent, Path(life.line.landing)
    assert not list((around / "cwd").iterdir())
    assert {path.name for path in around.iterdir()} == {"cwd", "secret", "line"}
    outside = [path for path in life.folder.rglob("*") if not path.is_relative_to(landing)]
    assert not [path for path in outside if OWNED in path.name or "outside" in path.name]
    for path in (*_in_git(life.line), *_in_store(life.line)):
        assert re.fullmatch(r"[\w@.+/-]+", path), path
        assert ".." not in Path(path).parts
    stored = (path.read_bytes() for path in Path(life.line.store).rglob("*") if path.is_file())
    assert b"not of the landing" not in b"".join(stored)


def _in_git(line: Line) -> Iterator[str]:
    for ref in text(Path(line.git), "for-each-ref", "--format=%(refname)").splitlines():
        yield ref
        yield from text(Path(line.git), "ls-tree", "-r", "--name-only", ref).splitlines()


def _in_store(line: Line) -> Iterator[str]:
    for listing in Path(line.store).rglob("*.dir"):
        yield from (entry["relpath"] for entry in json.loads(listing.read_bytes()))


def check_pages(hostile: Life, harmless: Life) -> None:
    """The pages say it, and it is text there: no element, attribute or link but those of the harmless line's pages."""
    for name, page in hostile.pages.items():
        found, plain = Elements(page), Elements(harmless.pages[name])
        assert found.shapes <= plain.shapes, name
        assert "script" not in {tag for tag, _ in found.shapes}
        assert all(link.startswith(("#", "data:image/", "evidently-")) for link in found.links), name
        assert COMPUTED not in page
        assert not [c for c in page if unicodedata.category(c)[0] == "C" and c != "\n"], name
        if name != "card":  # it quotes nobody
            assert MARKUP in found.words, name
            assert TEMPLATE in found.words, name


def check_terminal(life: Life) -> None:
    for name, printed in life.printed.items():
        assert not [c for c in printed if unicodedata.category(c)[0] == "C" and c != "\n"], name
        assert COMPUTED not in printed
        assert not re.search("^(Run-Id|Event): forged", printed, re.MULTILINE), name


def check_documents(life: Life) -> None:
    """What is kept is kept as it was written."""
    written, documents = life.words, life.documents
    assert documents["lineage"]["trigger"]["reason"] == FORGED
    assert documents["asset"]["asset"]["facts"]["text"] == CLEAN
    assert documents["asset"]["asset"]["facts"]["source"] == written.source
    with reading(life.line.git) as main:
        ledger = main.ledger()
    assert ledger.answers["r-2"].reason == ledger.rollbacks[0].reason == ledger.withdrawals[0].reason == FORGED
    assert ledger.rollbacks[0].by == written.person
    assert ledger.withdrawals[0].source == written.source
    assert {asset["sha256"] for asset in ledger.withdrawals[0].assets} == {sha_of(n) for n in (20, 21, 40, 41)}
    assert {run: event.trigger.reason for run, event in ledger.runs.items()} == dict.fromkeys(ledger.runs, FORGED)
    assert set(ledger.runs) == {"r-1", "r-2", "r-3"}
