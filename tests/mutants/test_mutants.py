"""The tool that puts faults in: on a toy module with a toy test, and what was measured with it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.mutants.__main__ import drawn, parsed, run
from tests.mutants.copies import Copy
from tests.mutants.faults import mutants
from tests.mutants.results import HERE, Results, identity, read_accepted, row_of, survivors, table

TOY = """\
FIRST = 3
KIND = int | str


def smaller(a: int, b: int) -> int:
    return a if a < b else b


def after(a: int) -> int:
    a += FIRST
    return a


def unseen(a: int) -> int:
    return a + 1
"""
TEST = """\
from toy.numbers import FIRST, after, smaller


def test_smaller():
    assert (smaller(1, 2), smaller(2, 1), smaller(1, 1)) == (1, 1, 1)


def test_after():
    assert after(1) == 4


def test_always_fails():
    assert smaller(1, 2) == 2
"""
ACCEPTED = """\
- scope: smaller
  at: return a if a < b else b
  changes: [a < b -> a <= b]
  kind: equivalent
  why: of two equal numbers either is the smaller
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    root = tmp_path / "toy-root"
    for name, text in {
        "toy/numbers.py": TOY,
        "toy/__init__.py": "",
        "tests/test_numbers.py": TEST,
        "accepted.yaml": ACCEPTED,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fault_is_killed_and_an_equivalent_one_survives(toy: Path) -> None:
    args = parsed(["toy/numbers.py", "--sample", "0"])
    args.deciding, args.accepted = ("toy",), toy / "accepted.yaml"
    results = Results.read(toy / "results.jsonl")
    rows = {row["change"]: row for row in run(toy, results, args, heavy=())}
    assert rows["a < b -> a <= b"]["outcome"] == "survived"
    assert rows["a < b -> a > b"]["by"] == "tests/test_numbers.py::test_smaller"
    assert rows["a += FIRST -> pass"]["by"] == "tests/test_numbers.py::test_after"
    assert (rows["a + 1 -> a - 1"]["outcome"], rows["a + 1 -> a - 1"]["tests"]) == ("survived", 2)
    assert rows["int | str -> int & str"]["by"] == "import"
    assert {row["by"] for row in rows.values()} <= {
        "", "import", "tests/test_numbers.py::test_smaller", "tests/test_numbers.py::test_after",
    }  # fmt: skip
    assert (toy / "toy/numbers.py").read_text(encoding="utf-8") == TOY
    accepted = read_accepted(args.accepted)
    assert "equivalent: of two equal numbers" in survivors(rows.values(), accepted)
    assert f"| toy | {len(rows)} | " in table(rows.values(), accepted)
    assert list(run(toy, Results.read(toy / "results.jsonl"), args, heavy=())) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_hangs_ends_after_its_time(toy: Path) -> None:
    copy = Copy(toy)
    try:
        assert copy.child(lambda: (0, time.sleep(600)), 0.3).code is None
        assert copy.child(lambda: (3, ["left"]), 60).left == ["left"]
    finally:
        copy.close()
    assert not copy.place.exists()


def test_a_fault_is_known_by_its_content() -> None:
    before = mutants("toy/numbers.py", TOY.encode())
    moved = mutants("toy/others.py", TOY.replace("FIRST = 3", "FIRST = 3\nSECOND = 4").encode())
    assert {identity(row_of(m)) for m in before} <= {identity(row_of(m)) for m in moved}
    assert set(drawn(before, 0, 3)) <= set(drawn(before, 0, 5))


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("x = a or b", {"a or b -> a and b", "a or b -> a", "a or b -> b"}),
        ("x = not a", {"not a -> a"}),
        ("x = min(a, b)", {"min(a, b) -> max(a, b)"}),
        ("x = sorted(a, key=b)", {"sorted(a, key=b) -> list(a)"}),
        ("x = [a for a in b if a]", {"[a for a in b if a] -> [a for a in b]"}),
        ("x = a if b else c", {"a if b else c -> c if b else a"}),
        ("x = 0.05", {"0.05 -> 0.101", "0.05 -> 0.0"}),
        ("x: int | None = a", set()),
        ('x = a / "folder"', set()),
        ("print(a + b)", set()),
        ("x = zip(a, b, strict=True)", set()),
        ("raise ValueError(a + b)", {"raise ValueError(a + b) -> pass"}),
        ("f(a)", {"f(a) -> pass"}),
        ("a.b = c", {"a.b = c -> pass"}),
    ],
)
def test_the_faults_of_a_line(line: str, changes: set[str]) -> None:
    assert {mutant.change for mutant in mutants("m.py", line.encode())} == changes


def test_a_fault_is_one_edit_of_bytes() -> None:
    source = 'x = "é" if a < b else c\n'.encode()
    found = {mutant.change: mutant.applied(source).decode() for mutant in mutants("m.py", source)}
    assert found["a < b -> a > b"] == 'x = "é" if (a > b) else c\n'


def test_the_readme_shows_what_was_measured() -> None:
    rows, accepted = Results.read(HERE / "results.jsonl").rows, read_accepted(HERE / "accepted.yaml")
    assert table(rows.values(), accepted) in (HERE / "README.md").read_text(encoding="utf-8")
    alive = {identity(row)[:3] for row in rows.values() if row["outcome"] == "survived"}
    assert accepted.keys() <= alive, "a reason is given for what survives"
    assert {kind for kind, _ in accepted.values()} <= {"equivalent", "not worth it"}
