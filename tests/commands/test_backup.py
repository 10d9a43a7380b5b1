"""`retain backup`, `restore` and `watch`: what comes back is what was there, and nothing half-written counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from fsspec.implementations.local import LocalFileSystem

from cl_steps.ledger.events import EVENT_SCHEMA
from cl_steps.operations import backup as command
from cl_steps.operations.backup import STAMP
from cl_steps.repository.git import git, remote_refs, text
from cl_steps.repository.line import Line, local
from cl_steps.store.digests import file_md5
from cl_steps.store.pointers import dvc_file
from tests.lasting import whole_champion, whole_event, whole_record

Cli = Callable[..., tuple[int, str, str]]
PASSPHRASE = "correct horse battery staple"
HOUR = timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with one version, one finished run, a branch of a run, and one object in its store."""
    line = local(tmp_path / "line")
    line.save(tmp_path / "line")
    draft, store = tmp_path / "draft", Path(line.store)
    (draft / "state").mkdir(parents=True)
    weights = draft / "weights"
    weights.write_bytes(b"weights")
    md5 = file_md5(weights)
    (store / "files" / "md5" / md5[:2]).mkdir(parents=True)
    shutil.copy(weights, store / "files" / "md5" / md5[:2] / md5[2:])
    weights.unlink()
    git(None, "init", "-q", "--bare", "-b", "main", line.git)
    git(None, "init", "-q", "-b", "main", str(draft))
    (draft / "params.yaml").write_bytes((Path(__file__).parents[2] / "params.yaml").read_bytes())
    (draft / "state" / "champion.json").write_text(json.dumps({**whole_champion("v1"), "slices": ["general"]}))
    (draft / "state" / "adapter.dvc").write_bytes(dvc_file({"md5": md5, "size": 7}, "adapter"))
    write(draft, "versions/v0001.json", whole_record({"version": "v1", "created": "2026-01-01T00:00:00+00:00"}))
    write(draft, "events/20260102T000000.000000-run-a.json", run_event("a", datetime.now(UTC) - 3 * HOUR))
    commit(draft, "begin")
    git(draft, "tag", "-a", "model@v0.0.1", "-m", "v1")
    git(draft, "push", "-q", line.git, "main", "model@v0.0.1", "main:refs/heads/runs/b")
    return tmp_path / "line"


def run_event(run: str, at: datetime, outcome: str = "no_update") -> dict[str, object]:
    """The event of a run that ended."""
    found = {"schema": EVENT_SCHEMA, "kind": "run", "run": run, "at": at.isoformat(), "outcome": outcome}
    return whole_event(
        {
            **found,
            "trigger": {"kind": "schedule"},
            "drift": None,
            "gate": None,
            "version": None,
            "seconds": 1.0,
            "why": "",
        }
    )


def write(draft: Path, name: str, document: object) -> None:
    (draft / name).parent.mkdir(exist_ok=True)
    (draft / name).write_text(json.dumps(document))


def commit(draft: Path, message: str) -> None:
    git(draft, "add", "--all")
    git(draft, "commit", "-q", "-m", message)


