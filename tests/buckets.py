"""An S3 server of our own, in this process, with one empty bucket that is called `bucket`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from urllib.request import Request, urlopen

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[Any]:
    """The file system of fsspec's that reaches it; so does any `s3://` meanwhile."""
    import fsspec

    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    with patch.dict(os.environ, {**KEYS, "AWS_ENDPOINT_URL": url}):
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        _forget(url)
        files.mkdir("bucket")
        yield files
        _forget(url)
    server.stop()


def _forget(url: str) -> None:
    """Buckets outlive their server: moto keeps them for the whole process."""
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()


def put(files: Any, key: str, content: bytes) -> None:
    """Put an object under exactly this key, which s3fs might change."""
    files.call_s3("put_object", Bucket="bucket", Key=key, Body=content)
