"""`kill -9` anywhere: main is as before or as after, and the same command again ends as if nothing had happened.

A line is played twice, with a model that is none: once in peace, which says how long each
command takes and what the state is after it; once with every command killed at a moment of its duration, drawn from a
seed, and given again. The whole process group dies, as in a pod, and git's processes with it; of a daemon's remote the
other side lives on.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cl_steps.commands.rollback import rollback
from cl_steps.commands.withdraw import withdraw
from cl_steps.config import RunSpec
from cl_steps.errors import RetainError, Unavailable
from cl_steps.ledger.names import tag_of
from cl_steps.operations.retention import mirrored, needs
from cl_steps.pipeline import STAGES
from cl_steps.repository import mainline
from cl_steps.repository.git import git, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import open_run
from cl_steps.run.stage import run_stage
from cl_steps.steps import close, promote
from cl_steps.store.objects import open_store
from tests.lasting import documents, read_json
from tests.lines import playing
from tests.lines.cheap import put_run
from tests.lines.fake_model import stage
from tests.lines.small import GOOD, make_workspace

PICTURES = 8
VERDICTS = {"drift": "drifted", "gate": "promote"}


@dataclass(frozen=True)
class Act:
    """A command on a line: what it is called, the run or picture or version that it is about."""

    name: str
    about: str

    def do(self, line: Line) -> None:
        """Run it here."""
        folder = str(Path(line.landing).parent)
        stages = {step.name: step for step in STAGES}
        if self.name == "open":
            open_run(line, RunSpec(id=self.about))
        elif self.name in stages:
            run_stage(line, self.about, stages[self.name], stage(self.name, VERDICTS))
        elif self.name == "promote":
            promote._check_figures = lambda *_: None
            promote.run(line, self.about)
        elif self.name == "close":
            close.run(line, self.about)
        elif self.name == "withdraw":
            withdraw(self.about, None, "asked to", False, "ann", "command line", folder, json=True)
        else:
            rollback(self.about, "as it was", False, "ann", "command line", folder)


Acts = list[tuple[int, Act]]
"""Acts and the cycle that each belongs to."""


def cycles(number: int) -> Acts:
    """Nights, one picture of each withdrawn, and back to the first version: every cycle costs the same."""
    found: Acts = []
    for cycle in range(1, number + 1):
        names = ("open", *(step.name for step in STAGES), "promote", "close")
        found += [(cycle, Act(name, f"r-{cycle}")) for name in names]
        found += [(cycle, Act("withdraw", playing.sha_of(first_picture(cycle)))), (cycle, Act("rollback", "v1"))]
    return found


def first_picture(cycle: int) -> int:
    return 100 + PICTURES * cycle


@dataclass
class Peace:
    """What a line is after each act that nobody disturbed, and how long the act took, in seconds."""

    states: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Tally:
    """What kills met."""

    kills: int = 0
    too_late: int = 0
    landed: int = 0
    locks: int = 0


CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> None:
    CONTEXT.set_forkserver_preload(["tests.operations.test_kills", "dvc.repo"])
    first = CONTEXT.Process(target=int)
    first.start()
    first.join()


def _child(act: Act, line: Line, scratch: str, said: str) -> None:
    os.setsid()
    os.environ["TMPDIR"] = scratch
    try:
        act.do(line)
        words = ""
    except RetainError as error:
        words = f"{type(error).__name__}: {error}"
    Path(said).write_text(words, encoding="utf-8")


def attempt(act: Act, line: Line, place: Path, seconds: float | None = None) -> str | None:
    """Run an act in a process group of its own: its error, empty if it is done, None if killed after `seconds`."""
    scratch, said = place / "scratch", place / "said"
    scratch.mkdir(exist_ok=True)
    said.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_child, args=(act, line, str(scratch), str(said)))
    process.start()
    process.join(seconds)
    if process.is_alive():
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
    shutil.rmtree(scratch)
    return said.read_text(encoding="utf-8") if said.is_file() else None


def in_peace(line: Line, place: Path, acts: Acts) -> Peace:
    peace = Peace()
    for cycle, act in acts:
        land(line, cycle)
        began = time.monotonic()
        assert attempt(act, line, place) == "", act
        peace.seconds.append(time.monotonic() - began)
        peace.states.append(state_of(line))
    return peace


def under_fire(line: Line, place: Path, acts: Acts, peace: Peace, kills: int, seed: int, each: int = 1) -> Tally:
    """The same acts, each killed `each` times and then given again, until so many kills met a living process."""
    dice, tally = random.Random(seed), Tally()
    for (cycle, act), state, seconds in zip(acts, peace.states, peace.seconds, strict=True):
        land(line, cycle)
        before = after = tip_of(line)
        for _ in range(each):
            if tally.kills < kills:
                met = attempt(act, line, place, dice.uniform(0.02, seconds)) is None
                tally.kills, tally.too_late = tally.kills + met, tally.too_late + (not met)
                after = check_whole(line, before)
        tally.landed += after != before
        again(act, line, place, tally)
        assert state_of(line) == state, act
    return tally


def again(act: Act, line: Line, place: Path, tally: Tally) -> None:
    """Give the command again. A lock that a killed git left is named; a person deletes it."""
    for _ in range(4):
        words = attempt(act, line, place)
        if words == "":
            return
        left = [path for path in locks(line) if str(words).startswith("Unavailable") and path.name in str(words)]
        assert left, f"{act} again: {words}"
        tally.locks += 1
        for path in left:
            path.unlink()
    raise AssertionError(f"{act} does not end")


def locks(line: Line) -> list[Path]:
    return sorted(path for path in remote_of(line).rglob("*.lock") if path.is_file())


def remote_of(line: Line) -> Path:
    """The folder of the line's Git remote, also where a daemon serves it."""
    return Path(line.landing).parent / ".retain" / "git"


