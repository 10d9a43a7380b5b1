"""The Hugging Face hub for tests: a server of a few repositories, with the few answers that a download asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "c0ffee" + 34 * "0"
OWNER = "owner"


class Hub(ThreadingHTTPServer):
    """Serves each folder in a folder as `owner/<name>`; `fetched` are the files whose contents were asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.fetched: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """Within it what is in a folder is on the hub."""
    with Hub(folder) as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def log_message(self, format: str, *args: object) -> None: ...

    def _answer(self, *, has_body: bool) -> None:
        path, files = self.path.partition("?")[0], self.server.files
        if path.startswith(f"/api/models/{OWNER}/"):
            repository, _, rest = path.removeprefix(f"/api/models/{OWNER}/").partition("/")
            own = {name.partition("/")[2]: file for name, file in files.items() if name.startswith(f"{repository}/")}
            return self._send(_listing(own, is_tree=rest.startswith("tree/")) if own else None)
        repository, _, rest = path.removeprefix(f"/{OWNER}/").partition("/resolve/")
        name = f"{repository}/{rest.partition('/')[2]}"
        if name not in files:
            return self._send(None)
        if has_body:
            self.server.fetched.add(name)
        return self._send(files[name].read_bytes(), {"ETag": f'"{_oid(files[name])}"'}, has_body=has_body)

    def _send(self, body: bytes | None, headers: dict[str, str] | None = None, *, has_body: bool = True) -> None:
        """Answer; None says that there is no such thing."""
        self.send_response(404 if body is None else 200)
        headers = {"X-Error-Code": "RepoNotFound"} if body is None else headers or {}
        for name, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(body or b""))}.items():
            self.send_header(name, value)
        self.end_headers()
        if has_body and body:
            self.wfile.write(body)


def _listing(files: Mapping[str, Path], *, is_tree: bool) -> bytes:
    if not is_tree:
        return json.dumps({"id": OWNER, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}).encode()
    rows = [
        {"type": "file", "path": name, "size": file.stat().st_size, "oid": _oid(file)} for name, file in files.items()
    ]
    return json.dumps(rows).encode()


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()  # noqa: S324  (Git's)
