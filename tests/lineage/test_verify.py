"""Every kind of thing that somebody could change is named by a verification; and nothing is where nothing was."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from cl_steps import close
from cl_steps.__main__ import main as command
from cl_steps.lineage.keys import SIGNING, TRUSTED, make_keys, rotate_keys
from cl_steps.lineage.records import now
from cl_steps.lineage.rollback import roll_back
from cl_steps.lineage.signing import event_files
from cl_steps.lineage.verify.whole import verify
from cl_steps.lineage.withdrawal import Request
from cl_steps.lineage.withdrawal import withdraw as withdraw_asset
from cl_steps.workspace import digests
from cl_steps.workspace.context import json_text
from cl_steps.workspace.git import git, text
from cl_steps.workspace.ledger import event_path
from cl_steps.workspace.line import Line
from cl_steps.workspace.store import dvc_file, read_dvc_file
from tests.lineage.playing import line_after, sha_of
from tests.lineage.playing import night as playing_night
from tests.lineage.tampering import (
    TAMPERS,
    add_version,
    commit,
    kinds,
    line_of_three,
    named,
    on_main,
    overwrite,
    rewrite,
    seen,
    stored,
)
from tests.workspace.conftest import with_keys
from tests.workspace.test_work import KEYS


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_of_three(tmp_path / "line")


def folder_of(line: Line) -> str:
    return str(Path(line.git).parents[1])


def test_a_line_that_nobody_touched(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["verify", "--all", "--dir", folder_of(line)]) == 0
    assert "v1 to v3" in (printed := capsys.readouterr().out)
    assert "signatures checked; all as it should be" in printed
    assert command(["verify", "v2", "--dir", folder_of(line), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["versions"], document["findings"]) == (True, ["v2"], [])
    assert document["signatures"] == "checked"
    assert document["counts"]["objects"] == 18
    assert seen(line, "champion").versions == ["v3"]


def test_each_object_is_read_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    read = digests.Reader._read
    monkeypatch.setattr(
        digests.Reader, "_read", lambda self, name, keep: (names.append(name), read(self, name, keep))[1]
    )
    assert seen(line).num_objects == len(names) == len(set(names))


OBJECTS = {
    "v2 adapter/bytes": ("state/adapter.dvc", "bytes"),
    "v2 adapter": ("state/adapter.dvc", ""),
    "v1 base/bytes": ("state/base.dvc", "bytes"),
    "v2 replay/bytes": ("state/replay.dvc", "bytes"),
    "v1 extractor": ("state/extractor.dvc", ""),
    "data/r-150/bytes": ("data/r-150.dvc", "bytes"),
    "data/r-100": ("data/r-100.dvc", ""),
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


def test_a_fault_is_printed_and_the_sentence_counts(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    overwrite(stored(line, "state/adapter.dvc", "bytes"), b"another")
    stored(line, "state/base.dvc", "bytes").unlink()
    assert command(["verify", "--dir", folder_of(line)]) == 5
    printed = capsys.readouterr()
    assert "corrupt: v3 adapter/bytes: the bytes of object" in printed.out
    assert "missing: v3 base/bytes" in printed.out
    assert "retain verify: 2 faults: corrupt: v3 adapter/bytes; missing: v3 base/bytes; see" in printed.err
    assert command(["verify", "--all", "--dir", folder_of(line), "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    found = {(finding["kind"], finding["where"], finding["fault"]) for finding in document["findings"]}
    assert found == {("corrupt", "v2 adapter/bytes", True), ("missing", "v1 base/bytes", True)}
    assert command(["verify", "v2", "--dir", folder_of(line)]) == 5, "it is of the same base"
    assert command(["verify", "v9", "--dir", folder_of(line)]) == 2
    assert command(["verify", "../v1", "--dir", folder_of(line)]) == 2


FILES = {
    "record": ("versions/v0002", "2.json", {"": "rewritten", "v2 record": "corrupt"}),
    "signature": ("versions/v0002", ".sig", {"": "rewritten", "v2 signature": "bad_signature"}),
    "provenance": ("versions/v0002", "o.json", {"": "rewritten", "v2 provenance": "bad_signature"}),
    "event": ("events/", "run-r-150.json", {"": "rewritten"}),
    "answer": ("events/", "answer-r-150.json", {"": "rewritten"}),
    "an answer's signature": ("events/", "answer-r-150.sig", {"": "rewritten"}),
    "adapter.dvc": ("state/", "/adapter.dvc", {"": "rewritten"}),
    "champion": ("state/", "champion.json", {"": "rewritten"}),
    "an intake's .dvc": ("data/r-100", ".dvc", {"": "rewritten"}),
}


def broken(line: Line, whats: Iterable[str], tamper: Callable[[bytes], bytes]) -> set[tuple[str, str]]:
    """Change files on main; returns what is to be found where at least, but for what only a broken record lacks."""
    files, expected = {}, set()
    for what in whats:
        prefix, suffix, faults = FILES[what]
        path = named(line, prefix, suffix)
        files[path] = tamper(on_main(line, path))
        expected |= {(where or path, kind) for where, kind in faults.items()}
    commit(line, files)
    return expected


def test_files_of_main(line: Line) -> None:
    expected = broken(line, FILES.keys() - {"record"}, lambda content: content[1:])
    found = {(finding.where, finding.kind) for finding in seen(line).faults}
    assert expected <= found
    assert (named(line, "events/", "answer-r-150.json"), "corrupt") in found


@pytest.mark.slow
@pytest.mark.parametrize("tamper", TAMPERS)
@pytest.mark.parametrize("what", FILES)
def test_a_file_of_main(what: str, tamper: str, line: Line) -> None:
    expected = broken(line, [what], TAMPERS[tamper]) - {("v2 record", "corrupt")}
    assert expected <= {(finding.where, finding.kind) for finding in seen(line).faults}


SIGNED = [
    pytest.param("record", "v2 signature", marks=pytest.mark.slow),
    pytest.param("signature", "v2 signature", marks=pytest.mark.slow),
    pytest.param("provenance", "v2 provenance", marks=pytest.mark.slow),
    pytest.param("answer", "", marks=pytest.mark.slow),
    pytest.param("an answer's signature", ""),
]


@pytest.mark.parametrize(("what", "where"), SIGNED)
def test_a_signed_file_in_a_history_written_anew(what: str, where: str, line: Line) -> None:
    """Where nobody changed a file, but all of history, signatures alone tell."""
    path = named(line, *FILES[what][:2])
    rewrite(line, {path: on_main(line, path).replace(b"3", b"2", 1)})
    found = kinds(seen(line))
    assert found["v3 record"] == {"rewritten"}
    assert found[where or named(line, "events/", "answer-r-150.json")] & {"bad_signature", "untrusted"}, found


def test_an_unsigned_event_is_held_by_the_next_signed_record(line: Line) -> None:
    path = named(line, "events/", "run-r-150.json")
    rewrite(line, {path: on_main(line, path).replace(b'"held"', b'"rejected"')})
    assert kinds(seen(line)) == {"v3 record": {"rewritten"}}


def without_keys(line: Line) -> Line:
    return replace(line, trusted_keys="")


@pytest.mark.slow
def test_records_must_agree_with_themselves_and_the_state_whoever_signed(line: Line) -> None:
    record = json.loads(on_main(line, "versions/v0003.json"))
    other = f"{'0' * 32}.dir"
    stages, figures = record["stages"], record["digests"]
    [dep] = [dep for dep in stages["update"]["deps"] if dep["path"] == "state/adapter"]
    assert dep["md5"] == figures["teacher"]
    edits: dict[str, Callable[[dict[str, Any]], None]] = {
        "another teacher": lambda r: r["digests"].update(teacher=other),
        "another adapter": lambda r: r["digests"]["state"].update(adapter=other),
        "another base": lambda r: r["digests"].update(base=other),
        "a stage's input": lambda r: r["stages"]["update"]["deps"][0].update(md5=other),
        "a stage's output": lambda r: r["stages"]["update"]["outs"][0].update(md5=other),
        "another parent": lambda r: r.update(parent="v1"),
        "a parent that is none": lambda r: r.update(parent="v7"),
        "an earlier moment": lambda r: r.update(created="2026-01-01T00:00:00+00:00"),
        "another number": lambda r: r.update(version="v2"),
        "no digests": lambda r: r.pop("digests"),
    }
    for name, edit in edits.items():
        edited = json.loads(json_text(record))
        edit(edited)
        rewrite(line, {"versions/v0003.json": json_text(edited).encode()})
        found = kinds(verify(without_keys(line), None, None))
        assert any(where.startswith("v3 ") for where in found), name
    rewrite(line, {"versions/v0003.json": json_text(record).encode(), "versions/v0002.json": b"{"})
    assert kinds(verify(without_keys(line), None, None))["v2 record"] == {"corrupt"}


def test_a_file_s_sha_256_counts_where_md5_is_fooled(line: Line) -> None:
    record = json.loads(on_main(line, "versions/v0003.json"))
    wrong = ("adapter/bytes", "base/bytes", "adapter/more")
    forged = {**record, "files": {**record["files"], **dict.fromkeys(wrong, "0" * 64)}}
    rewrite(line, {"versions/v0003.json": json_text(forged).encode()})
    assert kinds(verify(without_keys(line), "v3", None)) == {f"v3 {path}": {"inconsistent"} for path in wrong}


def test_tags(line: Line) -> None:
    bare = Path(line.git)
    git(bare, "tag", "-f", "model@v0.0.2", "main")
    git(bare, "tag", "model@v0.0.9", "main")
    assert kinds(seen(line)) == {"v2 tag": {"wrong_tag"}, "tag model@v0.0.9": {"wrong_tag"}}
    git(bare, "tag", "-d", "model@v0.0.2", "model@v0.0.9")
    found = seen(line)
    assert [(finding.kind, finding.where, finding.fault) for finding in found.findings] == [
        ("missing_tag", "v2 tag", False)
    ]
    close.run(line, "r-150")
    assert not seen(line).findings


def test_a_state_that_moves_by_itself_and_intakes_that_are_others(line: Line) -> None:
    taken, replay = (on_main(line, path) for path in ("data/r-100.dvc", "state/replay.dvc"))
    commit(
        line, {"state/adapter.dvc": replay, "data/r-150.dvc": taken, "data/stray.dvc": taken, "data/r-100.dvc": None}
    )
    assert kinds(seen(line)) == {
        "state/adapter.dvc": {"rewritten", "inconsistent"},
        "data/r-150.dvc": {"rewritten", "inconsistent"},
        "data/r-100.dvc": {"rewritten", "missing"},
        "data/stray.dvc": {"inconsistent"},
    }


def test_a_record_of_before_beside_a_signature(line: Line) -> None:
    record = json.loads(on_main(line, "versions/v0001.json"))
    old = {**{key: value for key, value in record.items() if key not in ("files", "main")}, "schema": 1}
    rewrite(line, {"versions/v0001.json": json_text(old).encode()})
    found = kinds(seen(line))
    assert found["v1 signature"] == found["v1 provenance"] == {"bad_signature"}
    assert "v1 record" not in found


def test_a_champion_that_is_none(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    commit(line, {"state/champion.json": b"{"})
    assert command(["verify", "--dir", folder_of(line)]) == 5
    assert "names no version" in capsys.readouterr().err
    assert kinds(seen(line))["state/"] == {"corrupt"}


def test_a_version_that_is_gone(line: Line) -> None:
    gone = {f"versions/v0002.{suffix}": None for suffix in ("json", "sig", "intoto.json")}
    commit(line, gone)
    found = kinds(seen(line, "v3"))
    assert found["v2 record"] == {"missing"}
    assert found["v3 record"] == {"missing"}
    assert found["versions/v0002.json"] == {"rewritten"}


def act(line: Line, kind: str, files: dict[str, bytes], **facts: Any) -> str:
    """An act of a person on main, and the files that it changes; returns the event's path."""
    path = event_path(kind, "x")
    event = {"schema": 2, "kind": kind, "id": Path(path).stem, "at": now(), "by": "ops", "through": "command line"}
    commit(line, {**files, **event_files(line, path, {**event, **facts})})
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


