"""Parameter files as nobody would write them: every key with wrong values, odd YAML, deep, aliased, huge; by a seed."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

TEXT = (Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
MD5 = "0" * 32
OUT = {"path": "tonight/intake", "hash": "md5", "md5": f"{MD5}.dir", "size": 1, "nfiles": 1}
RUN = {"id": "r-1", "trigger": "asset", "by": "ops", "reason": "x", "batch": "r-0", "rebase": MD5, "force": True}
RUN |= {"base": "a" * 40, "state": "b" * 40, "started": "2026-01-01T00:00:00+00:00", "set": {"update.steps": 3}}
KEY = {"name": "k", "role": "judge", "file": "k.pem", "from": "2026-01-01", "until": "2026-02-01T00:00:00Z"}
DOCUMENTS: tuple[dict[str, Any], ...] = (
    *[DOCUMENT] * 4,
    *[RUN] * 2,
    {"schema": "2.0", "stages": {"ingest": {"cmd": "x", "deps": [{"path": "landing"}], "outs": [OUT], "params": {}}}},
    {"outs": [OUT]},
    {"keys": [KEY]},
)
PLACE = "@@RAW@@"
VALUES = (
    "null", "~", "true", "no", "'x'", '""', "[]", "{}", "-1", "0", "1", "2", "1e400", "-1e400", ".nan", ".inf", "-.inf",
    "1e9", "1.0e9", "1e30", "1.0e-300", "0.5", "1.5", "99999999999999999999", "0x7fffffffffffffff", "0b101", "017",
    "0o17", "1_000", "12:30:45", "1:2.5", "[1, 2]", "[[1], [2]]", "{a: 1}", "{? [a] : 1}", "2020-01-01", "2020-13-45",
    "2020-01-01T25:61:61Z", "2001-12-14t21:59:43.10-99:00", "!!binary aGk=", "!!int foo", "!!float foo", "!!bool foo",
    "!!null foo", "!!timestamp foo", "!!str 5", "!!set {a}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!seq foo",
    "!!map foo", "!!int [1]", "!!python/object:os.system x", "!!python/name:os.system", "!<tag:yaml.org,2002:int> x",
    "! x", "!x y", "&a [*a]", "&a {b: *a}", "&a {<<: *a}", "*nobody", "[&a x, *a, &a y]", "'\\0'", '"\\0"', '"\\uD800"',
    '"\\U0010FFFF"', '"\\x1b[31m"', "'../../x'", "/etc/passwd", "file:///etc/passwd", "=", "<<",
    "? a", "- a", "|", ">", "@", "`", "%",
    "'a'*3", "{", "[", "}", "]", "'", '"', "#", ": :", "a: b: c", "\t", "\u2028", "\u202e", "\ufeff", "\x85",
)  # fmt: skip
PIECES = (
    "[", "]", "{", "}", ",", ":", "-", "?", "&a ", "*a", "!!", "<<: ", "|", ">", "'", '"', "#", "%", "\n", "  ", "\t",
    "\0", "\x7f", "é", "\ud800", "...", "---\n", "~", "1e", ".inf",
)  # fmt: skip
REPEATED = ("- a\n", "a: 1\n", "'x', ", "[", "{", "? ", "&a ", "x" * 1000, "#\n", " ", "\n", "a: &a b\n", '"\\n')


def files(seed: int, number: int) -> Iterator[bytes]:
    """So many files, always the same for a seed."""
    for index in range(number):
        rng = random.Random(f"{seed}:{index}")
        make = rng.choice(KINDS)
        yield make(rng).encode(errors="surrogatepass")


def paths(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The dotted name of every key, those of blocks too."""
    for key, value in values.items():
        yield before + key
        if isinstance(value, dict):
            yield from paths(value, f"{before}{key}.")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every block and list with each of its keys."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _wrong_values(rng: random.Random) -> str:
    text = copy.deepcopy(rng.choice(DOCUMENTS))
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 5))):
        block, key = rng.choice(list(_places(text)))
        block[key if rng.random() < 0.9 or isinstance(block, list) else f"{key}z"] = PLACE
    dumped = yaml.safe_dump(text)
    return re.sub(f"'?{PLACE}'?", lambda _match: rng.choice((_value, _value, _deep, _number))(rng), dumped)


def _value(rng: random.Random) -> str:
    return rng.choice(VALUES)


def _number(rng: random.Random) -> str:
    digits = "".join(rng.choice("0123456789_.eE+-") for _ in range(rng.choice((3, 8, 100))))
    return rng.choice(("", "-", "+", "0x")) + rng.choice("123456789") + digits * rng.choice((1, 1, 100))


def _deep(rng: random.Random) -> str:
    depth, opening = rng.choice((2, 20, 31, 33, 500, 3000)), rng.choice(("[", "{a: ", "[{b: ", "? ", "- "))
    closing = {"[": "]", "{a: ": "}", "[{b: ": "}]"}.get(opening, "")
    return opening * depth + "1" + closing * (depth if rng.random() < 0.8 else 0)


def _aliases(rng: random.Random) -> str:
    """Lists and mappings of anchors before them, sometimes of themselves, merged or not."""
    lines, names = [TEXT], ["n0"]
    lines.append("n0: &n0 " + rng.choice(("[x, x]", "{x: 1}", "x")))
    for index in range(1, rng.choice((3, 10, 60))):
        chosen = [f"*{rng.choice(names if rng.random() < 0.95 else [f'n{index}'])}" for _ in range(rng.randint(1, 9))]
        body = rng.choice((f"[{', '.join(chosen)}]", f"{{<<: [{', '.join(chosen)}]}}", f"{{a: {chosen[0]}}}"))
        lines.append(f"n{index}: &n{index} {body}")
        names.append(f"n{index}")
    return "\n".join(lines)


def _broken(rng: random.Random) -> str:
    """The file as it is, with pieces put in, left out and said twice."""
    text = TEXT
    for _ in range(rng.choice((1, 3, 20))):
        at, length = rng.randrange(len(text)), rng.choice((0, 0, 1, 30))
        text = text[:at] + rng.choice((*PIECES, text[at : at + 40], "")) + text[at + length :]
    return text


def _huge(rng: random.Random) -> str:
    piece = rng.choice(REPEATED)
    return rng.choice(("", TEXT, "a: |\n ", "[")) + piece * rng.choice((1000, 20_000, 300_000 // len(piece)))


def _noise(rng: random.Random) -> str:
    return "".join(rng.choice((*PIECES, "a", "1", " ")) for _ in range(rng.choice((5, 50, 500))))


def _bytes(rng: random.Random) -> str:
    return rng.randbytes(rng.choice((3, 300))).decode("latin-1") + rng.choice(("", "\ud800", TEXT))


KINDS = (_wrong_values, _wrong_values, _wrong_values, _wrong_values, _aliases, _broken, _broken, _huge, _noise, _bytes)
