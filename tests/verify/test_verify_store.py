"""Every byte of a version, in a folder and on S3: what is corrupt or missing is a fault, what was erased is none."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cl_steps.__main__ import main as command
from cl_steps.acts.rollback import roll_back
from cl_steps.acts.withdrawal import Request
from cl_steps.acts.withdrawal import withdraw as withdraw_asset
from cl_steps.documents import json_text
from cl_steps.ledger.events import event_of, event_path
from cl_steps.records.builders import now
from cl_steps.records.signer import event_files
from cl_steps.repository.line import Line
from cl_steps.store.objects import Store
from cl_steps.store.pointers import dvc_file, read_dvc_file
from tests.lines.playing import line_after, sha_of
from tests.lines.playing import night as playing_night
from tests.lines.small import with_keys
from tests.lines.tampering import (
    TAMPERS,
    commit,
    folder_of,
    kinds,
    line_of_three,
    named,
    on_main,
    overwrite,
    rewrite,
    seen,
    stored,
)
from tests.store.test_places import KEYS


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_of_three(tmp_path / "line")


OBJECTS = {
    "v2 adapter/bytes": ("state/adapter.dvc", "bytes"),
    "v2 adapter": ("state/adapter.dvc", ""),
    "v1 base/bytes": ("state/base.dvc", "bytes"),
    "v2 replay/bytes": ("state/replay.dvc", "bytes"),
    "v1 extractor": ("state/extractor.dvc", ""),
    "data/r-150/bytes": ("data/r-150.dvc", "bytes"),
    "data/r-100": ("data/r-100.dvc", ""),
    "v2 tonight/evaluation/samples/bytes": ("tonight/evaluation/samples", "bytes"),
    "v2 tonight/drift/figures": ("tonight/drift/figures", ""),
    "v2 tonight/batch/bytes": ("tonight/batch", "bytes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("where", OBJECTS)
def test_an_object_of_the_store(where: str, line: Line) -> None:
    file = stored(line, *OBJECTS[where])
    whole = file.read_bytes()
    for tamper in TAMPERS.values():
        overwrite(file, tamper(whole))
        assert kinds(seen(line)) == {where: {"corrupt"}}
    file.unlink()
    assert kinds(seen(line)) == {where: {"missing"}}
    file.write_bytes(whole)
    assert not seen(line).findings


def test_objects_of_the_store(line: Line) -> None:
    files = {where: stored(line, *place) for where, place in OBJECTS.items() if where != "v2 adapter"}
    expected = {}
    for number, (where, file) in enumerate(files.items()):
        if number % 3 == 2:
            file.unlink()
        else:
            overwrite(file, list(TAMPERS.values())[number % 3](file.read_bytes()))
        expected[where] = {"missing" if number % 3 == 2 else "corrupt"}
    assert kinds(seen(line)) == expected


def test_pictures_are_those_of_their_own_version(line: Line) -> None:
    """v3 was made of v2's run, so that it names the same ones; v1 has none."""
    overwrite(stored(line, "tonight/evaluation/samples", "bytes"), b"another")
    assert kinds(seen(line, "v3")) == {"v3 tonight/evaluation/samples/bytes": {"corrupt"}}
    assert not seen(line, "v1").faults


def test_each_object_is_read_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    read = Store._digest
    monkeypatch.setattr(Store, "_digest", lambda self, name, keep: (names.append(name), read(self, name, keep))[1])
    assert seen(line).num_objects == len(names) == len(set(names))


def act(line: Line, kind: str, files: dict[str, bytes], **facts: Any) -> str:
    """An act of a person on main, and the files that it changes; returns the event's path."""
    path = event_path(kind, "x")
    event = {"schema": 2, "kind": kind, "id": Path(path).stem, "at": now(), "by": "ops", "through": "command line"}
    commit(line, {**files, **event_files(line, path, event_of({**event, **facts}))})
    return path


def withdraw(
    line: Line, erased: list[str], replaced: dict[str, Any] | None = None, files: dict[str, bytes] | None = None
) -> str:
    asset = {"sha256": "0" * 64, "dhash": "0" * 16, "thumbnail": ""}
    facts = {"reason": "asked", "assets": [asset], "source": None, "erase": True, "touched": {}}
    return act(line, "withdrawal", files or {}, **facts, replaced=replaced or {}, erased=erased)


def test_what_an_event_erased_is_a_note_and_what_it_put_there_is_checked(line: Line) -> None:
    files = [stored(line, "data/r-150.dvc"), stored(line, "data/r-150.dvc", "bytes")]
    names = [f"{file.parent.name}{file.name}" for file in files]
    other = {"md5": f"{'1' * 32}.dir", "size": 1, "nfiles": 1}
    for file in files:
        file.unlink()
    withdraw(line, names, {names[0]: other}, {"data/r-150.dvc": dvc_file(other, "r-150")})
    assert kinds(seen(line)) == {"data/r-150": {"missing"}}, "what stands for it is not there"
    standing = stored(line, "data/r-150.dvc")
    standing.parent.mkdir()
    standing.write_bytes(b"[]")
    assert kinds(seen(line)) == {"data/r-150": {"corrupt"}}


