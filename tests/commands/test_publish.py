"""A line that lived in its folder is published: to folders, to a Git server and S3, killed on the way, or refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cl_steps.config import RunSpec
from cl_steps.errors import UsageError
from cl_steps.operations import publish
from cl_steps.repository.git import git, remote_refs, text
from cl_steps.repository.line import Line, local, resolve
from cl_steps.repository.run_branch import open_run, read_run
from cl_steps.store.places import Place
from tests.cluster.running import Running, running
from tests.commands.conftest import Cli
from tests.forks import run

RUN = "2026-01-01-aaaa"


@pytest.fixture
def folder(line: Path, tmp_path: Path) -> Path:
    """A line of its own for a test, with one run under way."""
    folder = tmp_path / "line"
    shutil.copytree(line, folder)
    local(folder).save(folder)
    git(folder, "remote", "set-url", "origin", local(folder).git)
    open_run(local(folder), RunSpec(id=RUN))
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An empty Git remote."""
    git(None, "init", "-q", "--bare", "-b", "main", str(tmp_path / "remote.git"))
    return tmp_path / "remote.git"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("servers"), "line") as process:
        yield process


def objects(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def refs(url: object) -> dict[str, str]:
    return remote_refs(str(url), "refs/*")


def test_everything_moves_and_the_old_place_is_not_needed(folder: Path, bare: Path, tmp_path: Path, cli: Cli) -> None:
    own, before, store = local(folder), refs(local(folder).git), tmp_path / "store"
    held = objects(Path(own.store))
    code, said, _ = cli("publish", folder, "--git", bare, "--store", store, "--landing", tmp_path / "landing")
    assert code == 0
    assert f"{own.git} and {own.store} may be deleted" in said
    assert "was not copied" in said
    assert objects(store) == held
    after = refs(bare)
    assert {name for name in after if after[name] != before[name]} == {"refs/heads/main"}
    assert after.keys() == before.keys()
    changed = text(bare, "diff", "--unified=0", before["refs/heads/main"], "main").splitlines()
    assert [line for line in changed if line.startswith(("+ ", "- "))] == [
        "-    url = ../.retain/store",
        f"+    url = {store}",
    ]
    assert resolve(str(folder)) == Line(str(bare), str(store), own.work, str(tmp_path / "landing"))
    assert text(folder, "rev-parse", "HEAD") == after["refs/heads/main"]
    assert text(folder, "status", "--porcelain") == ""
    shutil.rmtree(own.git)
    shutil.rmtree(own.store)
    shutil.copytree(own.landing, tmp_path / "landing")
    assert json.loads(cli("status", folder, "--json")[1])["running"] == [RUN]
    assert cli("step", "ingest", "--workspace", folder, "--run", RUN)[0] == 0
    assert read_run(resolve(str(folder)), RUN).reports["ingest"].status == "done"


def test_again_is_nothing_and_elsewhere_is_refused(folder: Path, bare: Path, tmp_path: Path, cli: Cli) -> None:
    words = ("publish", folder, "--git", bare, "--store", tmp_path / "store")
    replace(local(folder), signing_key="/k/signing.pem", trusted_keys="/k/trusted.yaml").save(folder)
    assert cli(*words)[0] == 0
    moved = resolve(str(folder))
    assert (moved.signing_key, moved.trusted_keys) == ("/k/signing.pem", "/k/trusted.yaml"), "the keys are kept"
    before = refs(bare)
    assert cli(*words)[0] == 0
    assert refs(bare) == before
    code, _, said = cli("publish", folder, "--git", tmp_path / "other", "--store", tmp_path / "store")
    assert code == 2
    assert str(bare) in said


class Killed(BaseException):
    """What SIGKILL would have done here."""


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int, after: bool) -> None:
    """End the process at the n-th call of a function, before or after it did its work."""
    work: Callable[..., object] = getattr(owner, name)
    calls = iter(range(1000))

    def killed(*arguments: object, **options: object) -> object:
        last = next(calls) == call
        if last and not after:
            raise Killed
        done = work(*arguments, **options)
        if last:
            raise Killed
        return done

    monkeypatch.setattr(owner, name, killed)


PLACES = {
    "between objects": (Place, "put", 3, False),
    "before the refs": (publish, "send_all", 0, False),
    "after the refs": (publish, "send_all", 0, True),
    "before the deployment": (Line, "save", 0, False),
    "after the deployment": (Line, "save", 0, True),
    "before the checkout": (publish, "sync", 0, False),
}


