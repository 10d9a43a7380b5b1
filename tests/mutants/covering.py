"""Which tests run a line: recorded once by coverage.py, a test file at a time, and kept by the file's bytes.

What is kept of a line is its text and not its number, so that an edit elsewhere leaves the record useful. Commands that
a test starts are not recorded: where no test runs a line in its own process, all of the files that are named after the
module are taken.
"""

from __future__ import annotations

import ast
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutants.copies import QUIET, Copy, Report
from tests.mutants.faults import Mutant

MOST_SECONDS = 900.0
"""A test file is recorded for so long; tests beyond do not count."""
FILES = 6
"""So many test files are asked at once."""


@dataclass
class Tests:
    """The tests that may notice a fault, and the folder in which it is kept what each runs."""

    copy: Copy
    sources: tuple[str, ...]
    kept: Path
    records: dict[str, Any] = field(default_factory=dict)
    passing: dict[str, bool] = field(default_factory=dict)

    def passes(self, name: str) -> bool:
        """Whether a test passes by itself and without any fault: only then its failing says something."""
        if name not in self.passing:
            self.passing[name] = self.copy.pytest([name], 300).code == 0
        return self.passing[name]

    def otherwise(self, mutant: Mutant, names: tuple[str, ...], code: int | None) -> str:
        """What noticed a fault where no test failed; raises RuntimeError where it was no fault of the module's."""
        if code is None:
            return "time"
        said = self.copy.log()
        files = tuple(dict.fromkeys(name.partition("::")[0] for name in names))
        if code in (1, 2) and self._collects(files):
            return "import"
        raise RuntimeError(f"pytest ended with {code}, {mutant.path}:{mutant.line} {mutant.change}: {said[-3000:]}")

    def _collects(self, files: tuple[str, ...]) -> bool:
        return self.copy.pytest(files, 300, "--collect-only").code in (0, 5)

    def failing(self, mutant: Mutant, names: tuple[str, ...], limit: float) -> tuple[str | None, int | None, float]:
        """The first test that fails with a fault, pytest's exit code (None: it took too long), and the seconds."""
        source = (self.copy.root / mutant.path).read_bytes()
        with self.copy.fault(mutant.path, mutant.applied(source)):
            ended = self.copy.pytest(names, limit)
        return (ended.left or [None])[0], ended.code, ended.seconds

    def choose(self, mutant: Mutant, files: list[str], budget: float) -> tuple[tuple[str, ...], float]:
        """Tests of some files that run the line, the quickest first, of so many seconds in all; and their seconds."""
        near, far, whole, seconds = set(), set(), set(), {}
        for record in map(self._record, files):
            ran, names = record["ran"].get(mutant.path, {}), list(record["seconds"])
            seconds |= record["seconds"]
            lines = [ran[text] for text in (mutant.at, mutant.statement) if text in ran][:1]
            near |= {names[place] for line in lines for place in line["by"]}
            if any(line["all"] for line in lines):
                far |= set(names)
            if names and _named([names[0].partition("::")[0]], Path(mutant.path)):
                whole |= set(names)
        ranked = [sorted(some, key=seconds.__getitem__) for some in (near, far - near)]
        chosen = list(_within(budget, [*ranked[0], *ranked[1]] or sorted(whole, key=seconds.__getitem__), seconds))
        return tuple(chosen), sum(seconds[name] for name in chosen)

    def circles(self, path: str) -> Iterator[list[str]]:
        """Test files that may run a module, in widening circles: one is recorded where those before saw nothing.

        Those named after it, or else after its folder; those of the folder that mirrors its own and import it
        themselves; those named after a module that imports it; all that import it, and that folder.
        """
        dotted, under = _dotted(path), path.removeprefix("cl_steps/").split("/")
        mirror = f"tests/{under[0]}/" if len(under) > 1 else "tests/test_"
        importing = [name for name, imported in self._imports.items() if dotted in imported]
        folder = [name for name in self._imports if name.startswith(mirror)]
        known = dict.fromkeys([*folder, *importing])
        file = Path(path)
        named = _named(known, file) or _named(known, file.parent) or _named(self._imports, file)
        users = [name for user, imported in self._own_imports.items() if dotted in imported for name in self._of(user)]
        mirrored = [name for name in importing if name.startswith(mirror)]
        close = [name for name in mirrored if dotted in self._own_imports[name]]
        wide = [*mirrored, *importing, *(folder if len(under) > 1 else ())]
        seen: set[str] = set()
        for circle in (named, close, users, wide):
            new = [name for name in dict.fromkeys(circle) if name not in seen]
            seen |= set(new)
            yield from (new[start : start + FILES] for start in range(0, len(new), FILES))

    def _of(self, user: str) -> list[str]:
        return [] if user.startswith("tests/") else _named(self._imports, Path(user))

    @cached_property
    def _own_imports(self) -> dict[str, set[str]]:
        """What each file imports, of the tests and of the code."""
        folders = {"tests", *(path.partition("/")[0] for path in self.sources)}
        files = sorted(file for folder in folders for file in (self.copy.root / folder).rglob("*.py"))
        return {str(file.relative_to(self.copy.root)): set(_imported(file)) for file in files}

    @cached_property
    def _imports(self) -> dict[str, set[str]]:
        """What each test file imports, the helpers among the tests followed."""
        names = {name: set(own) for name, own in self._own_imports.items() if name.startswith("tests/")}
        helpers = {name.removesuffix(".py").replace("/", "."): name for name in names}
        for _ in range(3):
            for imported in names.values():
                imported.update(*(names[helpers[other]] for other in imported & set(helpers)))
        return {name: imported for name, imported in names.items() if _is_test(name)}

    def _record(self, name: str) -> dict[str, Any]:
        if name not in self.records:
            listed = "\n".join(self.sources).encode()
            digest = hashlib.sha256((self.copy.root / name).read_bytes() + listed).hexdigest()[:16]
            file = self.kept / f"{name.replace('/', '.')}-{digest}.json"
            if not file.exists():
                print(f"recording {name}", flush=True)
                ended = self.copy.child(lambda: (0, record(self.copy.root, name, self.sources)), 2 * MOST_SECONDS)
                if ended.left is None and ended.code is not None:
                    raise RuntimeError(f"{name} cannot be recorded: {self.copy.log()[-2000:]}")
                self.kept.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(ended.left or {"seconds": {}, "ran": {}}), encoding="utf-8")
            self.records[name] = json.loads(file.read_bytes())
        return self.records[name]


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _named(tests: Iterable[str], path: Path) -> list[str]:
    """The test files that bear a module's name, or begin with it."""
    stem = path.stem if path.stem != "__init__" else path.parent.name
    return [name for name in tests if f"{Path(name).stem}_".startswith(f"test_{stem}_")]