def test_the_bytes_that_stand_for_a_withdrawn_asset_s_are_followed(line: Line) -> None:
    names = [str(read_dvc_file(on_main(line, f"data/r-{run}.dvc"))["md5"]) for run in (150, 100)]
    stored(line, "data/r-150.dvc").unlink()
    other = on_main(line, "data/r-100.dvc")
    path = withdraw(line, names[:1], {names[0]: {"md5": names[1]}}, {"data/r-150.dvc": other})
    assert not seen(line).findings, "nothing names the bytes of before"
    commit(line, {"data/r-150.dvc": dvc_file({"md5": names[0]}, "r-150")})
    found = seen(line)
    assert kinds(found) == {"data/r-150.dvc": {"rewritten", "inconsistent"}}
    assert [(note.kind, note.where) for note in found.findings if not note.fault] == [("erased", "data/r-150")]
    assert any(Path(path).stem in note.why for note in found.findings)


def test_an_erased_shard_of_an_old_version(line: Line) -> None:
    file = stored(line, "state/replay.dvc", "bytes")
    file.unlink()
    path = withdraw(line, [f"{file.parent.name}{file.name}"])
    [note] = seen(line).findings
    assert (note.kind, note.where, note.fault) == ("erased", "v2 replay/bytes", False)
    assert Path(path).stem in note.why
    assert command(["verify", "v3", "--dir", folder_of(line)]) == 0


def test_a_forged_withdrawal_excuses_nothing(line: Line) -> None:
    file = stored(line, "state/replay.dvc", "bytes")
    file.unlink()
    path = withdraw(replace(line, signing_key=""), [f"{file.parent.name}{file.name}"])
    assert kinds(seen(line)) == {path: {"unsigned"}, "v2 replay/bytes": {"missing"}}


def test_the_quarantine_is_counted_again(line: Line) -> None:
    path = named(line, "events/", "run-r-150.json")
    event = json.loads(on_main(line, path))
    event["intake"]["quarantined"] = 2
    rewrite(line, {path: json_text(event).encode()})
    assert kinds(seen(line))["data/r-150/quarantine.jsonl"] == {"inconsistent"}
    assert "data/r-150/quarantine.jsonl" not in kinds(seen(line, "v3"))


@pytest.mark.slow
def test_after_everything_that_persons_may_do(tmp_path: Path) -> None:
    """Rolled back, gone on with, withdrawn from and erased from: nothing of it looks like a fault."""
    folder = tmp_path / "line"
    line = with_keys(line_after(folder, nights=2), folder)
    line.save(folder)
    roll_back(line, "v2", "worse", relearn=False, by="ops", through="command line")
    assert playing_night(line, "r-3", range(100, 112)) == "v4"
    withdraw_asset(line, Request(sha_of(21), None, "asked", erase=False, by="ops", through="command line"))
    assert not seen(line).faults
    withdraw_asset(line, Request(sha_of(22), None, "asked", erase=True, by="ops", through="command line"))
    assert playing_night(line, "r-4", range(120, 132)) == "v5"
    roll_back(line, "v4", "worse", relearn=True, by="ops", through="command line")
    found = seen(line)
    assert not found.faults
    assert {"v2 global_eval", "v4 global_eval"} <= {note.where for note in found.findings if note.kind == "erased"}


@pytest.fixture
def bucket(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The line with its store on an S3 server of our own, which remembers the buckets of tests before."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer(port=0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    name = f"verify-{uuid.uuid4().hex}"
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir(name)
    files.put(f"{line.store}/", f"{name}/", recursive=True)
    yield replace(line, store=f"s3://{name}")
    server.stop()


def test_on_s3(bucket: Line, line: Line) -> None:
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    keys = {where: key_of(bucket, stored(line, *place), line) for where, place in OBJECTS.items()}
    files.pipe_file(keys["v2 adapter/bytes"], TAMPERS["flipped"](files.cat_file(keys["v2 adapter/bytes"])))
    files.pipe_file(keys["v1 extractor"], TAMPERS["cut"](files.cat_file(keys["v1 extractor"])))
    files.rm_file(keys["data/r-150/bytes"])
    files.rm_file(keys["v2 tonight/evaluation/samples/bytes"])
    expected = {"v2 adapter/bytes": {"corrupt"}, "v1 extractor": {"corrupt"}, "data/r-150/bytes": {"missing"}}
    expected |= {"v2 tonight/evaluation/samples/bytes": {"missing"}}
    assert kinds(seen(bucket)) == expected


def key_of(bucket: Line, file: Path, line: Line) -> str:
    return f"{bucket.store.removeprefix('s3://')}/{file.relative_to(line.store).as_posix()}"


@pytest.mark.slow
@pytest.mark.parametrize("where", OBJECTS)
def test_an_object_on_s3(where: str, bucket: Line, line: Line) -> None:
    file, files = stored(line, *OBJECTS[where]), fsspec.filesystem("s3", skip_instance_cache=True)
    key = key_of(bucket, file, line)
    for tamper in TAMPERS.values():
        files.pipe_file(key, tamper(file.read_bytes()))
        assert kinds(seen(bucket)) == {where: {"corrupt"}}
    files.rm_file(key)
    assert kinds(seen(bucket)) == {where: {"missing"}}


def test_remotes_that_are_away_are_no_fault(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (line.store, line.git):
        shutil.rmtree(place)
        assert command(["verify", "--dir", folder_of(line), "--json"]) == 6
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "right one" in printed.err or "cannot be read" in printed.err
