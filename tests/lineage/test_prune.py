"""Old runs go with what nobody else needs, in an order that a kill, a late promotion and a night cannot break."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

import cl_steps.promote
from cl_steps import close, promote
from cl_steps.commands import prune as command
from cl_steps.commands.answer import refuse
from cl_steps.commands.prune import prune
from cl_steps.commands.status import status
from cl_steps.errors import IntegrityError, Unavailable, UsageError
from cl_steps.report.collect import collect
from cl_steps.workspace import objects
from cl_steps.workspace.branch import read_run
from cl_steps.workspace.git import git, remote_refs, text
from cl_steps.workspace.line import Line, local
from cl_steps.workspace.mainline import Mainline, reading
from cl_steps.workspace.needs import current_refs, mirrored, needs
from cl_steps.workspace.objects import Objects, open_objects
from cl_steps.workspace.store import missing, opened
from tests.lineage.cheap import put_run
from tests.workspace.conftest import GOOD, make_workspace, play

ALARM = {"ingest": "ok", "drift": "alarming"}
QUIET = {"ingest": "ok", "drift": "quiet"}
REJECT = {**GOOD, "gate": "reject"}
OLD = {"rejected", "quiet", "failed", "stale", "refused"}
"""The runs of `lived` that came to nothing."""


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake figures give no verdict of their own: take the stored one."""
    monkeypatch.setattr(cl_steps.promote, "_check_figures", lambda root, params, verdict, run: None)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line with a run of every end, one that waits for an answer and one under way; all objects are days old."""
    line = make_workspace(tmp_path_factory.mktemp("lived") / "line")
    ends = {"rejected": REJECT, "quiet": QUIET, "failed": {"ingest": "ok"}, "refused": ALARM, "waiting": ALARM}
    for run in ("stale", "good"):
        put_run(line, run, GOOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cl_steps.promote, "_check_figures", lambda *_: None)
        promote.run(line, "good")
    for run, verdicts in ends.items():
        put_run(line, run, verdicts)
    for run in ("good", "stale", *ends):
        close.run(line, run)
    folder = Path(line.git).parents[1]
    refuse("refused", "<b>no</b>", "ann", "command line", str(folder))
    put_run(line, "under-way", {"ingest": "ok", "drift": "drifted", "update": None})
    make_old(line)
    return folder


@pytest.fixture
def line(lived: Path, tmp_path: Path) -> Line:
    """A copy of it."""
    shutil.copytree(lived, tmp_path / "line", symlinks=True)
    line = local(tmp_path / "line")
    line.save(tmp_path / "line")
    return line


def make_old(line: Line, days: float = 3) -> None:
    """Set all objects' times back."""
    for path in (path for path in Path(line.store).rglob("*") if path.is_file()):
        os.utime(path, (time.time() - days * 86400,) * 2)


def run_prune(line: Line, days: float = 0, dry_run: bool = False) -> dict[str, Any]:
    document = prune(str(Path(line.git).parents[1]), days, dry_run, json=True)
    assert isinstance(document, dict)
    return document


def branches(line: Line) -> set[str]:
    return {ref.removeprefix("refs/heads/runs/") for ref in remote_refs(line.git, "refs/heads/runs/*")}


def holds(line: Line, words: str) -> bool:
    """Whether some object of the store begins so; the stub's objects say what they are."""
    found = (path for path in Path(line.store).rglob("*") if path.is_file())
    return any(path.read_bytes().startswith(words.encode()) for path in found)


def whole(line: Line) -> bool:
    """Whether the store holds all that main ever named, every record and every remaining run."""
    with mirrored(line.git) as (main, refs), open_objects(line.store) as objects:
        needed = needs(main, refs)
        return objects.with_files(needed.listed, needed.listed) <= objects.sizes.keys()


def test_what_came_to_nothing_goes_and_all_else_stays(line: Line) -> None:
    done = run_prune(line)
    assert set(done["runs"]) == OLD
    assert branches(line) == {"good", "waiting", "under-way"}
    for run in ("rejected", "stale"):
        assert not holds(line, f"tonight/candidate/adapter {run}")
        assert holds(line, f"tonight/intake {run}"), "what came in stays, whatever became of the run"
    for kept in ("evaluation/samples good", "candidate/adapter good", "candidate/adapter under-way"):
        assert holds(line, f"tonight/{kept}")
    assert whole(line)
    assert done["objects"] > 0 < done["bytes"]
    assert close.run(line, "good") == "promoted"
    play(line, "under-way", GOOD)
    assert promote.run(line, "under-way") == "v3", "a night goes on beside it"