def land(line: Line, cycle: int) -> None:
    playing.land(line, range(first_picture(cycle), first_picture(cycle) + PICTURES))


def tip_of(line: Line) -> str:
    return text(remote_of(line), "rev-parse", "refs/heads/main")


def state_of(line: Line) -> str:
    return text(remote_of(line), "rev-parse", "refs/heads/main:state")


def check_whole(line: Line, before: str) -> str:
    """Main is `before`, or one commit later, and agrees with itself; no branch names what the store lacks."""
    remote = remote_of(line)
    tip = tip_of(line)
    assert tip == before or text(remote, "rev-parse", f"{tip}^") == before
    with reading(str(remote)) as main:
        records, ledger = documents(main), main.ledger()
        promoted = {event.version: run for run, event in ledger.runs.items() if event.outcome == "promoted"}
        assert {record["version"]: record["run"] for record in records[1:]} == promoted
        champion = read_json(main, "state/champion.json")["version"]
        assert champion in {record["version"] for record in records}
        changed = bool(ledger.tombstones or ledger.rollbacks)
        if not changed:
            digests = next(record for record in records if record["version"] == champion)["digests"]["state"]
            for name in ("adapter", "replay", "global_eval"):
                assert digests[name].encode() in (main.read(f"state/{name}.dvc") or b"")
    return tip