def _is_test(name: str) -> bool:
    return Path(name).name.startswith("test_") and not name.startswith(("tests/cluster/", "tests/mutants/"))


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _within(budget: float, names: Iterable[str], seconds: dict[str, float]) -> Iterator[str]:
    left = budget
    for place, name in enumerate(names):
        left -= seconds[name]
        if place and left < 0:
            return
        yield name


class Recorder(Report):
    """Coverage's context is the test that runs."""

    def __init__(self, cover: coverage.Coverage, until: float) -> None:
        super().__init__()
        self.cover, self.until = cover, until

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """What a fixture runs may be run for all tests of the file."""
        self.cover.switch_context(f"setup|{item.nodeid}")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """The test itself."""
        self.cover.switch_context(f"call|{item.nodeid}")
        return (yield)

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Nobody's; and after long enough the session ends."""
        self.cover.switch_context("")
        if time.monotonic() > self.until:
            item.session.shouldstop = "recorded for long enough"


def record(root: Path, name: str, sources: Iterable[str]) -> dict[str, Any]:
    """Run one test file: the seconds of each test that passed; by source and line, by which, and whether by all."""
    cover = coverage.Coverage(data_file=None, config_file=False, include=[str(root / path) for path in sources])
    cover.set_option(
        "run:disable_warnings", ["no-data-collected", "module-not-measured", "module-not-imported", "dynamic-conflict"]
    )
    recorder = Recorder(cover, time.monotonic() + MOST_SECONDS)
    cover.start()
    pytest.main([*QUIET, f"--basetemp={root.parent}/t/p", name], plugins=[recorder])
    cover.stop()
    places = {test: place for place, test in enumerate(recorder.seconds)}
    ran: dict[str, Any] = {}
    data = cover.get_data()
    for path in sources:
        texts = (root / path).read_text(encoding="utf-8").splitlines() or [""]
        lines: Any = defaultdict(lambda: {"by": set(), "all": False})
        for number, contexts in data.contexts_by_lineno(str(root / path)).items():
            line = lines[texts[number - 1].strip()]
            for when, _, test in (context.partition("|") for context in contexts):
                line["all"] |= when in ("", "setup")
                line["by"] |= {places[test]} if test in places else set()
        if lines:
            ran[path] = {text: {"by": sorted(line["by"]), "all": line["all"]} for text, line in lines.items()}
    return {"seconds": recorder.seconds, "ran": ran}