def line_of(folder: Path) -> Line:
    return local(folder)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder of keys as Kubernetes mounts a Secret: links into a folder that begins with two dots."""
    (tmp_path / "keys" / "..data").mkdir(parents=True)
    (tmp_path / "keys" / "..data" / "signing.pem").write_bytes(b"PRIVATE \x00 KEY")
    (tmp_path / "keys" / "signing.pem").symlink_to("..data/signing.pem")
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    return tmp_path / "keys"


def test_a_restored_line_has_the_same_refs_and_works(
    folder: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, _ = cli("backup", folder, tmp_path / "backups", "--json")
    assert code == 0
    assert json.loads(said)["refs"] == 3
    code, said, err = cli("restore", tmp_path / "backups", tmp_path / "new.git")
    assert (code, err) == (0, "")
    assert "1 objects of 7 bytes" in said
    assert remote_refs(str(tmp_path / "new.git")) == remote_refs(line_of(folder).git)
    monkeypatch.setenv("RETAIN_STORE_URL", line_of(folder).store)
    for name in ("versions", "status"):
        before, after = cli(name, folder, "--json"), cli(name, tmp_path / "new.git", "--json")
        assert after[0] == 0
        assert {**json.loads(before[1]), "landing": ""} == {**json.loads(after[1]), "landing": ""}


def test_a_backup_goes_into_an_empty_remote_and_never_into_a_full_one(folder: Path, tmp_path: Path, cli: Cli) -> None:
    cli("backup", folder, tmp_path / "backups")
    git(None, "init", "-q", "--bare", str(tmp_path / "empty.git"))
    assert cli("restore", tmp_path / "backups", f"file://{tmp_path}/empty.git")[0] == 0
    assert remote_refs(str(tmp_path / "empty.git"), "refs/*") == remote_refs(line_of(folder).git, "refs/*")
    code, _, err = cli("restore", tmp_path / "backups", f"file://{tmp_path}/empty.git")
    assert code == 2
    assert "empty Git remote" in err
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter").write_text("mine")
    assert cli("restore", tmp_path / "backups", tmp_path / "taken")[0] == 2
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["letter"]


def test_refs_that_servers_make_stay_out_of_the_new_remote(folder: Path, tmp_path: Path, cli: Cli) -> None:
    git(Path(line_of(folder).git), "update-ref", "refs/pull/1/head", "refs/heads/main")
    cli("backup", folder, tmp_path / "backups")
    assert cli("restore", tmp_path / "backups", tmp_path / "new.git")[0] == 0
    assert "refs/pull/1/head" not in remote_refs(str(tmp_path / "new.git"))


def test_a_changed_byte_is_found_before_anything_is_restored(folder: Path, tmp_path: Path, cli: Cli) -> None:
    cli("backup", folder, tmp_path / "backups")
    (made,) = (tmp_path / "backups").iterdir()
    bundle = bytearray((made / "workspace.bundle").read_bytes())
    bundle[-30] ^= 1
    (made / "workspace.bundle").write_bytes(bundle)
    code, _, err = cli("restore", made, tmp_path / "new.git")
    assert code == 5
    assert "not what its manifest says" in err
    assert not (tmp_path / "new.git").exists()


def test_a_manifest_that_lies_about_refs_is_found(folder: Path, tmp_path: Path, cli: Cli) -> None:
    cli("backup", folder, tmp_path / "backups")
    (made,) = (tmp_path / "backups").iterdir()
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["refs"]["refs/heads/main"] = "0" * 40
    (made / "manifest.json").write_text(json.dumps(manifest))
    assert cli("restore", made, tmp_path / "new.git")[0] == 5
    assert not (tmp_path / "new.git").exists()


def test_without_a_manifest_there_is_no_backup(folder: Path, tmp_path: Path, cli: Cli) -> None:
    cli("backup", folder, tmp_path / "backups")
    (made,) = (tmp_path / "backups").iterdir()
    (made / "manifest.json").unlink()
    code, _, err = cli("restore", tmp_path / "backups", tmp_path / "new.git")
    assert (code, "no whole backup" in err) == (3, True)


def test_only_the_newest_are_kept_and_never_the_last_good_one_lost(folder: Path, tmp_path: Path, cli: Cli) -> None:
    names = [json.loads(cli("backup", folder, tmp_path / "b", "--keep", 2, "--json")[1])["backup"] for _ in range(3)]
    assert [str(path) for path in sorted((tmp_path / "b").iterdir())] == names[1:]
    given_up = tmp_path / "b" / (datetime.now(UTC) - 25 * HOUR).strftime(STAMP)
    at_work = tmp_path / "b" / (datetime.now(UTC) - HOUR).strftime(STAMP)
    foreign = tmp_path / "b" / "letters"
    for other in (given_up, at_work, foreign):
        other.mkdir()
        (other / "workspace.bundle").write_bytes(b"half")
    cli("backup", folder, tmp_path / "b", "--keep", 1)
    left = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert given_up.name not in left
    assert {at_work.name, foreign.name} < set(left)
    assert len(left) == 3


def test_two_backups_at_once_may_delete_the_same_old_one(
    folder: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("backup", folder, tmp_path / "b", "--keep", 1)
    delete, remove = command.Place.delete, command.Place.remove

    def twice(place: command.Place, name: str) -> None:
        delete(place, name)
        delete(place, name)

    def remove_twice(place: command.Place, folder: str) -> None:
        remove(place, folder)
        remove(place, folder)

    monkeypatch.setattr(command.Place, "delete", twice)
    monkeypatch.setattr(command.Place, "remove", remove_twice)
    assert cli("backup", folder, tmp_path / "b", "--keep", 1)[0] == 0
    assert len(list((tmp_path / "b").iterdir())) == 1


def test_what_cannot_be_read_back_deletes_nothing(
    folder: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("backup", folder, tmp_path / "b", "--keep", 1)
    (good,) = (tmp_path / "b").iterdir()
    put = command.Place.put

    def spoil(place: command.Place, file: Path, name: str) -> None:
        put(place, file, name)
        (tmp_path / "b" / name).write_bytes(b"spoilt")

    monkeypatch.setattr(command.Place, "put", spoil)
    assert cli("backup", folder, tmp_path / "b", "--keep", 1)[0] == 5
    monkeypatch.undo()
    assert [path.parent for path in (tmp_path / "b").glob("*/manifest.json")] == [good]
    assert cli("restore", tmp_path / "b", tmp_path / "new.git")[0] == 0


def test_keys_come_back_and_only_with_their_passphrase(folder: Path, tmp_path: Path, cli: Cli, keys: Path) -> None:
    sealed = ("--keys", keys, "--passphrase-file", tmp_path / "passphrase")
    assert cli("backup", folder, tmp_path / "b", *sealed)[0] == 0
    (made,) = (tmp_path / "b").iterdir()
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in made.iterdir())
    (tmp_path / "other").write_text("another passphrase")
    wrong = ("--keys-to", tmp_path / "found", "--passphrase-file", tmp_path / "other")
    assert cli("restore", made, tmp_path / "new.git", *wrong)[0] == 5
    assert not (tmp_path / "new.git").exists()
    right = ("--keys-to", tmp_path / "found", "--passphrase-file", tmp_path / "passphrase")
    assert cli("restore", made, tmp_path / "new.git", *right)[0] == 0
    (found,) = (tmp_path / "found").iterdir()
    assert (found.name, found.read_bytes(), found.stat().st_mode & 0o777) == ("signing.pem", b"PRIVATE \x00 KEY", 0o600)


def test_a_changed_header_of_the_keys_is_found(folder: Path, tmp_path: Path, keys: Path) -> None:
    from cl_steps.errors import IntegrityError
    from cl_steps.operations.key_file import read_keys, seal, unseal, write_keys

    sealed = json.loads(seal(read_keys(keys), tmp_path / "passphrase"))
    for changed in (
        {"format": "retain-keys/1 "},
        {"scrypt": {"n": 2**40, "r": 8, "p": 1}},
        {"scrypt": {"n": 2**16, "r": 2**28, "p": 1}},
        {"scrypt": {"n": 2**16, "r": 8, "p": 2**28}},
        {"nonce": "AAAAAAAAAAAAAAAA"},
    ):
        with pytest.raises(IntegrityError):
            unseal(json.dumps({**sealed, **changed}).encode(), tmp_path / "passphrase")
    with pytest.raises(IntegrityError):
        write_keys({"../outside": b""}, tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_keys_that_were_encrypted_at_the_first_cost_still_open(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_steps.operations import key_file

    with monkeypatch.context() as patch:
        patch.setattr(key_file, "COST", {"n": 2**16, "r": 8, "p": 1})
        old = key_file.seal(key_file.read_keys(keys), tmp_path / "passphrase")
    assert json.loads(old)["scrypt"]["p"] == 1
    assert key_file.unseal(old, tmp_path / "passphrase") == {"signing.pem": b"PRIVATE \x00 KEY"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--keep", "0"), 2),
        (("--keys", "keys"), 2),
        (("--passphrase-file", "passphrase"), 2),
        (("--keys", "none", "--passphrase-file", "passphrase"), 3),
        (("--keys", "keys", "--passphrase-file", "short"), 2),
    ],
)
@pytest.mark.usefixtures("keys")
def test_wrong_use_writes_nothing(
    folder: Path, tmp_path: Path, cli: Cli, words: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("short")
    assert cli("backup", folder, tmp_path / "b", *words)[0] == code
    assert not (tmp_path / "b").exists()


def test_a_place_may_be_any_url(folder: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("backup", folder, "memory://backups/line", "--keep", 1)[0] == 0
    assert cli("backup", folder, "memory://backups/line", "--keep", 1)[0] == 0
    assert len(fsspec.filesystem("memory").ls("/backups/line")) == 1
    assert cli("restore", "memory://backups/line", tmp_path / "new.git")[0] == 0
    assert remote_refs(str(tmp_path / "new.git")) == remote_refs(line_of(folder).git)
    assert cli("backup", folder, "nowhere://backups")[0] == 2


def test_remotes_that_are_away_say_so(folder: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETAIN_STORE_URL", "s3://bucket/line")
    assert cli("backup", f"file://{tmp_path}/nowhere.git", tmp_path / "b")[0] == 6
    (tmp_path / "file").write_text("")
    assert cli("backup", folder, tmp_path / "file" / "b")[0] == 6


def lines_file(folder: Path, **more: object) -> Path:
    file, line = folder.parent / "lines.yaml", line_of(folder)
    file.write_text(
        yaml.safe_dump({"lines": [{"name": "my-line", "workspace": line.git, "store": line.store, **more}]})
    )
    return file


def test_watch_says_that_all_is_well(folder: Path, cli: Cli) -> None:
    code, said, _ = cli("watch", lines_file(folder), "--hours", 26, "--store")
    assert (code, said) == (
        0, "my-line: v1, last run finished 3.0 h ago, Git answers, store holds all 1 parts of it\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hours", "more", "code"),
    [
        (2, {}, 6),
        (26, {"overdue_hours": 2}, 6),
        (2, {"overdue_hours": 26}, 0),
        (2, {"overdue_hours": None}, 0),
        (2, {"schedule": None}, 0),
    ],
)
def test_watch_fails_where_no_run_finished_in_time(
    folder: Path, cli: Cli, hours: float, more: dict[str, Any], code: int
) -> None:
    assert cli("watch", lines_file(folder, **more), "--hours", hours)[0] == code


def test_a_failed_run_is_no_finished_run(folder: Path, cli: Cli) -> None:
    draft = folder.parent / "draft"
    write(draft, "events/20260103T000000.000000-run-c.json", run_event("c", datetime.now(UTC), "failed"))
    commit(draft, "c failed")
    git(draft, "push", "-q", line_of(folder).git, "main")
    code, _, err = cli("watch", lines_file(folder), "--hours", 2)
    assert (code, "no run finished for 3 hours" in err) == (6, True)


def test_watch_names_what_the_store_lacks(folder: Path, cli: Cli) -> None:
    shutil.rmtree(line_of(folder).store)
    code, _, err = cli("watch", lines_file(folder), "--store")
    assert (code, "adapter" in err) == (5, True)


def test_a_store_that_is_away_is_not_called_empty(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalFileSystem, "ls", away)
    code, _, err = cli("watch", lines_file(folder), "--store")
    assert (code, "cannot be used now" in err) == (6, True)


def away(*_: object, **__: object) -> None:
    raise ConnectionError("the bucket is away")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (7, "entry 1: it has no workspace"),
        ({"name": "bad"}, "bad: it has no workspace"),
        ({"name": "bad", "workspace": "LINE", "overdue_hours": "x"}, "bad: its overdue_hours is no number"),
    ],
)
def test_an_entry_that_is_no_line_hides_no_other(folder: Path, cli: Cli, bad: Any, words: str) -> None:
    file = lines_file(folder)
    [good] = yaml.safe_load(file.read_text())["lines"]
    bad = {**bad, "workspace": good["workspace"]} if isinstance(bad, dict) and "workspace" in bad else bad
    file.write_text(yaml.safe_dump({"lines": [bad, {**good, "overdue_hours": 2}]}))
    _, _, err = cli("watch", file, "--hours", 26)
    assert words in err
    assert "my-line: no run finished for 3 hours" in err
    assert cli("watch", file, "--hours", 26, "--line", "my-line")[0] == 6


def test_watch_asks_for_lines_that_are_there(folder: Path, cli: Cli) -> None:
    assert cli("watch", lines_file(folder), "--line", "other")[0] == 2


def test_a_bundle_is_plain_git(folder: Path, tmp_path: Path, cli: Cli) -> None:
    cli("backup", folder, tmp_path / "b")
    (bundle,) = (tmp_path / "b").glob("*/workspace.bundle")
    git(None, "clone", "-q", str(bundle), str(tmp_path / "clone"))
    assert text(tmp_path / "clone", "tag") == "model@v0.0.1"
