"""The servers of the cluster tests, as a process: what each user may write, files as only credentials, and rests."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from cl_steps.errors import Unavailable
from cl_steps.repository import git as product
from cl_steps.store import dvc
from cl_steps.store.pointers import read_dvc_file
from tests.cluster.running import Running, basic, running


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("servers"), "line,other") as process:
        yield process


Git = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def work(servers: Running, tmp_path: Path) -> Git:
    """git in a repository with one commit, as a user; every test has a branch and files of its own."""
    folder = tmp_path / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)

    def run(user: str, *words: str) -> subprocess.CompletedProcess[str]:
        given = servers.credentials(tmp_path / user, user)
        who = {f"GIT_{role}_{fact}": "x@y" for role in ("AUTHOR", "COMMITTER") for fact in ("NAME", "EMAIL")}
        environment = {**os.environ, **given, **who, "GIT_TERMINAL_PROMPT": "0"}
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    run("step", "remote", "add", "origin", f"{servers.git}/line.git")
    run("trusted", "fetch", "-q", "origin")
    run("step", "reset", "-q", "--hard", "origin/main")
    run("step", "commit", "-q", "--allow-empty", "-m", f"of {tmp_path.name}")
    return run


def pushed(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def test_each_user_has_its_role(work: Git) -> None:
    """What a role may push is tested with the hook itself; here, that the server tells it who pushes."""
    begin(work, "x")
    assert "has no begun/xyz" in work("step", "push", "origin", "HEAD:refs/heads/runs/xyz").stderr
    assert (
        "the role step does not write refs/heads/main" in work("step", "push", "origin", "HEAD:refs/heads/main").stderr
    )
    assert "the role opener does not write" in work("opener", "push", "origin", "HEAD:refs/heads/main").stderr
    assert not pushed(work("opener", "push", "origin", "--delete", "runs/run-x"))
    atomic = ("HEAD:refs/heads/runs/run-x", "HEAD:refs/heads/main")
    assert not pushed(work("step", "push", "--atomic", "origin", *atomic))


def test_trusted_moves_main_forward_with_a_tag_that_stays(work: Git) -> None:
    main, tag = "refs/heads/main", "refs/tags/model@v0.0.2"
    leases = [f"--force-with-lease={tag}:"]
    assert pushed(work("trusted", "push", "--atomic", *leases, "origin", f"HEAD:{main}", f"HEAD:{tag}"))
    work("trusted", "commit", "-q", "--allow-empty", "-m", "further")
    assert not pushed(work("trusted", "push", "--force", "origin", f"HEAD:{tag}"))
    assert not pushed(work("trusted", "push", "--atomic", "--force", "origin", f"HEAD:{main}", f"HEAD:{tag}"))
    assert pushed(work("trusted", "push", "origin", f"HEAD:{main}"))
    assert not pushed(work("trusted", "push", "--force", "origin", f"HEAD~1:{main}"))
    assert not pushed(work("trusted", "push", "origin", f":{main}"))


def begin(work: Git, name: str) -> None:
    """Begin a run on main as it is, which the commit at hand then is."""
    assert pushed(work("trusted", "push", "origin", "HEAD:refs/heads/main"))
    assert work("opener", "commit", "-q", "--allow-empty", "-m", "begin").returncode == 0
    refs = [f"HEAD:refs/heads/{kind}/run-{name}" for kind in ("begun", "runs")]
    sent = work("opener", "push", "--atomic", "origin", *refs)
    assert pushed(sent), sent.stderr


def test_without_the_right_password_nothing_is_read(servers: Running, work: Git, tmp_path: Path) -> None:
    url, given = f"{servers.git}/line.git", servers.credentials(tmp_path / "wrong", "step", "nearly")
    for settings in (given, {"GIT_CONFIG_GLOBAL": os.devnull}):
        environment = {**os.environ, **settings, "GIT_TERMINAL_PROMPT": "0"}
        done = subprocess.run(["git", "ls-remote", url], env=environment, capture_output=True, check=False)
        assert done.returncode == 128


def test_large_pushes_come_in_chunks(work: Git, tmp_path: Path) -> None:
    begin(work, "chunked")
    (tmp_path / "work/reports").mkdir()
    (tmp_path / "work/reports/large").write_bytes(os.urandom(3 << 20))
    work("step", "add", "reports")
    work("step", "commit", "-q", "-m", "large")
    sent = work("step", "-c", "http.postBuffer=65536", "push", "origin", "HEAD:refs/heads/runs/run-chunked")
    assert pushed(sent), sent.stderr
    url = work("step", "remote", "get-url", "origin").stdout.strip()
    cloned = work("step", "clone", "-q", "--branch", "runs/run-chunked", url, str(tmp_path / "all"))
    assert cloned.returncode == 0, cloned.stderr
    assert (tmp_path / "all/reports/large").read_bytes() == (tmp_path / "work/reports/large").read_bytes()


@pytest.mark.parametrize("chunked", [False, True])
def test_compressed_requests_are_understood(servers: Running, work: Git, chunked: bool) -> None:
    begin(work, f"listed-{chunked}".lower())
    body = gzip.compress(b"0014command=ls-refs\n0000")
    kind = {"Content-Type": "application/x-git-upload-pack-request", "Git-Protocol": "version=2"}
    headers = {**kind, "Content-Encoding": "gzip", "Authorization": basic("step")}
    connection = http.client.HTTPConnection(servers.git.removeprefix("http://"), timeout=10)
    parts = iter([body[:9], body[9:]])
    connection.request("POST", "/line.git/git-upload-pack", parts if chunked else body, headers, encode_chunked=chunked)
    with contextlib.closing(connection), connection.getresponse() as answer:
        assert b"refs/heads/runs/run-listed-" in answer.read()


def test_half_a_push_changes_nothing(servers: Running, work: Git) -> None:
    head = work("step", "rev-parse", "HEAD").stdout.strip()
    line = f"{'0' * 40} {head} refs/heads/runs/half\0report-status\n"
    body = f"{len(line) + 4:04x}{line}0000".encode() + b"PACK"
    headers = {"Content-Type": "application/x-git-receive-pack-request", "Authorization": basic("step")}
    connection = http.client.HTTPConnection(servers.git.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/line.git/git-receive-pack")
    for name, value in {**headers, "Content-Length": str(len(body) + 100)}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    connection.close()
    assert "runs/half" not in work("step", "ls-remote", "origin").stdout


def test_the_product_clones_shallow_and_pushes_with_files_alone(
    servers: Running, work: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(work, "product")
    for variable, file in servers.credentials(tmp_path / "pod", "step").items():
        monkeypatch.setenv(variable, file)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    url, folder = f"{servers.git}/line.git", tmp_path / "clone"
    product.clone(url, folder, "runs/run-product")
    assert product.text(folder, "rev-parse", "--is-shallow-repository") == "true"
    product.git(folder, "commit", "-q", "--allow-empty", "-m", "step")
    product.git(folder, "push", "-q", url, "HEAD:refs/heads/runs/run-product")
    tip = product.text(folder, "rev-parse", "HEAD")
    assert product.remote_refs(url, "refs/heads/runs/run-product") == {"refs/heads/runs/run-product": tip}
    product.git(None, "init", "-q", "--bare", str(tmp_path / "one.git"))
    product.git(tmp_path / "one.git", "fetch", "-q", "--depth", "1", url, tip)
    with pytest.raises(product.GitError, match="does not write refs/heads/main"):
        product.git(folder, "push", "-q", "--force", url, "HEAD:refs/heads/main")


def test_s3_and_dvc_find_everything_in_files(servers: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_files(servers, tmp_path, monkeypatch)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.pipe_file("retain/landing/a", b"hello")
    (tmp_path / "large").write_bytes(os.urandom(7 << 20))
    files.put_file(str(tmp_path / "large"), "retain/landing/large", chunksize=5 << 20)
    assert files.cat_file("retain/landing/a") == b"hello"
    assert files.cat_file("retain/landing/large") == (tmp_path / "large").read_bytes()
    url, made = "s3://retain/lines/a", keep(tmp_path / "one", "s3://retain/lines/a", b"weights")
    dvc.fetch(tmp_path / "two", url, {"part": made})
    assert (tmp_path / "two/part/file").read_bytes() == b"weights"


def test_a_rest_loses_nothing(servers: Running, work: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_files(servers, tmp_path, monkeypatch)
    url = f"{servers.git}/line.git"
    begin(work, "kept")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.pipe_file("retain/kept", b"kept")
    assert servers.ask("/healthz") == (200, {"git": "up", "s3": "up"})
    servers.process.send_signal(signal.SIGUSR1)
    servers.wait_until(False, servers.git, servers.s3)
    with pytest.raises(Unavailable):
        product.remote_refs(url)
    servers.wait_until(True, servers.git, servers.s3)
    assert "refs/heads/runs/run-kept" in product.remote_refs(url)
    assert files.cat_file("retain/kept") == b"kept"


def test_a_rest_is_asked_for_over_http(servers: Running) -> None:
    assert servers.ask("/control/down?seconds=1", "POST", user="step")[0] == 403
    assert servers.ask("/control/down?seconds=x", "POST")[0] == 400
    with socket.create_connection(("127.0.0.1", int(servers.s3.rpartition(":")[2]))) as held:
        held.settimeout(10)
        held.sendall(b"GET /retain")
        time.sleep(0.2)
        assert servers.ask("/control/down?seconds=0.5&what=s3", "POST")[0] == 202
        assert held.recv(100) == b"", "a connection that was open is cut"
    servers.wait_until(False, servers.s3)
    assert servers.ask("/healthz") == (200, {"git": "up", "s3": "down"})
    servers.wait_until(True, servers.s3)
    assert servers.ask("/control/down?seconds=0.3&what=git", "POST")[0] == 202
    servers.wait_until(False, servers.git)
    servers.wait_until(True, servers.git, servers.s3)


def use_files(servers: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process find credentials and endpoint in files, and nowhere else."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, file in servers.credentials(folder / "pod", "step").items():
        monkeypatch.setenv(variable, file)
    monkeypatch.setenv("HOME", str(folder / "nobody"))


def keep(root: Path, url: str, content: bytes) -> str:
    """Send a folder of one file to a store; its md5."""
    (root / "part").mkdir(parents=True)
    (root / "part" / "file").write_bytes(content)
    (root / ".dvc").mkdir()
    with dvc.opened(root, url, no_scm=True) as repo:
        dvc.track(repo, ["part"])
    with dvc.opened(root, url, no_scm=True) as repo:
        dvc.push(repo, [out for out in repo.index.outs if out.hash_info])
    return str(read_dvc_file((root / "part.dvc").read_bytes())["md5"])
