"""A landing in S3: its keys as the service itself lists them, a page at a time, and none of them taken for another.

s3fs lists a whole bucket into memory with a kilobyte a key, and cuts `?versionId=` off a key that holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cl_steps.config import Ingest
from cl_steps.landing.bucket import Bucket
from cl_steps.landing.entries import Entry


class S3(Bucket):
    """The keys below a prefix."""

    def _objects(self, bounds: Ingest) -> Iterator[Entry | None]:  # noqa: ARG002  (keys lie in no folders)
        bucket, key, _ = self._fs.split_path(self._root)
        prefix = f"{key}/" if key else ""
        for found in self._pages(bucket, prefix):
            name, num_bytes = str(found["Key"]).removeprefix(prefix), int(found["Size"])
            is_folder = not num_bytes and (not name or name.endswith("/"))  # as consoles make them: it holds nothing
            yield None if is_folder else Entry(name or "/", num_bytes, self._fault_of(f"{bucket}/{found['Key']}"))

    def _pages(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        wanted = {"Bucket": bucket, "Prefix": prefix}
        while True:
            page = self._fs.call_s3("list_objects_v2", **wanted)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            wanted["ContinuationToken"] = page["NextContinuationToken"]

    def _fault_of(self, path: str) -> str:
        bucket, _, key = path.partition("/")
        return "" if self._fs.split_path(path) == (bucket, key, None) else "bad_name"

    def _fetch(self, path: str, num_bytes: int, most: int) -> bytes:
        return super()._fetch(path, num_bytes, most) if num_bytes else b""  # an empty object has no range to ask for
