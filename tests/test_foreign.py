"""Whatever is raised, a person reads one sentence, and the traceback lies in a file that tells no secrets."""

from __future__ import annotations

import errno
import json
import re
import sqlite3
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cl_steps import __main__ as command_line
from cl_steps.errors import FaultsFound, Unavailable, UsageError
from cl_steps.foreign import KEPT_FILES, redacted, told


def raised(make: Callable[[], object]) -> Exception:
    """The error with its traceback, as it is caught."""
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def throw(error: Exception) -> None:
    raise error


def of(error: Exception) -> Exception:
    return raised(partial(throw, error))


def endless() -> None:
    endless()


def full_database() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("PRAGMA page_size = 512")
    db.execute("PRAGMA max_page_count = 2")
    db.execute("CREATE TABLE t (x)")
    db.execute("INSERT INTO t VALUES (zeroblob(99999))")


FOREIGN: dict[str, tuple[Callable[[], object], int, str]] = {
    "a full disk": (
        lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")),
        6,
        "no room is left on a disk",
    ),
    "a full database": (full_database, 6, "no room is left on a disk"),
    "memory": (lambda: bytearray(2**62), 6, "memory ran out"),
    "files": (partial(throw, OSError(errno.EMFILE, "x")), 6, "too many files"),
    "a connection": (partial(throw, ConnectionResetError(104, "reset by peer")), 6, "connection failed"),
    "depth": (endless, 1, "RecursionError"),
    "text": ("\udcff".encode, 1, "UnicodeEncodeError"),
    "a file": (lambda: Path("/nowhere/at/all").read_bytes(), 1, "No such file or directory: '/nowhere/at/all'"),
    "a library": (lambda: {}["a\nb"], 1, "KeyError"),
}


@pytest.mark.parametrize(("make", "code", "words"), FOREIGN.values(), ids=FOREIGN)
def test_it_is_one_sentence_with_its_exit_code(
    make: Callable[[], object], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = raised(make)
    said = told(error, "night")
    assert (said.exit_code, words in str(said), "\n" in str(said)) == (code, True, False)
    [file] = tmp_path.iterdir()
    assert str(file) in str(said)
    assert type(error).__name__ in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_full_is_named(tmp_path: Path) -> None:
    said = told(of(OSError(errno.ENOSPC, "No space left", "a", None, str(tmp_path / "deep" / "b"))))
    assert re.search(rf"MiB free in {re.escape(str(tmp_path))}\)", str(said))


def test_what_is_behind_a_librarys_error_counts() -> None:
    def make() -> None:
        try:
            full_database()
        except sqlite3.Error as error:
            raise RuntimeError("the cache") from error

    assert isinstance(told(raised(make)), Unavailable)


def test_our_own_errors_stay_what_they_are() -> None:
    error = UsageError("say it")
    assert told(error) is error


def test_no_secret_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("RETAIN_SIGNING_KEY", str(tmp_path))
    words = f"PUT https://me:hunter2hunter2@host/x hunter2hunter2 ssh://token@host {tmp_path}"
    said = told(of(RuntimeError(words)))
    [file] = tmp_path.iterdir()
    for text in (str(said), file.read_text()):
        assert "hunter2" not in text
        assert "token@" not in text
    assert redacted(words) == f"PUT https://***@host/x *** ssh://***@host {tmp_path}"


def test_a_workspace_keeps_the_newest_tracebacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".retain").mkdir()
    (tmp_path / ".retain" / "line.json").touch()
    for number in range(KEPT_FILES + 3):
        told(of(RuntimeError(f"number {number}")), "night", tmp_path / "none", tmp_path)
    kept = sorted(tmp_path.glob(".retain/retain-error-*.txt"))
    assert len(kept) == KEPT_FILES
    assert f"number {KEPT_FILES + 2}" in kept[-1].read_text()
    assert (tmp_path / ".retain" / "line.json").exists()


def test_in_a_container_the_traceback_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("RETAIN_IMAGE", "retain:1")
    assert "its traceback stands above" in str(told(of(RuntimeError("x"))))
    assert "Traceback" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_sentence_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    assert "no room for its traceback" in str(told(of(RuntimeError("x")), "x", Path("/also/nowhere"), Path("a\0b")))


def broken(**_: object) -> None:
    raise RecursionError("too deep")


def faulty(**_: object) -> None:
    raise FaultsFound("two faults", {"faults": [1, 2]})


@pytest.mark.parametrize(("function", "code"), [(broken, 1), (faulty, 5)])
def test_json_stays_json(
    function: Callable[..., None], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("cl_steps.commands.verify.verify", function)
    assert command_line.main(["verify", "--json", "--dir", str(tmp_path)]) == code
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert (json.loads(out) if out else None) == ({"faults": [1, 2]} if code == 5 else None)
