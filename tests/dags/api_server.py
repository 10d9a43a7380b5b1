"""A small API server of Kubernetes: pods and Jobs of one namespace, over real HTTP, that can be away.

It keeps what it is given and answers what the clients of `dags/` ask; nothing runs. `faults` says how the next requests
go wrong, one each: a status, `reset` (the connection is closed without an answer) or `lost` (what was asked is done,
the answer never comes). `stop` and `start` make the whole server refuse connections.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

PLACE = re.compile(r"/(?:api/v1|apis/batch/v1)/namespaces/[^/]+/(?P<kind>\w+)(?:/(?P<name>[^/]+))?(?:/(?P<part>\w+))?")
KINDS = {"pods": ("v1", "Pod"), "jobs": ("batch/v1", "Job"), "events": ("v1", "Event")}


class ApiServer:
    """The server; `pods` and `jobs` hold objects by name, as Kubernetes' JSON; `asked` what was asked for."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.asked: list[tuple[str, str]] = []
        self.faults: list[int | str] = []
        self.words: dict[str, str] = {}
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        return self.objects["pods"]

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        return self.objects["jobs"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Answer, at the same address each time."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        assert self._server
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    def back_after(self, seconds: float) -> None:
        """Refuse connections, and answer again later."""
        self.stop()
        threading.Timer(seconds, self.start).start()

    def count(self, method: str, kind: str) -> int:
        return self.asked.count((method, kind))

    def make(self, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
        """A new object; its name is taken from then on."""
        name, (version, singular) = body["metadata"]["name"], KINDS[kind]
        if name in self.objects[kind]:
            return _status(409, "AlreadyExists")
        made = body | {"apiVersion": version, "kind": singular}
        made["metadata"] |= {"creationTimestamp": datetime.now(UTC).isoformat(), "uid": f"uid-{name}"}
        made.setdefault("status", {"phase": "Pending"} if kind == "pods" else {})
        self.objects[kind][name] = made
        return 201, made

    def listed(self, kind: str, query: str) -> tuple[int, Any]:
        """All of a kind that the query's labels select."""
        version, singular = KINDS[kind]
        wanted = parse_qs(query).get("labelSelector", [""])[0]
        known = self.objects[kind].values()
        items = [item for item in known if _selects(wanted, item["metadata"].get("labels", {}))]
        return 200, {"apiVersion": version, "kind": f"{singular}List", "metadata": {}, "items": items}

    def answer(self, method: str, kind: str, name: str, body: Any) -> tuple[int, Any]:
        """One object: read, labelled or deleted."""
        known = self.objects[kind]
        if name not in known:
            return _status(404, "NotFound")
        if method == "DELETE":
            del known[name]
            return 200, {"kind": "Status", "status": "Success"}
        if method == "PATCH":
            known[name]["metadata"].setdefault("labels", {}).update(body["metadata"].get("labels", {}))
        return 200, known[name]

    def set_pod(self, name: str, **status: Any) -> None:
        """What has become of a pod."""
        self.pods[name]["status"] = status


@contextmanager
def serving(folder: Path) -> Iterator[ApiServer]:
    """A server, and the kubeconfig of it in `folder`."""
    server = ApiServer()
    server.start()
    names = {"clusters": {"cluster": {"server": server.url}}, "users": {"user": {}}}
    names["contexts"] = {"context": {"cluster": "c", "user": "c", "namespace": "retain"}}
    config = {key: [{"name": "c", **value}] for key, value in names.items()} | {"current-context": "c"}
    (folder / "kubeconfig").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
    try:
        yield server
    finally:
        if server._server:
            server.stop()


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"null")
            address = urlsplit(self.path)
            place = PLACE.fullmatch(address.path)
            assert place, self.path
            kind = place["part"] if place["part"] == "log" else place["kind"]
            server.asked.append((self.command, kind))
            fault = server.faults.pop(0) if server.faults else None
            if fault == "reset":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, found = (
                _status(fault, "Unavailable") if isinstance(fault, int) else self.done(place, body, address.query)
            )
            if fault == "lost":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815

        def done(self, place: re.Match[str], body: Any, query: str) -> tuple[int, Any]:
            kind, name = place["kind"], place["name"]
            if place["part"] == "log":
                return 200, server.words.get(name, "").encode()
            if self.command == "POST":
                return server.make(kind, body)
            return server.answer(self.command, kind, name, body) if name else server.listed(kind, query)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _status(code: int, reason: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": reason}


def _selects(selector: str, labels: dict[str, str]) -> bool:
    """Kubernetes' selectors, as far as they are used here."""
    for wish in re.findall(r"[^,(]+(?:\([^)]*\))?", selector):
        if found := re.fullmatch(r"(\S+) in \(([^)]*)\)", wish):
            if labels.get(found[1]) not in found[2].split(","):
                return False
        elif "!=" in wish:
            key, _, value = wish.partition("!=")
            if labels.get(key) == value:
                return False
        elif wish.startswith("!"):
            if wish[1:] in labels:
                return False
        else:
            key, _, value = wish.partition("=")
            if labels.get(key) != value.lstrip("="):
                return False
    return True
