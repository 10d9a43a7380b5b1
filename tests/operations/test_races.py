"""Many promotions of one line at the same moment, while people edit parameters and other runs' intakes land."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from cl_steps.errors import StaleRun
from cl_steps.ledger.names import tag_of
from cl_steps.repository.git import git, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.repository.run_branch import read_run
from cl_steps.steps import close, promote
from cl_steps.store.pointers import dvc_file, lock_outs
from tests.lasting import documents, read_json
from tests.lines.cheap import put_folder, put_runs
from tests.lines.small import GOOD, make_workspace

RACERS = 8
EDITORS = 2
STALE = "stale"


def _begin(barrier: Barrier) -> None:
    """In each process: take the stored verdict, and reach for main at the same moment as all others."""
    promote._check_figures = lambda *_: None
    checked = promote._check

    def check(*arguments: object) -> None:
        checked(*arguments)  # type: ignore[arg-type]
        barrier.wait(120)

    promote._check = check
    globals()["_BARRIER"] = barrier


def _promote(line: Line, run: str) -> str:
    try:
        return promote.run(line, run)
    except StaleRun:
        return STALE
    except BaseException:
        globals()["_BARRIER"].abort()  # the others need not wait
        raise


def _edit(line: Line, name: str) -> str:
    """What lands on main meanwhile: a parameter, and an intake of another run."""
    intake = dvc_file(put_folder(Path(line.store), name.encode()), name)
    with reading(line.git) as main:
        globals()["_BARRIER"].wait(120)
        main.swap(lambda: _edited(main, name, intake))
    return "edited"


def _edited(main: Mainline, name: str, intake: bytes) -> Change:
    params = (main.read("params.yaml") or b"") + f"# {name}\n".encode()
    return Change({"params.yaml": params, f"data/{name}.dvc": intake}, f"edit {name}")


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cl_steps.steps.promote", "dvc.repo", "tests.operations.test_races"])
    barrier = context.Barrier(RACERS + EDITORS)
    with ProcessPoolExecutor(RACERS + EDITORS, mp_context=context, initializer=_begin, initargs=(barrier,)) as pool:
        yield pool


def race(line: Line, processes: ProcessPoolExecutor, round_: int) -> dict[str, str]:
    """Prepare the runs of a round on main as it is, let all of them promote at once, and say what each got."""
    runs = [f"round-{round_}-run-{number}" for number in range(RACERS)]
    with reading(line.git) as main:
        put_runs(main, line, runs, GOOD)
    racing: list[Future[str]] = [processes.submit(_promote, line, run) for run in runs]
    editing = [processes.submit(_edit, line, f"edit-{round_}-{number}") for number in range(EDITORS)]
    got = {run: future.result() for run, future in zip(runs, racing, strict=True)}
    assert [future.result() for future in editing] == ["edited"] * EDITORS
    return got


def check(line: Line, round_: int, got: dict[str, str]) -> None:
    """One winner, whose state is main's; the edits are there; the losers stay losers and can be closed."""
    version = f"v{round_ + 1}"
    assert sorted(got.values()) == [STALE] * (RACERS - 1) + [version]
    winner = next(run for run, result in got.items() if result == version)
    with reading(line.git) as main:
        records = documents(main)
        assert [record["version"] for record in records] == [f"v{number + 1}" for number in range(round_ + 1)]
        assert (records[-1]["run"], records[-1]["parent"]) == (winner, f"v{round_}")
        assert read_json(main, "state/champion.json")["version"] == version
        adapter = lock_outs(read_run(line, winner).lock)["tonight/candidate/adapter"]["md5"]
        assert str(adapter).encode() in (main.read("state/adapter.dvc") or b"")
        for number in range(EDITORS):
            assert f"# edit-{round_}-{number}\n".encode() in (main.read("params.yaml") or b"")
            assert main.read(f"data/edit-{round_}-{number}.dvc")
        tagged = remote_refs(line.git, f"refs/tags/{tag_of(round_ + 1)}^{{}}")
        assert list(tagged.values()) == [main.version_commit(version)]
    assert text(Path(line.git), "log", "--format=%s", "main").count(f"promote {version}\n") == 1
    check_loser(line, next(run for run, result in got.items() if result == STALE))


def check_loser(line: Line, run: str) -> None:
    """Said again it is the same answer; closed it is `stale`, and what it took in waits for another run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promote, "_check_figures", lambda *_: None)
        with pytest.raises(StaleRun, match="trigger a new run"):
            promote.run(line, run)
    assert close.run(line, run) == "stale"
    with reading(line.git) as main:
        assert main.ledger().intakes[run].status == "pending"


def play_rounds(folder: Path, processes: ProcessPoolExecutor, rounds: int) -> Line:
    line = make_workspace(folder)
    for number in range(1, rounds + 1):
        check(line, number, race(line, processes, number))
    git(Path(line.git), "fsck", "--strict", "--no-dangling")
    assert len(remote_refs(line.git, "refs/tags/model@*^{}")) == rounds + 1
    return line


def test_one_winner_a_round(tmp_path: Path, processes: ProcessPoolExecutor) -> None:
    play_rounds(tmp_path / "line", processes, rounds=1)


@pytest.mark.slow
def test_fifty_rounds(tmp_path: Path, processes: ProcessPoolExecutor) -> None:
    play_rounds(tmp_path / "line", processes, rounds=50)
