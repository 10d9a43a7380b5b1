"""MLflow's tracking server and model registry, by their REST interface and the standard library alone.

Credentials come from where MLflow's clients look for them: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD.

Compared with `mlflow-skinny` 3.17 (November 2026): it wants cachetools<8 and importlib-metadata<10, so that no release
since 3.0 solves with our constraints. It brings 40 packages and 119 MB (a web server and a cloud's SDK among them), and
1,188 modules in 0.8 CPU seconds at import where this has 123 in 0.04. It follows redirects, loads every plugin that is
installed, and reports its use to its makers unless told not to. It would save half of this file (not its sentences and
refusals) and nothing of `registry.py`, which says what a version is. So ours stays: smaller where it runs, and safer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cl_steps.errors import Unavailable, UsageError, first_line

API = "/api/2.0/mlflow/"
PROXY = "/api/2.0/mlflow-artifacts/artifacts/"
SCHEME = "mlflow-artifacts:/"
SECONDS, MAX_BYTES = 60, 16_384
"""How long one request may take, and how much of an error is read."""
PARAMETERS_AT_ONCE, METRICS_AT_ONCE, LONGEST_VALUE = 100, 1000, 500
"""Limits of the server: of one `log-batch`, and characters of a value."""

Json = dict[str, Any]


class Missing(Exception):
    """The server has no such thing; the caller knows what that means."""


class _NoRedirect(HTTPRedirectHandler):
    """Credentials go to the server that was named and to no other."""

    def redirect_request(self, *_: Any) -> None:
        """Never."""


@dataclass(frozen=True)
class Server:
    """A tracking server; each method raises UsageError where it refuses and Unavailable where it does not answer."""

    url: str
    authorization: str = ""

    @classmethod
    def of(cls, url: str, environ: Mapping[str, str]) -> Server:
        """The server at a URL, with the environment's credentials; raises UsageError for what is no such URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("--mlflow takes the URL of a tracking server, such as https://mlflow.example.org")
        if "@" in parts.netloc:
            raise UsageError("--mlflow takes no password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return cls(url.rstrip("/"), _authorization(environ))

    def get(self, path: str, /, **query: str) -> Json:
        """Ask; raises Missing where there is no such thing."""
        return self._json("GET", f"{path}?{urlencode(query)}")

    def post(self, path: str, body: Json, method: str = "POST") -> Json:
        """Change; raises Missing where there is no such thing."""
        return self._json(method, path, body)

    def pages(self, path: str, key: str, query: Json, *, post: bool = False) -> Iterator[Json]:
        """Everything that a search finds, page after page."""
        token = ""
        while True:
            asked = {**query, **({"page_token": token} if token else {})}
            answer = self.post(path, asked) if post else self.get(path, **{k: str(v) for k, v in asked.items()})
            yield from answer.get(key, ())
            token = answer.get("next_page_token", "")
            if not token:
                return

    def upload(self, place: str, name: str, content: bytes) -> None:
        """Put an artifact under a run's `artifact_uri` through the server's proxy."""
        path = quote(f"{place.removeprefix(SCHEME).strip('/')}/{name}")
        self._send("PUT", f"{PROXY}{path}", content, "application/octet-stream")

    def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        content = None if body is None else json.dumps(body).encode()
        answer = self._send(method, f"{API}{path}", content, "application/json")
        try:
            return dict(json.loads(answer or b"{}"))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.url} is no MLflow server: it did not answer in JSON") from error

    def _send(self, method: str, path: str, content: bytes | None, kind: str) -> bytes:
        headers = {"Content-Type": kind} | ({"Authorization": self.authorization} if self.authorization else {})
        request = Request(f"{self.url}{path}", content, headers, method=method)  # noqa: S310  (http and https only)
        try:
            with build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            with error:
                self._refused(error)
        except (OSError, HTTPException) as error:
            raise Unavailable(f"MLflow at {self.url} does not answer: {first_line(error):.200}") from error

    def _refused(self, error: HTTPError) -> NoReturn:
        kind, said = _words(error)
        if error.code == 404 and kind == "RESOURCE_DOES_NOT_EXIST":
            raise Missing from None
        if error.code in (401, 403):
            raise UsageError(
                f"MLflow at {self.url} wants other credentials: set MLFLOW_TRACKING_TOKEN, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from None
        if error.code >= 500 or error.code == 429:
            raise Unavailable(f"MLflow at {self.url} cannot do it now ({error.code}): try again") from None
        raise UsageError(f"MLflow at {self.url} refuses ({error.code}): {said:.200}") from None


def _words(error: HTTPError) -> tuple[str, str]:
    """The kind of an error and what the server says of it, on one printable line."""
    text = error.read(MAX_BYTES).decode("utf-8", "replace")
    try:
        kind, said = (str(json.loads(text).get(key, "")) for key in ("error_code", "message"))
    except (ValueError, AttributeError):
        kind, said = "", text
    return kind, "".join(c for c in " ".join(said.split()) if c.isprintable())


def _authorization(environ: Mapping[str, str]) -> str:
    name, password = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD")
    if name and password:
        return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"
    token = environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else ""