def test_a_key_that_was_rotated_counts_for_what_it_signed(line: Line) -> None:
    rotate_keys(Path(line.signing_key).parent, "retain")
    assert not seen(line).findings
    assert add_version(line) == "v4"
    assert not seen(line).findings
    shutil.copy(Path(line.trusted_keys).parent / "retain-2.pem", Path(line.trusted_keys).parent / "retain-1.pem")
    assert kinds(seen(line))["v3 signature"] == {"untrusted"}
    assert kinds(seen(line, "v1")) == {place: {"untrusted"} for place in ("v1 signature", "v1 provenance")} | {
        named(line, "events/", "answer-r-150.json"): {"untrusted"}
    }


def expire(line: Line, moment: datetime) -> None:
    trusted = Path(line.trusted_keys)
    values = yaml.safe_load(trusted.read_text(encoding="utf-8"))
    values["keys"][0]["until"] = moment.isoformat()
    trusted.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_a_key_counts_until_it_ends(line: Line) -> None:
    made = datetime.fromisoformat(json.loads(on_main(line, "versions/v0003.json"))["created"])
    expire(line, made)
    assert not seen(line).findings
    expire(line, made - timedelta(seconds=1))
    found = kinds(seen(line))
    assert found["v3 signature"] == found["v3 provenance"] == {"untrusted"}


