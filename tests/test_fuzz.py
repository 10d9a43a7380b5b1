"""Whatever a parameter file or a landing holds: it is taken, or refused in one sentence, and at once.

RETAIN_FUZZ_SEED and RETAIN_FUZZ_FILES choose others, and more of them; a file that fails is `files(seed, n + 1)[n]`.
"""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cl_steps.config import Ingest, Params, load_params, load_run, parse_overrides
from cl_steps.data import quarantine
from cl_steps.data.intake import take_in
from cl_steps.data.quarantine import printable
from cl_steps.documents import json_text
from cl_steps.errors import RetainError
from cl_steps.records.keys import read_trusted
from cl_steps.store.pointers import read_dvc_file, read_lock
from tests.data.fuzzing import good_archives, good_pictures, spoilt_landing
from tests.data.hostile import counted
from tests.data.landings import put
from tests.fuzzing import DOCUMENT, VALUES, files, paths

SEED = int(os.environ.get("RETAIN_FUZZ_SEED", "0"))
PROJECT = Path(__file__).parents[1]
FEW, MANY = 150, int(os.environ.get("RETAIN_FUZZ_FILES", "10000"))
PATIENCE_SECONDS = 20


class Hang(BaseException):
    """A file was not read in `PATIENCE_SECONDS`, a thousand times what it should take."""


@contextmanager
def no_hang() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ended(read: Callable[[], Any]) -> str:
    """How a reading ended: taken, or refused as it should be; what else it raises goes on."""
    try:
        with no_hang():
            found = read()
    except RetainError as error:
        _check_sentence(error)
        return "refused"
    if isinstance(found, Params):
        assert json_text(found.model_dump())
        assert all(math.isfinite(value) for value in numbers(found.model_dump()))
    return "taken"


def _check_sentence(error: RetainError) -> None:
    assert 0 < len(printable(str(error))) < 1000
    assert error.exit_code in (2, 5)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def try_all(folder: Path, number: int) -> Counter[str]:
    """Read each file as every kind of YAML file that others bring us."""
    seen: Counter[str] = Counter()
    for index, content in enumerate(files(SEED, number)):
        for name in ("params.yaml", "run.yaml", "trusted.yaml"):
            (folder / name).write_bytes(content)
        readers: dict[str, Callable[[], Any]] = {
            "params.yaml": lambda: load_params(folder),
            "run.yaml": lambda: load_params(PROJECT, load_run(folder)),
            "trusted.yaml": lambda: read_trusted(folder / "trusted.yaml"),
            "dvc.lock": lambda content=content: read_lock(content),  # type: ignore[misc]
            ".dvc": lambda content=content: read_dvc_file(content),  # type: ignore[misc]
            "--set": lambda content=content: parse_overrides([f"seed={os.fsdecode(content)}"]),  # type: ignore[misc]
        }
        for name, read in readers.items():
            try:
                seen[f"{name} {ended(read)}"] += 1
            except BaseException as error:
                raise AssertionError(f"file {index} of seed {SEED}, as {name}: {content[:300]!r}") from error
    return seen


def test_any_file_is_taken_or_refused_in_a_sentence(tmp_path: Path) -> None:
    seen = try_all(tmp_path, FEW)
    assert seen["params.yaml taken"] > 0
    assert seen["params.yaml refused"] > FEW / 2


@pytest.mark.slow
def test_many_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = try_all(tmp_path, MANY)
    with capsys.disabled():
        print("\n", dict(sorted(seen.items())))
    for name in ("params.yaml", "run.yaml", "trusted.yaml", "dvc.lock", ".dvc", "--set"):
        assert seen[f"{name} taken"] > 0, "some are right"
        assert seen[f"{name} taken"] + seen[f"{name} refused"] == MANY


@pytest.mark.slow
@pytest.mark.parametrize("name", list(paths(DOCUMENT)))
def test_every_key_with_every_wrong_value(tmp_path: Path, name: str) -> None:
    for value in VALUES:
        block = value
        for part in reversed(name.split(".")):
            block = f"{{{part}: {block}}}"
        (tmp_path / "params.yaml").write_bytes(block.encode(errors="surrogatepass"))
        ended(lambda: load_params(tmp_path))


def take_spoilt(folder: Path, seed: int, number: int) -> Counter[str]:
    """Take in a spoilt landing and say what became of its pictures, by code; everything is counted once."""
    spoilt_landing(folder, seed, number)
    with no_hang():
        intake = take_in(folder, Ingest(), 0, "r-1")
    assert counted(intake) == intake.landed.arrived
    assert all(found.code in str(quarantine.__doc__) for found in intake.quarantine)
    assert all(found.file.isprintable() and found.reason.isprintable() for found in intake.quarantine)
    for asset in intake.assets:
        assert asset.picture((8, 8)).mode == "RGB"
    return Counter(found.code for found in intake.quarantine) + Counter(taken=len(intake.assets))


def test_what_a_fuzz_begins_with_is_taken(tmp_path: Path) -> None:
    for number, content in enumerate(good_pictures()):
        put(tmp_path, f"{number}.img", content)
        put(tmp_path, f"{number}.txt", b"a caption")
    for name, content in good_archives():
        put(tmp_path, name, content)
    intake = take_in(tmp_path, Ingest(), 0, "r-1")
    assert [(found.file, found.code) for found in intake.quarantine] == [("w.tar/d/2.jpg", "no_caption")]


def test_any_landing_is_taken_or_set_aside(tmp_path: Path) -> None:
    seen = take_spoilt(tmp_path, SEED, FEW)
    assert min(seen["taken"], seen["damaged"], seen["not_an_image"]) > 0


@pytest.mark.slow
def test_many_landings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = sum((take_spoilt(tmp_path / str(n), SEED + n, 500) for n in range(MANY // 500)), Counter[str]())
    with capsys.disabled():
        print("\n", dict(sorted(seen.items())))
    assert seen["taken"] > MANY / 20