@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_the_same_command_goes_on(
    place: str, folder: Path, bare: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, words = objects(Path(local(folder).store)), ("publish", folder, "--git", bare, "--store", tmp_path / "store")
    with monkeypatch.context() as patch:
        kill_at(patch, *PLACES[place])
        with pytest.raises(Killed):
            cli(*words)
    there = objects(tmp_path / "store")
    if there != held:
        (tmp_path / "store" / min(there)).write_bytes(b"half")
    sent: list[str] = []
    put = Place.put
    monkeypatch.setattr(Place, "put", lambda self, file, name: (sent.append(name), put(self, file, name)))
    assert cli(*words)[0] == 0
    assert objects(tmp_path / "store") == held
    assert len(sent) == (len(held) - 2 if there != held else 0)
    assert (resolve(str(folder)).git, resolve(str(folder)).store) == (str(bare), str(tmp_path / "store"))
    assert text(folder, "config", "remote.origin.url") == str(bare)
    assert text(folder, "rev-parse", "HEAD") == refs(bare)["refs/heads/main"]
    assert text(bare, "rev-list", "--count", "main") == "2"


def test_a_remote_with_anything_in_it_is_refused(folder: Path, bare: Path, tmp_path: Path, cli: Cli) -> None:
    git(folder, "push", "-q", str(bare), "HEAD~0:refs/heads/theirs")
    code, _, said = cli("publish", folder, "--git", bare, "--store", tmp_path / "store")
    assert code == 2
    assert "is not empty" in said
    assert resolve(str(folder)) == local(folder)
    assert not (tmp_path / "store").exists()


def test_what_is_not_committed_and_what_nobody_opens_is_refused(folder: Path, bare: Path, cli: Cli) -> None:
    assert cli("publish", folder, "--git", bare, "--store", "nothing://x")[0] == 2
    assert cli("publish", folder, "--git", bare, "--store", local(folder).store)[0] == 2
    (folder / "params.yaml").write_text("changed")
    code, _, said = cli("publish", folder, "--git", bare, "--store", folder.parent / "store")
    assert code == 2
    assert "params.yaml" in said
    assert refs(bare) == {}


def test_a_run_that_writes_meanwhile_is_not_left_behind(
    folder: Path, bare: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = publish._copy

    def and_write(source: Path, url: str) -> None:
        copy(source, url)
        git(folder, "push", "-q", local(folder).git, "HEAD:refs/heads/runs/late")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_copy", and_write)
        assert cli("publish", folder, "--git", bare, "--store", tmp_path / "store")[0] == 6
    assert refs(bare) == {}
    assert cli("publish", folder, "--git", bare, "--store", tmp_path / "store")[0] == 0
    assert "refs/heads/runs/late" in refs(bare)


def test_only_the_store_s_own_line_of_dvc_config_changes() -> None:
    config = (
        "[core]\n    url = a\n['remote \"other\"']\n    url = b\n['remote \"store\"']\n    verify = true\n    url = c\n"
    )
    assert publish.STORE_URL.sub(r"\1d", config) == config.replace("url = c", "url = d")
    assert not publish.STORE_URL.search("['remote \"store\"']\n    verify = true\n['remote \"x\"']\n    url = b\n")
    with pytest.raises(UsageError):
        publish.open_place("nothing://x")


def test_to_a_git_server_and_s3_by_files_alone_and_a_step_as_a_pod_runs_it(
    servers: Running, folder: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, file in servers.credentials(tmp_path / "me", "trusted").items():
        monkeypatch.setenv(variable, file)
    url, store = f"{servers.git}/line.git", "s3://retain/lines/a"
    code, _, said = cli("publish", folder, "--git", url, "--store", "s3://mistyped/lines/a")
    assert code == 6, "no bucket is made"
    assert "s3://mistyped/lines/a cannot be used now" in said
    code, _, said = cli("publish", folder, "--git", url, "--store", store, "--work", "s3://retain/work/a")
    assert code == 0, said
    shutil.rmtree(local(folder).git)
    shutil.rmtree(local(folder).store)
    assert json.loads(cli("status", folder, "--json")[1])["champion"] == "v1"
    pod = {
        **servers.credentials(tmp_path / "pod", "step"),
        "RETAIN_STORE_URL": store,
        "RETAIN_LANDING": str(folder / "landing"),
        "HOME": str(tmp_path / "nobody"),
    }
    for name in ("ingest", "drift"):
        words = ["-m", "cl_steps", "step", name, "--workspace", url, "--run", RUN]
        done = run(words, env={**os.environ, **pod})
        assert done.returncode == 0, done.stderr
    assert read_run(resolve(str(folder)), RUN).reports["drift"].status == "done"
