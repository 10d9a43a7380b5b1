"""A Git server and an S3 server for tests, in one process: a pod of the test's own, or a process beside it.

    python servers.py --root FOLDER --lines a,b --bucket retain --git-port 8418 --s3-port 9000

Git speaks smart HTTP to three users, `step`, `opener` and `trusted`, and the hook that we ship for Git servers holds
them to what each may write. S3 is moto's, its objects in memory; it takes any access key for anything, so it proves
nothing about rights on buckets. Passwords come from STEP_PASSWORD, OPENER_PASSWORD and TRUSTED_PASSWORD, or from
`--passwords FILE` with a line `user:password` each.

    GET  /healthz                                    200 where Git is served, and which of both are up
    POST /control/down?seconds=60&what=git|s3|both   as `trusted`: close sockets, cut connections, come back later
    SIGUSR1                                          the same for both and --down-seconds

Nothing is lost while a server is down: repositories are on disk, objects stay in this process. Needs git and
moto[server], and nothing of ours.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import http.client
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK = 1 << 16
USERS = ("step", "opener", "trusted")
BESIDE = Path(__file__).with_name("pre-receive")
HOOK = BESIDE if BESIDE.is_file() else Path(__file__).parents[2] / "containers/git/pre-receive"
"""In the image it lies beside this file."""
SETTINGS = {
    "http.receivepack": "true",
    "uploadpack.allowAnySHA1InWant": "true",
    "receive.autogc": "false",
    "gc.auto": "0",
}


def credentials(git_url: str, s3_url: str, user: str, password: str) -> dict[str, str]:
    """The files of a Secret with which git, fsspec and DVC reach these servers as `user`, by their keys."""
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {
        "gitconfig": f'[http "{git_url.rstrip("/")}/"]\n\textraHeader = Authorization: Basic {basic}\n',
        "aws-credentials": f"[default]\naws_access_key_id = {user}\naws_secret_access_key = {password}\n",
        "aws-config": f"[default]\nregion = us-east-1\nendpoint_url = {s3_url}\n",
    }


class Switch:
    """A server on a port that can be away for a while: the socket closed, its connections cut."""

    def __init__(self, make: Callable[[int], socketserver.TCPServer], port: int) -> None:
        self._make, self.port = make, port
        self._resting = threading.Lock()
        self._connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._up()

    @property
    def state(self) -> str:
        """`up` or `down`."""
        return "down" if self._resting.locked() else "up"

    def rest(self, seconds: float) -> None:
        """Be away for so long; nothing where it is away already."""
        if not self._resting.acquire(blocking=False):
            return
        self._down()
        time.sleep(seconds)
        while True:
            with suppress(OSError):
                self._up()
                break
            time.sleep(0.2)
        self._resting.release()

    def _up(self) -> None:
        self._server = server = self._make(self.port)
        self.port = server.server_address[1]
        accept = server.get_request

        def get_request() -> tuple[socket.socket, object]:
            connection, address = accept()
            self._connections.add(connection)
            return connection, address

        server.get_request = get_request  # type: ignore[method-assign,assignment]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def _down(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Servers:
    """Both servers, the folder with the repositories, and the passwords of the users."""

    def __init__(self, root: Path, passwords: dict[str, str], host: str, git_port: int, s3_port: int) -> None:
        self.root, self._passwords = root, passwords
        handler = partial(GitHandler, self)
        self.git = Switch(lambda port: ThreadingHTTPServer((host, port), handler), git_port)
        self.s3 = Switch(s3_maker(host), s3_port)

    def knows(self, user: str, password: str) -> bool:
        """Whether this is a user's password."""
        return user in USERS and hmac.compare_digest(self._passwords[user].encode(), password.encode())

    def rest(self, what: str, seconds: float) -> None:
        """`git`, `s3` or `both` go away for so long; returns at once."""
        for switch in {"git": [self.git], "s3": [self.s3], "both": [self.git, self.s3]}[what]:
            threading.Thread(target=switch.rest, args=(seconds,), daemon=True).start()


