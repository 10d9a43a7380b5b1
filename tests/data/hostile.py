"""Landings as strangers may make them: every kind of name, place and content that we know to be hostile, at random.

The same seed makes the same landing. Each maker says how many objects there are: whatever is no folder, and folders
that lie too deep to be looked into.
"""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cl_steps.config import Ingest
from cl_steps.data.intake import Intake
from tests.data.landings import encoded, picture

LIMITS = Ingest(max_file_bytes=20_000, max_pixels=90_000, max_depth=6, max_caption_characters=100)
REMOTE_NAMES = ("..", ".", "", "a/../b", "../" * 9 + "x", "/abs", "x//y", "nul\0", "s3://x/y", "?versionId=1", "a::b")
NAMES = (
    "plain", "-rf", "--help", "$(touch x)", "`x`", "'", '"', "*", "?", "[a]", "{}", "%s%n", "\\", " ", " lead", "end ",
    "a\nb", "tab\t", "\x1b[2J", "\x7f", "\x01", "\u202e", "\u200b", "\u00e9", "e\u0301", "\u212b", "A", "a", "CON",
    "\U0001f600", "\ud800", "..x", "...", ".hidden", ".dvc", ".git", ".gitignore", ".dvcignore", "dvc.yaml", "x.dvc",
    "dvc.lock", "METADATA.JSONL", "metadata.jsonl.png", "metadata.csv.bak", "objects.jsonl", "landing.bytes",
)  # fmt: skip
BAD_LINES = (
    b"{", b"[]", b"null", b"\xff\xfe", b'{"file_name": 5}', b'{"file_name": "../x", "text": "t"}', b'{"text": "t"}',
    b'{"file_name": "gone", "text": "t"}', b'{"file_name": "metadata.jsonl", "text": "t"}', b'{"file_name": "\\ud800"}',
    b"[" * 5000, b'{"n": 1' + b"0" * 5000 + b"}", b"\0", b'{"file_name": "/etc/passwd", "text": "t"}',
)  # fmt: skip


def counted(intake: Intake) -> int:
    """Of how many objects an intake says what became of them."""
    counts, landed = intake.counts, intake.landed
    taken = counts["new"] + counts["duplicates"] + counts["known"]
    quarantined = counts["quarantined"] - landed.lines
    return taken + quarantined + landed.metadata + landed.hidden + sum((*landed.left.values(), *landed.passed.values()))


def hostile_objects(seed: int, count: int, limits: Ingest = LIMITS) -> dict[str, bytes]:
    """Names and contents as an object store may hold them, whatever a file system would say."""
    dice = random.Random(seed)
    found: dict[str, bytes] = {}
    while len(found) < count - 2:
        name = _remote_name(dice, len(found))
        found.setdefault(name, _content(dice, len(found), limits))
        if dice.random() < 0.1:  # a name that is a file and a folder
            found.setdefault(f"{name}/{len(found)}.png", _content(dice, len(found), limits))
    found["metadata.jsonl"] = _lines(dice, found)
    found["sub/metadata.csv"] = b'file_name,text\n"unclosed,x\n\xff,y\n' + b"a,b,c\n" * 9
    return found


def hostile_folder(folder: Path, seed: int, count: int, limits: Ingest = LIMITS) -> int:
    """The same as a folder holds it, with links, pipes, sockets, holes and depths; how many objects there are."""
    dice = random.Random(seed)
    names: list[str] = []
    folder.mkdir(parents=True)
    with _inside(folder):
        while len(names) < count - 1:
            place = "/".join([_name(dice, dice.randrange(9)) for _ in range(dice.choice((0, 0, 1, 3)))])
            name = f"{place}/{_name(dice, len(names))}".lstrip("/")
            try:
                if place:
                    _folder(os.fsencode(place))
                _make(os.fsencode(name), dice, len(names), limits)
            except (OSError, ValueError):  # another object has the name, or the file system does not take it
                continue
            names.append(name)
        Path("metadata.jsonl").write_bytes(_lines(dice, names))
    return len(names) + 1


def _folder(place: bytes) -> None:
    """Make it, unless a link of ours would lead out of the landing."""
    if os.path.realpath(place) != os.path.join(os.getcwdb(), place):  # noqa: PTH109, PTH118  (it may be no text)
        raise OSError("a link lies on the way")
    os.makedirs(place, exist_ok=True)  # noqa: PTH103


def _make(name: bytes, dice: random.Random, number: int, limits: Ingest) -> None:
    kind = dice.choice(("file",) * 12 + ("link", "pipe", "socket", "device", "hole", "deep"))
    if kind == "file":
        with open(name, "xb") as file:  # noqa: PTH123
            file.write(_content(dice, number, limits))
    elif kind == "link":
        Path(os.fsdecode(name)).symlink_to(dice.choice(("/etc/hostname", "/etc", "nowhere", ".", os.fsdecode(name))))
    elif kind in ("pipe", "socket"):
        os.mknod(name, 0o600 | (stat.S_IFIFO if kind == "pipe" else stat.S_IFSOCK))
    elif kind == "device":
        os.mknod(name, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    elif kind == "hole":
        with open(name, "xb") as file:  # noqa: PTH123
            file.truncate(3 * 2**30)
    else:
        os.makedirs(name + b"%d" % number + b"/d" * (limits.max_depth + dice.randrange(9)))  # noqa: PTH103


def _content(dice: random.Random, number: int, limits: Ingest) -> bytes:
    kind = dice.choice(("good", "good", "same", "junk", "empty", "cut", "large"))
    if kind in ("good", "same"):
        return encoded(picture(number if kind == "good" else dice.randrange(5)))
    if kind == "cut":
        return encoded(picture(number))[: dice.randrange(1, 400)]
    return {"junk": dice.randbytes(dice.randrange(1, 300)), "empty": b"", "large": bytes(limits.max_file_bytes + 1)}[
        kind
    ]


def _name(dice: random.Random, number: int) -> str:
    base = dice.choice(NAMES)
    if dice.random() < 0.1:
        base = os.fsdecode(dice.randbytes(3).translate(None, b"\0/"))
    if dice.random() < 0.05:
        base = "n" * 240
    return base if dice.random() < 0.3 else f"{base}{number}.png"


def _remote_name(dice: random.Random, number: int) -> str:
    parts = [_name(dice, dice.randrange(9)) for _ in range(dice.choice((0, 0, 1, 3, 9)))]
    if dice.random() < 0.1:
        parts.append(dice.choice(REMOTE_NAMES))
    if dice.random() < 0.03:
        return "/".join([*parts, "k" * 900])
    return "/".join([*parts, _name(dice, number) + dice.choice(("", "", "", "/"))])


def _lines(dice: random.Random, names: Iterable[str]) -> bytes:
    """A line for most of the names, and many bad ones."""
    lines = [json.dumps({"file_name": name, "text": f"named {n % 3}"}).encode() for n, name in enumerate(names)]
    bad = [dice.choice(BAD_LINES) for _ in range(len(lines) // 4)]
    kept = [line for line in lines if dice.random() < 0.8] + bad
    dice.shuffle(kept)
    return b"\n".join(kept)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
