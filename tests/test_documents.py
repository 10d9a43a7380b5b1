"""YAML and JSON of others: what is wrong is said with its line, at once, whatever it is."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cl_steps.documents import DEPTH, NODES, YAML_BYTES, Unreadable, check_plain, read_json, read_yaml
from cl_steps.store.pointers import dvc_file, read_dvc_file

NINE = ", ".join("xxxxxxxxx")
BOMB = f"a: &a [{NINE}]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2 * DEPTH))
PROJECT = Path(__file__).parents[1]

FAULTS: dict[str, tuple[str, str]] = {
    "no number": ("a: !!int foo", "line 1: 'foo' is not a whole number"),
    "no float": ("a: !!float foo", "line 1: 'foo' is not a number"),
    "no truth": ("a: !!bool foo", "line 1: 'foo' is not true or false"),
    "to the base of 60": ("a: 12:30:45", "line 1: '12:30:45' is not a whole number"),
    "to the base of 8": ("a: 017", "line 1: '017' is not a whole number"),
    "digits": (f"a: 1{'0' * 5000}", "line 1: .* is not a whole number"),
    "a list as a number": ("!!int [1]", "line 1: a whole number holds no other values"),
    "itself": ("b: 1\na: &a [*a]", "line 2: the alias \\*a stands for itself"),
    "itself, as a mapping": ("a: &a {b: *a}", "line 1: the alias \\*a stands for itself"),
    "itself, merged": ("&a {<<: *a}", "line 1: the alias \\*a stands for itself"),
    "nobody": ("a: *b", "line 1: found undefined alias"),
    "deep": ("a: " + "[" * 3000, f"line 1: it is nested more than {DEPTH} deep"),
    "deep mappings": ("{a: " * 3000, f"line 1: it is nested more than {DEPTH} deep"),
    "deep lines": ("\n".join(" " * depth + "a:" for depth in range(200)), f"line {DEPTH}: it is nested"),
    "a bomb": (BOMB, f"line 6: it stands for more than {NODES} values"),
    "a bomb of merges": (MERGES, f"line 6: it stands for more than {NODES} values"),
    "deep by aliases": (CHAIN, f"line {DEPTH - 1}: it is nested more than {DEPTH} deep"),
    "many": ("[" + "a," * (NODES + 1) + "]", f"line 1: it stands for more than {NODES} values"),
    "large": ("#" * (YAML_BYTES + 1), f"at most {YAML_BYTES} are read"),
    "twice": ("seed: 1\nname: x\nseed: 2", "line 3: the key 'seed' is there twice"),
    "a number as a key": ("1: 2", "line 1: a key must be text"),
    "a list as a key": ("? [a]\n: 2", "line 1: a key must be text"),
    "no mapping merged": ("a: 1\n<<: 4", "line 2: expected a mapping"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: expected a single document"),
    "code": ("a: !!python/object/apply:os.system [x]", "line 1: could not determine a constructor"),
    "a set": ("!!set {a}", "line 1: could not determine a constructor"),
    "bytes": ("!!binary aGk=", "line 1: could not determine a constructor"),
    "an end": ("a: 1\nb: [", "line 3: did not find"),
    "a NUL": ("a: 1\nb: \0", "line 2: control characters are not allowed"),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_said_with_its_line(text: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        read_yaml(text.encode())
    assert len(str(caught.value)) < 200


def test_what_is_not_utf8() -> None:
    with pytest.raises(Unreadable, match="line 2: it is not UTF-8"):
        read_yaml(b"a: 1\nb: \xff")


def test_what_people_write_is_understood() -> None:
    text = b"{a: 1e9, b: 1.0e9, c: -5e-5, d: 1.E3, e: .5e1, f: 1_000, g: 2026-01-02, h: ~, i: yes, j: '1', k: [x, =]}"
    found = read_yaml(text)
    numbers = {"a": 1e9, "b": 1e9, "c": -5e-5, "d": 1e3, "e": 5.0, "f": 1000}
    assert found == {**numbers, "g": "2026-01-02", "h": None, "i": True, "j": "1", "k": ["x", "="]}


def test_a_digest_is_text() -> None:
    digest = "12345678901234567890123456789e01"
    assert read_yaml(f"{{md5: {digest}, text: 12:30, size: 10}}".encode(), digests=True) == {
        "md5": digest,
        "text": "12:30",
        "size": 10,
    }
    assert read_dvc_file(dvc_file({"md5": digest}, "x"))["md5"] == digest


def test_aliases_and_merges_may_be_used() -> None:
    found = read_yaml(b"base: &b {cpu: '1', memory: 2Gi}\nlarge:\n  <<: *b\n  cpu: '8'\nlist: [*b, *b]\n")
    small = {"cpu": "1", "memory": "2Gi"}
    assert found == {"base": small, "large": {"cpu": "8", "memory": "2Gi"}, "list": [small, small]}


def test_without_libyaml_the_same_is_read() -> None:
    code = (
        "import sys; sys.modules['yaml._yaml'] = None; sys.modules['yaml.cyaml'] = None\n"
        "from cl_steps.documents import Parser, Unreadable, read_yaml\n"
        "from tests.test_documents import FAULTS\n"
        "assert Parser.__module__ == 'cl_steps.documents'\n"
        "print(read_yaml(open('params.yaml', 'rb').read()))\n"
        "for name, (text, _) in FAULTS.items():\n"
        "    if name != 'many':\n"
        "        try: read_yaml(text.encode()); print(name)\n"
        "        except Unreadable: pass\n"
        "try: read_yaml(b'a: \"\\\\uD800\"'); print('half')\n"
        "except Unreadable: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.stdout.splitlines() == [str(read_yaml((PROJECT / "params.yaml").read_bytes()))], done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": -Infinity}',
        '{"a": "\\ud800"}',
        f'{{"a": 1{"0" * 5000}}}',
        "{",
        "",
    ],
)
def test_json_that_could_not_be_written_again(text: str) -> None:
    with pytest.raises(Unreadable):
        read_json(text.encode())


def test_json_that_is_right() -> None:
    document: Any = {"a": [1, 2.5, None, True, "ü", {"b": "\U0001f600"}]}
    assert read_json(json.dumps(document).encode()) == document


def test_a_date_is_nothing_that_json_has() -> None:
    with pytest.raises(Unreadable, match="neither text nor a number"):
        check_plain({"a": [date(2026, 1, 1)]})