class GitHandler(BaseHTTPRequestHandler):
    """`git http-backend` over HTTP, for whoever knows a password; bodies of any size stream through."""

    protocol_version = "HTTP/1.1"

    def __init__(self, servers: Servers, *arguments: object) -> None:
        self._servers = servers
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Health, or git."""
        if urlsplit(self.path).path == "/healthz":
            self._answer(200, {"git": self._servers.git.state, "s3": self._servers.s3.state})
        else:
            self._as_user(self._backend)

    def do_POST(self) -> None:
        """Control, or git."""
        control = urlsplit(self.path).path == "/control/down"
        self._as_user(self._control if control else self._backend)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """A line for a request, but for those that ask every second."""
        if self.path != "/healthz":
            super().log_request(code, size)

    def _as_user(self, serve: Callable[[str], None]) -> None:
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        user = password = ""
        with suppress(ValueError):
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        if kind == "Basic" and self._servers.knows(user, password):
            serve(user)
        else:
            self._answer(401, {"error": "name a user and a password"})

    def _control(self, user: str) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        what, seconds = asked.get("what", ["both"])[0], asked.get("seconds", ["60"])[0]
        if user != "trusted":
            self._answer(403, {"error": "only `trusted` may"})
        elif what not in ("git", "s3", "both") or not seconds.replace(".", "", 1).isdigit():
            self._answer(400, {"error": "what=git|s3|both, seconds=NUMBER"})
        else:
            self._answer(202, {"down": what, "seconds": float(seconds)})
            self._servers.rest(what, float(seconds))

    def _answer(self, code: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="retain"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _backend(self, user: str) -> None:
        command = ["git", "http-backend"]
        pipe = subprocess.PIPE
        environment = self._environment(user)
        # A session of its own: what http-backend starts goes with it when the client is cut off.
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True) as process:
            assert process.stdin
            assert process.stdout
            feeder = threading.Thread(target=self._feed, args=(process.stdin, process.pid), daemon=True)
            feeder.start()
            try:
                self._relay(process.stdout)
            except OSError:
                _kill(process.pid)
            feeder.join()

    def _environment(self, user: str) -> dict[str, str]:
        url = urlsplit(self.path)
        given = {
            "CONTENT_LENGTH": self.headers.get("Content-Length"),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding"),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol"),
        }
        return {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROJECT_ROOT": str(self._servers.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(url.path),
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "REMOTE_USER": user,
            "REMOTE_ADDR": self.client_address[0],
            **{name: value for name, value in given.items() if value is not None},
        }

    def _feed(self, pipe: BinaryIO, process: int) -> None:
        """The request's body into git; half a body ends git, so that it never takes it for the whole."""
        try:
            with suppress(BrokenPipeError), pipe:
                for block in self._body():
                    pipe.write(block)
        except (OSError, ValueError):
            _kill(process)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from self._read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield from self._read(size)
            self.rfile.readline()

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            block = self.rfile.read1(min(size, BLOCK))  # type: ignore[attr-defined]
            if not block:
                raise ConnectionError("the client went away")
            size -= len(block)
            yield block

    def _relay(self, output: BinaryIO) -> None:
        headers = http.client.parse_headers(output)
        if not headers:
            raise ConnectionError("git said nothing")
        self.send_response(int(headers.get("Status", "200").split()[0]))
        for name, value in headers.items():
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while block := output.read1(BLOCK):  # type: ignore[attr-defined]
            self.wfile.write(block)
            self.wfile.flush()


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def s3_maker(host: str) -> Callable[[int], socketserver.TCPServer]:
    """What makes moto's server on a port, as its ThreadedMotoServer does; every one of them has the same objects."""
    # Objects are found by the path: a cluster's names of services look like names of buckets.
    os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "1"
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)
    return lambda port: make_server(host, port, application, threaded=True, request_handler=MotoRequestHandler)


def make_bucket(port: int, name: str) -> None:
    """Make a bucket on the S3 server of this process."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("PUT", f"/{name}")
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        sys.exit(f"the bucket {name} cannot be made: S3 answered {status}")


def make_repository(folder: Path) -> None:
    """A bare repository with the hook, if it is not there; an old one gets today's hook and settings."""
    if not (folder / "HEAD").is_file():
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder], check=True)
    for name, value in SETTINGS.items():
        subprocess.run(["git", "-C", folder, "config", name, value], check=True)
    for user in USERS:
        subprocess.run(["git", "-C", folder, "config", f"retain.{user}", user], check=True)
    (folder / "hooks").mkdir(exist_ok=True)
    (folder / "hooks" / "pre-receive").write_text(HOOK.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "hooks" / "pre-receive").chmod(0o755)


def read_passwords(file: str | None) -> dict[str, str]:
    """User to password, of the file or of the environment; ends the program where one is missing."""
    lines = Path(file).read_text(encoding="utf-8").split() if file else []
    given = {user: os.environ.get(f"{user.upper()}_PASSWORD", "") for user in USERS}
    found = {**given, **dict(line.split(":", 1) for line in lines)}
    for user in USERS:
        if not found[user]:
            sys.exit(f"there is no password of {user}: set {user.upper()}_PASSWORD, or name it in --passwords")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM; the first line on stdout says, as JSON, on which ports."""
    parser = argparse.ArgumentParser(description="A Git server and an S3 server for tests.")
    parser.add_argument("--root", type=Path, required=True, help="where the bare repositories are")
    parser.add_argument("--lines", default="", help="repositories to make, as a,b,c: a.git, b.git, c.git")
    parser.add_argument("--bucket", default="retain")
    parser.add_argument("--host", default="0.0.0.0", help="where to listen (default: everywhere)")  # noqa: S104
    parser.add_argument("--git-port", type=int, default=8418, help="0: any that is free")
    parser.add_argument("--s3-port", type=int, default=9000, help="0: any that is free")
    parser.add_argument("--passwords", default=None, metavar="FILE")
    parser.add_argument("--down-seconds", type=float, default=float(os.environ.get("DOWN_SECONDS", "60")))
    options = parser.parse_args(argv)
    # Large objects spill to a file there; an empty /scratch has no such folder yet.
    Path(os.environ.get("TMPDIR", "/tmp")).mkdir(parents=True, exist_ok=True)
    for name in filter(None, options.lines.split(",")):
        make_repository(options.root.resolve() / f"{name}.git")
    passwords = read_passwords(options.passwords)
    servers = Servers(options.root.resolve(), passwords, options.host, options.git_port, options.s3_port)
    make_bucket(servers.s3.port, options.bucket)
    signal.signal(signal.SIGUSR1, lambda *_: servers.rest("both", options.down_seconds))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(json.dumps({"git": servers.git.port, "s3": servers.s3.port, "bucket": options.bucket}), flush=True)
    # Not signal.pause(): a signal that comes just before it, or to another thread, would not end it.
    while True:
        time.sleep(0.2)


if __name__ == "__main__":
    main()