LONG_AGO = "2026-01-01T00:00:00+00:00"


def test_a_version_of_an_old_key_that_is_dated_back(line: Line, tmp_path: Path) -> None:
    """Whoever stole the key before may sign with it, but nothing that is newer than its end."""
    thief = replace(line, signing_key=str(shutil.copy(line.signing_key, tmp_path / "stolen.pem")))
    made = datetime.fromisoformat(json.loads(on_main(line, "versions/v0003.json"))["created"])
    rotate_keys(Path(line.signing_key).parent, "retain")
    expire(line, made)
    add_version(thief, created=(made + timedelta(seconds=1)).isoformat())
    add_version(thief, created=(made - timedelta(seconds=1)).isoformat())
    found = kinds(seen(line))
    assert found["v4 signature"] == found["v4 provenance"] == {"untrusted"}
    assert found["v5 record"] == {"inconsistent"}


def test_a_key_that_came_later(line: Line, tmp_path: Path) -> None:
    """As if the line had been without one until now."""
    rewrite(line, dict.fromkeys(signatures(line)))
    shutil.rmtree(Path(line.signing_key).parent)
    record = json.loads(on_main(line, "versions/v0003.json"))
    begins = (datetime.fromisoformat(record["created"]) + timedelta(seconds=1)).isoformat()
    signing = with_keys(line, tmp_path / "line")
    begin_at(signing, begins)
    add_version(signing, created=begins)
    found = seen(signing)
    assert {(note.kind, note.where) for note in found.findings if not note.fault} == {
        *(("unsigned", f"v{number} {name}") for number in (1, 2, 3) for name in ("signature", "provenance")),
        ("unsigned", named(line, "events/", "answer-r-150.json")),
    }
    assert {fault.kind for fault in found.faults} == {"rewritten"}, "only the test's own rewriting is seen"