def test_reports_parameters_lock_and_answers_lie_in_the_archive_and_on_the_page(line: Line) -> None:
    before = {night.run: night for night in collect(line).nights}
    run_prune(line)
    listed = text(Path(line.git), "ls-tree", "-r", "--name-only", "archive").splitlines()
    assert {name.split("/")[1] for name in listed} == OLD
    kept = {name.removeprefix("archive/rejected/") for name in listed if name.startswith("archive/rejected/")}
    assert kept == {"params.yaml", "run.yaml", "dvc.lock", "reports/junit.xml"} | {
        f"reports/{step}.json" for step in ("ingest", "drift", "update", "evaluate", "gate")
    }
    answer = next(name for name in listed if name.startswith("archive/refused/events/"))
    assert json.loads(git(Path(line.git), "cat-file", "blob", f"archive:{answer}"))["reason"] == "<b>no</b>"
    after = {night.run: night for night in collect(line).nights}
    assert {run: (night.reports, night.params, night.answer) for run, night in after.items()} == {
        run: (night.reports, night.params, night.answer) for run, night in before.items()
    }


def test_a_dry_run_says_what_would_go_and_changes_nothing(line: Line) -> None:
    refs, files = remote_refs(line.git), sorted(Path(line.store).rglob("*"))
    would = run_prune(line, dry_run=True)
    assert (remote_refs(line.git), sorted(Path(line.store).rglob("*"))) == (refs, files)
    did = run_prune(line)
    assert {key: did[key] for key in ("objects", "bytes")} == {key: would[key] for key in ("objects", "bytes")}
    assert set(did["runs"]) == set(would["runs"])
    folder = str(Path(line.git).parents[1])
    assert "gone: 0 runs" in str(prune(folder, 0, dry_run=False, json=False))
    assert "would go: 0 runs (none) and 0 objects (0 B)" in str(prune(folder, 0, dry_run=True, json=False))


def test_young_runs_and_young_objects_stay(line: Line) -> None:
    assert run_prune(line, days=1)["runs"] == []
    assert branches(line) >= OLD
    make_old(line, days=0.5)
    done = run_prune(line)
    assert (set(done["runs"]), done["objects"]) == (OLD, 0)
    assert done["young_objects"] > 0 < done["young_bytes"]
    assert holds(line, "tonight/candidate/adapter rejected")
    make_old(line)
    assert run_prune(line)["objects"] == done["young_objects"], "the same command a day later"


