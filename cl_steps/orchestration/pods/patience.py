"""Patience with Kubernetes' API: a control plane that is renewed, or loses its leader, is away for minutes.

Whatever asks the API does it through a client with this patience: the library's own calls and ours, those of pods,
Jobs, logs and the reaper. It is built into the client, so that no caller can forget it. What is asked for again was
not done before, or is found done: a creation whose answer was lost finds its own object.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from tenacity import RetryCallState, RetryError, Retrying
from tenacity.retry import retry_if_exception
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_exponential, wait_random
from urllib3.exceptions import HTTPError

from cl_steps.errors import Unavailable

LOG = logging.getLogger("retain.kubernetes")
SECONDS, LONGEST_WAIT = 600.0, 15.0
"""How long the API may be away, and how often it is asked then at the least."""
REQUEST_SECONDS = 60.0
"""How long one answer may take, where the caller says nothing: a server may hang, too."""
AWAY = (0, 429, 500, 502, 503, 504)
"""0 is what the client makes of a broken TLS handshake."""
CONFLICT = 409


def patient(client: ApiClient, seconds: float = SECONDS, longest_wait: float = LONGEST_WAIT) -> ApiClient:
    """The client, which asks again where the API is away; after `seconds` it raises Unavailable."""
    client.request = _Patience(client.request, seconds, longest_wait)
    return client


class _Patience:
    """As `ApiClient.request`."""

    def __init__(self, request: Callable[..., Any], seconds: float, longest_wait: float) -> None:
        self._request, self._seconds, self._longest_wait = request, seconds, longest_wait

    def __call__(self, method: str, url: str, **options: Any) -> Any:
        """One request, asked again until it is answered."""
        options["_request_timeout"] = options.get("_request_timeout") or REQUEST_SECONDS
        shortest = self._longest_wait / 15
        retrying = Retrying(
            stop=stop_after_delay(self._seconds),
            wait=wait_exponential(multiplier=shortest, max=self._longest_wait) + wait_random(0, shortest),
            retry=retry_if_exception(lambda error: _is_away(error, url)),
            before_sleep=_say,
        )
        try:
            for attempt in retrying:
                with attempt:
                    return self._ask(attempt.retry_state.attempt_number, method, url, **options)
        except RetryError as error:
            last = error.last_attempt.exception()
            minutes = self._seconds / 60
            raise Unavailable(f"Kubernetes' API was away for {minutes:g} minutes: {_reason(last)}") from last
        raise AssertionError

    def _ask(self, number: int, method: str, url: str, **options: Any) -> Any:
        try:
            return self._request(method, url, **options)
        except ApiException as error:
            if method == "POST" and number > 1 and _said(error) == "AlreadyExists":
                # Names are random: it is the one that an earlier attempt made, whose answer was lost.
                name = options["body"]["metadata"]["name"]
                return self._request("GET", f"{url}/{name}", **{**options, "body": None})
            raise


def _is_away(error: BaseException, url: str) -> bool:
    if isinstance(error, ApiException):
        if error.status == CONFLICT:
            # Another writer was faster, at a quota for example; what is there already stays there.
            return _said(error) == "Conflict"
        # A kubelet that is away is none of the API's: its pod's words can wait, or are lost with it.
        return error.status in AWAY and not url.endswith("/log")
    return isinstance(error, HTTPError)


def _said(error: ApiException) -> str:
    """The reason in Kubernetes' own answer, in one word."""
    try:
        return str(json.loads(error.body)["reason"])
    except (TypeError, ValueError, KeyError):
        return ""


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}".strip()
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {cause}"[:300]


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    LOG.warning("Kubernetes' API is away (%s): it is asked again", _reason(error))
