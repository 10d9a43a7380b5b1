"""Old runs go with what nobody else needs, in a folder and on S3, and all else stays."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

import cl_steps.steps.promote
from cl_steps.commands.prune import prune
from cl_steps.commands.status import status
from cl_steps.errors import IntegrityError, Unavailable, UsageError
from cl_steps.operations import prune as command
from cl_steps.operations.retention import current_refs, mirrored, needs
from cl_steps.report.collect import collect
from cl_steps.repository.git import git, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.steps import close, promote
from cl_steps.store.dvc import opened
from cl_steps.store.objects import Store, open_store
from cl_steps.store.pointers import lock_outs
from cl_steps.verify.verification import verify
from tests.lasting import documents, whole_event
from tests.lines.small import GOOD, play
from tests.operations.pruning import OLD, branches, holds, line_that_lived, make_old, run_prune, whole


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake figures give no verdict of their own: take the stored one."""
    monkeypatch.setattr(cl_steps.steps.promote, "_check_figures", lambda root, params, verdict, run: None)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_that_lived(tmp_path / "line")


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
    assert not verify(line, None, None).faults, "the pictures and figures of versions stay, too"
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


@pytest.mark.parametrize("path", ["tonight/candidate/replay", "tonight/evaluation/samples"])
def test_a_lost_list_of_files_stops_the_deleting(line: Line, path: str) -> None:
    with reading(line.git) as main:
        name = str(lock_outs(documents(main)[1]["stages"])[path]["md5"])
    lost = Path(line.store) / "files" / "md5" / name[:2] / name[2:]
    lost.unlink()
    files = sorted(Path(line.store).rglob("*"))
    with pytest.raises(IntegrityError, match=f"{name} first"):
        run_prune(line)
    assert sorted(Path(line.store).rglob("*")) == files


def test_what_an_event_erased_goes_and_what_replaced_it_stays(line: Line) -> None:
    with reading(line.git) as main:
        old, new = (documents(main)[n]["digests"]["state"]["replay"] for n in (1, 0))
        path = "events/20990101T000000000000Z-withdrawal-x.json"
        event = {"schema": 2, "kind": "withdrawal", "id": "x", "assets": [{"sha256": "0" * 64}], "erased": [old]}
        event["replaced"] = {old: {"md5": new}}
        assert main.push(command.Change({path: json.dumps(whole_event(event)).encode()}, "withdraw"))
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
    from cl_steps.repository.bundle import stored_objects

    run_prune(line)
    with mirrored(line.git) as (main, refs), opened(Path(line.git).parent, line.store, no_scm=True) as repo:
        named = [{**out, "path": out["md5"]} for out in stored_objects(main.folder, refs)]
        assert named
        assert not Store.of(repo).missing(named)


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
    with mirrored(line.git) as (main, refs), open_store(bucket) as store:
        needed = needs(main, refs)
        assert store.with_files(needed.all, needed.listed) >= store.inventory().sizes.keys()
        assert len(left) == len(store.inventory().sizes)


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