def begin_at(line: Line, moment: str) -> None:
    trusted = Path(line.trusted_keys)
    values = yaml.safe_load(trusted.read_text(encoding="utf-8"))
    values["keys"][0]["from"] = moment
    trusted.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_an_unsigned_version_after_a_signed_one_however_it_is_dated(line: Line) -> None:
    add_version(replace(line, signing_key=""), created=LONG_AGO)
    found = kinds(seen(line))
    assert found["v4 signature"] == found["v4 provenance"] == {"unsigned"}
    assert found["v4 record"] == {"inconsistent"}


def test_signatures_that_were_all_taken_away(line: Line) -> None:
    rewrite(line, dict.fromkeys(signatures(line)))
    found = kinds(seen(line))
    assert {where for where, found_there in found.items() if "unsigned" in found_there} >= {
        "v1 signature",
        "v2 signature",
        "v3 provenance",
    }


def signatures(line: Line) -> list[str]:
    names = text(Path(line.git), "ls-tree", "-r", "--name-only", "main").splitlines()
    return [name for name in names if name.endswith((".sig", ".intoto.json"))]


def test_other_keys_than_the_deployment_s(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_keys(tmp_path / "other", "retain")
    assert command(["verify", "--dir", folder_of(line), "--keys", str(tmp_path / "other" / TRUSTED)]) == 5
    assert "untrusted: v3 signature" in capsys.readouterr().out
    assert command(["verify", "--dir", folder_of(line), "--keys", str(tmp_path / "none")]) == 2
    assert (tmp_path / "other" / SIGNING).is_file()


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
    expected = {"v2 adapter/bytes": {"corrupt"}, "v1 extractor": {"corrupt"}, "data/r-150/bytes": {"missing"}}
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
