"""Words that pretend to be markup, commands, templates or trailers, harmless ones, and a line's life in such words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cl_steps.__main__ import main as retain
from cl_steps.formats.bom import bill_of_materials
from cl_steps.formats.card import model_card
from cl_steps.formats.facts import gather
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from tests.data.landings import encoded, jsonl, picture, put
from tests.lines.playing import begin, finish, sha_of

OWNED = "owned-by-a-shell"
COMPUTED = "9876536"
"""What a template would make of `TEMPLATE`."""
TEMPLATE = "{{ 1234567*8 }}{% for x in range(9) %}{% endfor %}${{1234567*8}}<%= 1234567*8 %>{# #}"
MARKUP = """<script>alert(1)</script>"><img src=x onerror=alert(2)><svg/onload=alert(3)>' onmouseover='alert(4)"""
SHELL = f"$(touch {OWNED}) `touch {OWNED}`; touch {OWNED}; rm -rf . | touch {OWNED} && touch {OWNED}"
PATHS = "../../../outside ..\\..\\outside file:///etc/passwd"
TRAILERS = "Run-Id: forged Event: forged"
CLEAN = f"{MARKUP} {SHELL} {TEMPLATE} {PATHS} {TRAILERS}"
"""All of it that a caption or a source may hold."""
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\x00\r\x08\u202edlrow\u2066\u200f\u2028"
FORGED = f"{CLEAN}\n\nRun-Id: forged\nRun-Id: r-3\nEvent: forged\nSigned-off-by: forged\n\n{ESCAPES}"
"""What a person may write as a reason."""

NAMES = (
    "<img src=x onerror=alert(5)>.png",
    f"$(touch {OWNED}).png",
    f"`touch {OWNED}`.png",
    f"; touch {OWNED};.png",
    "{{ 1234567*8 }}.png",
    "{% include 'x' %}.png",
    "-rf.png",
    f"--upload-pack=touch {OWNED}.png",
    "Run-Id: forged.png",
    '" onload=alert(6) ".png',
    "%2e%2e%2foutside.png",
    "<b>/{{ 1234567*8 }}/..png",
)
BAD_NAMES = ("a\nRun-Id: forged\n.png", "\x1b[2J\x1b]0;owned\x07.png", "\u202egnp.exe.png")
BAD_LINES: tuple[Mapping[str, Any], ...] = (
    {"file_name": "../../outside.png", "text": "one"},
    {"file_name": "/etc/passwd", "text": "two"},
    {"file_name": "..\\outside.png", "text": "three"},
)
BAD_FACTS: tuple[Mapping[str, Any], ...] = (
    {"text": "a slice", "slice": MARKUP},
    {"text": "a slice", "slice": "../../outside"},
    {"text": "a slice", "slice": f"$(touch {OWNED})"},
    {"text": ESCAPES},
    {"text": "a source", "source": f"x{ESCAPES}"},
)


@dataclass(frozen=True)
class Words:
    """What strangers and persons write, for one of the two lines."""

    names: tuple[str, ...]
    caption: str
    source: str
    reason: str
    person: str
    bad_names: tuple[str, ...]
    bad_lines: tuple[Mapping[str, Any], ...]
    bad_facts: tuple[Mapping[str, Any], ...]


HARMLESS = Words(
    names=tuple(f"{number}.png" for number in range(len(NAMES))),
    caption="a boat",
    source="studio",
    reason="asked",
    person="ada",
    bad_names=tuple(f"bad-{number}.png" for number in range(len(BAD_NAMES))),
    bad_lines=({"file_name": "no-1.png"}, {"file_name": "no-2.png"}, {"file_name": "no-3.png"}),
    bad_facts=tuple({"text": ""} for _ in BAD_FACTS),
)
HOSTILE = Words(NAMES, CLEAN, f"x {CLEAN}"[:480], FORGED, f"mallory {FORGED}", BAD_NAMES, BAD_LINES, BAD_FACTS)