def check_end(line: Line) -> None:
    """The store holds all that is named, and nothing that is not what its name says; Git is sound; tags are right."""
    remote = remote_of(line)
    git(remote, "fsck", "--strict", "--no-dangling")
    with mirrored(str(remote)) as (main, refs), open_store(line.store) as store:
        needed = needs(main, refs)
        assert store.with_files(needed.listed, needed.listed) <= store.inventory().sizes.keys()
        assert main.mend_tags() == []
        for number in main.numbers()[1:]:
            assert refs[f"refs/tags/{tag_of(number)}"] == main._tag(tag_of(number), main.version_commit(f"v{number}"))
        assert len(main.ledger().rollbacks) == len(main.numbers()) - 1
    for path in (path for path in Path(line.store, "files").rglob("*") if path.is_file() and path.suffix != ".tmp"):
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        assert f"{path.parent.name}{path.name}".removesuffix(".dir") == digest


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Line], Line]]:
    """Makes the same line reachable through a `git daemon`."""
    base, port = tmp_path_factory.mktemp("served"), free_port()
    words = ["git", "daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--informative-errors"]
    where = [f"--base-path={base}", "--listen=127.0.0.1", f"--port={port}"]
    daemon = subprocess.Popen([*words, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def serve(line: Line) -> Line:
        name = Path(line.landing).parent.name
        (base / name).symlink_to(line.git)
        there = replace(line, git=f"git://127.0.0.1:{port}/{name}")
        there.save(Path(line.landing).parent)
        return there

    yield serve
    daemon.terminate()
    daemon.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def copy_of(fresh: Path, folder: Path) -> Line:
    shutil.copytree(fresh, folder, symlinks=True)
    line = playing.local(folder)
    line.save(folder)
    git(folder, "remote", "set-url", "origin", line.git)
    return line


@pytest.mark.parametrize("remote", ["files", "daemon"])
def test_gate_promotion_close_and_rollback_killed_anywhere(
    tmp_path: Path, served: Callable[[Line], Line], remote: str
) -> None:
    acts = [(0, Act(name, "r-1")) for name in ("gate", "promote", "close")] + [(0, Act("rollback", "v1"))]
    first = make_workspace(tmp_path / "peace")
    put_run(first, "r-1", {name: verdict for name, verdict in GOOD.items() if name != "gate"})
    line = copy_of(tmp_path / "peace", tmp_path / remote)
    peace = in_peace(first, tmp_path, acts)
    line = served(line) if remote == "daemon" else line
    tally = under_fire(line, tmp_path, acts, peace, kills=6, seed=0, each=2)
    assert tally.kills >= 4
    check_end(line)


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["files", "daemon"])
def test_two_hundred_kills(tmp_path: Path, served: Callable[[Line], Line], remote: str) -> None:
    """A hundred for each kind of remote."""
    acts = cycles(14)
    playing.make_line(tmp_path / "fresh")
    peace = in_peace(copy_of(tmp_path / "fresh", tmp_path / "peace"), tmp_path, acts)
    line = copy_of(tmp_path / "fresh", tmp_path / remote)
    line = served(line) if remote == "daemon" else line
    tally = under_fire(line, tmp_path, acts, peace, kills=100, seed=len(remote))
    check_end(line)
    print(json.dumps({"remote": remote, **vars(tally)}))
    assert tally.kills == 100


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line with a run that can be promoted."""
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)
    monkeypatch.setattr(mainline, "TRIES", 2)
    line = make_workspace(tmp_path / "line")
    put_run(line, "r-1", GOOD)
    return line


def test_a_server_killed_between_two_refs_left_a_new_main_and_no_tag(ready: Line) -> None:
    """And the lock of the tag, as `git push --atomic` into a folder does."""
    remote, tag = Path(ready.git), f"refs/tags/{tag_of(2)}"
    assert promote.run(ready, "r-1") == "v2"
    before = remote_refs(ready.git)
    git(remote, "update-ref", "-d", tag)
    lock = remote / f"{tag}.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    assert promote.run(ready, "r-1") == "v2", "main says that it is done"
    with pytest.raises(Unavailable, match=rf"v0\.0\.2 cannot be made again: its lock .*{lock.name} is in the way"):
        close.run(ready, "r-1")
    lock.unlink()
    assert close.run(ready, "r-1") == "promoted"
    assert remote_refs(ready.git) == before


def test_a_server_killed_before_its_first_ref_left_locks(ready: Line) -> None:
    """The process that takes the push dies for real, when all locks are taken and nothing is written."""
    remote = Path(ready.git)
    before = remote_refs(ready.git)
    hook = remote / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\n[ "$1" = prepared ] && kill -9 $PPID\nexit 0\n', encoding="utf-8")
    hook.chmod(0o755)
    with pytest.raises(Unavailable, match="did not take the change"):
        promote.run(ready, "r-1")
    hook.unlink()
    assert remote_refs(ready.git) == before
    left = {path.name for path in locks(ready)}
    assert left >= {"main.lock", f"{tag_of(2)}.lock"}
    with pytest.raises(Unavailable, match=r"its lock .*\.lock is in the way: delete it if no Git is at work there"):
        promote.run(ready, "r-1")
    for path in locks(ready):
        path.unlink()
    assert promote.run(ready, "r-1") == "v2"
    assert close.run(ready, "r-1") == "promoted"