@pytest.mark.parametrize("part", ["put_away", "_record", "_delete_branches", "_free"])
def test_killed_between_two_parts_the_same_command_goes_on(
    line: Line, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    real: Callable[..., Any] = getattr(command, part)

    def killed(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, part, killed)
        with pytest.raises(KeyboardInterrupt):
            run_prune(line)
    assert whole(line)
    run_prune(line)
    assert branches(line) == {"good", "waiting", "under-way"}
    assert not holds(line, "tonight/candidate/adapter rejected")
    assert whole(line)
    again = run_prune(line)
    assert (again["runs"], again["objects"]) == ([], 0)
    with reading(line.git) as main:
        assert set(main.ledger().pruned) == OLD
    log = text(Path(line.git), "log", "--format=%s", "archive").splitlines()
    assert log == ["archive 5 runs", "begin the archive of runs"], "nothing is archived twice"


def test_killed_while_objects_go_the_next_command_takes_the_rest(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []

    def remove(opened: Any, name: str) -> None:
        if len(gone) == 3:
            raise KeyboardInterrupt
        gone.append(name)
        opened._odb.fs.remove(opened._odb.oid_to_path(name))

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "_remove", remove)
        patch.setattr(objects, "AT_ONCE", 1)
        with pytest.raises(KeyboardInterrupt):
            run_prune(line)
    assert all(name.endswith(".dir") for name in gone), "lists of files go first: DVC trusts one that is there"
    assert run_prune(line)["objects"] > 0
    assert not holds(line, "tonight/candidate/adapter rejected")
    assert whole(line)


def test_a_run_taken_up_again_meanwhile_stays(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    real, remote = command.put_away, Path(line.git)

    def taken_up(*arguments: Any) -> None:
        real(*arguments)
        tip = read_run(line, "failed").tip
        commit = text(remote, "commit-tree", f"{tip}^{{tree}}", "-p", tip, "-m", "drift: done")
        git(remote, "update-ref", "refs/heads/runs/failed", commit)

    monkeypatch.setattr(command, "put_away", taken_up)
    assert set(run_prune(line)["runs"]) == OLD - {"failed"}
    assert "failed" in branches(line)
    assert {night.run for night in collect(line).nights} >= OLD
    with reading(line.git) as main:
        assert main.ledger().pruned["failed"] != read_run(line, "failed").tip


def test_a_promotion_that_lands_while_its_run_is_pruned_wins(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose promotion failed for want of a remote is `failed` and ready: nothing moves its branch any more."""
    put_run(line, "ready", GOOD)
    assert close.run(line, "ready") == "failed"
    real, promoted = command.put_away, []

    def meanwhile(*arguments: Any) -> None:
        real(*arguments)
        promoted.append(promote.run(line, "ready"))

    monkeypatch.setattr(command, "put_away", meanwhile)
    assert "ready" not in run_prune(line)["runs"]
    assert promoted == ["v3"]
    assert "ready" in branches(line)
    assert whole(line)


def test_a_promotion_that_comes_too_late_is_refused(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had read the branch and checked every object before the run was pruned."""
    put_run(line, "ready", GOOD)
    assert close.run(line, "ready") == "failed"
    make_old(line)
    with monkeypatch.context() as patch:
        patch.setattr(promote, "_check", lambda *_: run_prune(line))
        with pytest.raises(UsageError, match="was pruned: trigger a new run"):
            promote.run(line, "ready")
    assert "ready" not in branches(line)
    assert whole(line)
    put_run(line, "ready", GOOD, reason="the same run, from its beginning")
    assert promote.run(line, "ready") == "v3"


def test_a_run_that_began_meanwhile_keeps_its_objects(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its branch names old bytes that nothing else needs: the second look finds it."""
    tip, real, looks = read_run(line, "rejected").tip, command.current_refs, []

    def late(url: str) -> dict[str, str]:
        looks.append(url)
        if len(looks) == 2:  # the one before objects are deleted
            git(Path(line.git), "update-ref", "refs/heads/runs/late", tip)
        return real(url)

    monkeypatch.setattr(command, "current_refs", late)
    run_prune(line)
    assert holds(line, "tonight/candidate/adapter rejected")
    assert not holds(line, "tonight/candidate/adapter stale")


def test_what_a_killed_upload_left_goes(line: Line) -> None:
    run_prune(line)
    drafts = [Path(line.store) / "files" / "md5" / "ab" / f".{name}.tmp" for name in ("old", "new")]
    drafts[0].parent.mkdir(exist_ok=True)
    for draft in drafts:
        draft.write_bytes(b"half of it")
    make_old(line)
    os.utime(drafts[1])
    done = run_prune(line)
    assert (done["objects"], done["bytes"], done["young_objects"]) == (1, 10, 1)
    assert [draft.exists() for draft in drafts] == [False, True]


def test_a_lost_list_of_files_stops_the_deleting(line: Line) -> None:
    with reading(line.git) as main:
        name = main.records()[1]["digests"]["state"]["replay"]
    lost = Path(line.store) / "files" / "md5" / name[:2] / name[2:]
    lost.unlink()
    files = sorted(Path(line.store).rglob("*"))
    with pytest.raises(IntegrityError, match=f"{name} first"):
        run_prune(line)
    assert sorted(Path(line.store).rglob("*")) == files


def test_what_an_event_erased_goes_and_what_replaced_it_stays(line: Line) -> None:
    with reading(line.git) as main:
        old, new = (main.records()[n]["digests"]["state"]["replay"] for n in (1, 0))
        path = "events/20990101T000000000000Z-withdrawal-x.json"
        event = {"schema": 2, "kind": "withdrawal", "id": "x", "assets": [], "erased": [old]}
        event["replaced"] = {old: {"md5": new}}
        main.swap(lambda: command.Change({path: json.dumps(event).encode()}, "withdraw"))
        champion = main.read("state/replay.dvc") or b""
    assert old.encode() in champion, "the champion's own state is needed, whatever an event says"
    run_prune(line)
    assert whole(line)
    with reading(line.git) as main:
        main.swap(lambda: command.Change({"state/replay.dvc": champion.replace(old.encode(), new.encode())}, "restore"))
    assert run_prune(line)["objects"] == 2, "the folder and its file, though the branch of its run names them"
    assert not (Path(line.store) / "files" / "md5" / old[:2] / old[2:]).exists()
    assert whole(line)


def test_a_credential_that_deletes_nothing_is_one_clear_sentence(line: Line) -> None:
    hook = Path(line.git) / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nwhile read old new ref; do case $new in *[1-9a-f]*) ;; *) exit 1;; esac; done\n")
    hook.chmod(0o755)
    with pytest.raises(Unavailable, match="trusted credential"):
        run_prune(line)
    assert branches(line) >= OLD
    assert holds(line, "tonight/candidate/adapter rejected")


@pytest.mark.parametrize("days", [-1.0, float("nan"), float("inf")])
def test_days_must_be_days(line: Line, days: float) -> None:
    with pytest.raises(UsageError, match="--days"):
        run_prune(line, days)


def test_backups_do_not_ask_for_what_was_pruned(line: Line) -> None:
    from cl_steps.workspace.bundle import stored_objects

    run_prune(line)
    with mirrored(line.git) as (main, refs), opened(Path(line.git).parent, line.store, no_scm=True) as repo:
        named = [{**out, "path": out["md5"]} for out in stored_objects(main.folder, refs)]
        assert named
        assert not missing(repo, named)


def test_status_says_how_large_it_is_and_for_what(line: Line) -> None:
    folder = str(Path(line.git).parents[1])
    before = status(folder, json=True, remote=True)["remote"]  # type: ignore[index]
    assert before["needed_by"]["nothing"]["objects"] == 0
    assert sum(share["objects"] for share in before["needed_by"].values()) == before["store"]["objects"]
    assert sum(share["bytes"] for share in before["needed_by"].values()) == before["store"]["bytes"]
    assert before["store"]["bytes"] == sum(p.stat().st_size for p in Path(line.store).rglob("*") if p.is_file())
    assert before["git"] == {"refs": len(current_refs(line.git)), "bytes": before["git"]["bytes"]}
    make_old(line, days=0)
    done = run_prune(line)
    after = status(folder, json=True, remote=True)["remote"]  # type: ignore[index]
    assert after["needed_by"]["nothing"] == {"objects": done["young_objects"], "bytes": done["young_bytes"]}
    said = str(status(folder, json=False, remote=True))
    assert "for nothing (`retain prune`)" in said
    assert "remote" not in status(folder, json=True)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a store on an S3 server of our own."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer(port=0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("pruned")
    yield "s3://pruned/store"
    server.stop()


def test_on_s3_as_in_a_folder(line: Line, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{line.store}/files", f"{bucket}/files", recursive=True)
    there = replace(line, store=bucket)
    there.save(Path(line.git).parents[1])
    young = run_prune(there)
    assert (set(young["runs"]), young["objects"]) == (OLD, 0)
    monkeypatch.setattr(command, "GRACE", -command.GRACE)
    assert run_prune(there)["objects"] == young["young_objects"]
    left = set(fsspec.filesystem("s3", skip_instance_cache=True).find(f"{bucket}/files"))
    make_old(line)
    assert run_prune(line)["objects"] == 0
    with mirrored(line.git) as (main, refs), open_objects(bucket) as objects:
        needed = needs(main, refs)
        assert objects.with_files(needed.all, needed.listed) >= objects.sizes.keys()
        assert len(left) == len(objects.sizes)


def test_a_store_that_is_away_is_said(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    replace(line, store="s3://bucket/store").save(Path(line.git).parents[1])
    with pytest.raises(Unavailable):
        run_prune(line)


def test_the_command_line(line: Line) -> None:
    folder = str(Path(line.git).parents[1])
    words = ["python", "-m", "cl_steps", "prune", folder, "--days", "0", "--json"]
    done = subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    assert set(json.loads(done.stdout)["runs"]) == OLD
    with reading(line.git) as main:
        event = next(json.loads(c) for n, c in main.folder_files("events").items() if "-prune-" in n)
    assert event["kind"] == "prune"
    assert set(event["runs"]) == OLD
    assert event["by"].endswith("(claimed)")
    assert isinstance(main, Mainline)