@dataclass
class Life:
    """What became of a line: how each act ended, and all that was shown of it."""

    line: Line
    folder: Path
    words: Words
    ends: list[object] = field(default_factory=list)
    printed: dict[str, str] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)


def live(line: Line, words: Words, capsys: pytest.CaptureFixture[str]) -> Life:
    """Three nights, an answer, a rollback and a withdrawal in those words; then everything that reads."""
    life = Life(line, Path(line.landing).parent, words)
    _nights(life)
    _acts(life, capsys)
    _looks(life, capsys)
    return life


def _nights(life: Life) -> None:
    """One that promotes, one that is held, and one on the batch of that after a yes."""
    asked = {"reason": life.words.reason, "by": life.words.person, "trigger": "manual"}
    _land(life, range(20, 32))
    begin(life.line, "r-1", None, **asked)
    life.ends.append(finish(life.line, "r-1"))
    _land(life, range(40, 52))
    begin(life.line, "r-2", None, {"drift": "alarming"}, until="drift", **asked)
    life.ends.append(finish(life.line, "r-2"))


def _acts(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    person = ("--reason", life.words.reason, "--by", life.words.person, "--dir", str(life.folder))
    _run(life, capsys, "approve", "r-2", *person)
    _run(life, capsys, "refuse", "r-2", *person[:-2], "--dir", str(life.folder))
    begin(life.line, "r-3", (), reason=life.words.reason, by=life.words.person)
    life.ends.append(finish(life.line, "r-3"))
    _run(life, capsys, "rollback", "v2", *person)
    _run(life, capsys, "withdraw", "--source", life.words.source, *person)


def _looks(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that reads, as text and as JSON, and every page."""
    here = ("--dir", str(life.folder))
    for command in (("status", str(life.folder)), ("runs", str(life.folder)), ("asset", f"{life.words.reason}.png")):
        _run(life, capsys, *command)
    for name, *arguments in (("lineage", "v3"), ("diff", "v2", "v3")):
        _run(life, capsys, name, *arguments, *here, "--html", str(life.folder / f"{name}.html"))
        life.pages[name] = (life.folder / f"{name}.html").read_text(encoding="utf-8")
    for name, argument in (("lineage", "v3"), ("asset", sha_of(20))):
        _run(life, capsys, name, argument, *here)
        retain([name, argument, *here, "--json"])
        life.documents[name] = json.loads(capsys.readouterr().out)
    _run(life, capsys, "verify", "--all", *here)
    retain(["report", str(life.folder), "--to", str(life.folder / "pages")])
    life.pages["night"] = (life.folder / "pages/night.html").read_text(encoding="utf-8")
    with reading(life.line.git) as main:
        facts = gather(life.line, main, "v3")
    life.pages["card"] = model_card(facts, "out")
    life.documents["bill"] = bill_of_materials(facts)
    capsys.readouterr()


def _run(life: Life, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    capsys.readouterr()
    life.ends.append((arguments[0], retain(list(arguments))))
    printed = capsys.readouterr()
    life.printed[f"{len(life.printed)} {arguments[0]}"] = printed.out + printed.err


def _land(life: Life, numbers: range) -> None:
    """Pictures, two of them from the source, and as many things that cannot be used whatever the words."""
    landing, words = Path(life.line.landing), life.words
    for place, number in enumerate(numbers):
        name = f"{number}/{words.names[place]}"
        put(landing, name, encoded(picture(number)))
        source = words.source if place < 2 else ""
        jsonl(landing, {"file_name": name, "text": words.caption, "slice": "new", "source": source})
    for place, name in enumerate(words.bad_names):
        put(landing, name, f"no picture {place}".encode())
    for line in words.bad_lines:
        jsonl(landing, line)
    for place, facts in enumerate(words.bad_facts):
        put(landing, f"bad/{numbers[0]}-{place}.png", encoded(picture(1000 + numbers[0] + place)))
        jsonl(landing, {"file_name": f"bad/{numbers[0]}-{place}.png", **facts})
    if not (landing / "link.png").is_symlink():
        (landing / "link.png").symlink_to(life.folder.parent / "secret")
