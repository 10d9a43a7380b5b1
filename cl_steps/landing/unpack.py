"""Unpacks one archive of a stranger's: `python -m cl_steps.landing.unpack`, a process of its own, within bounds.

A tar is read member by member, a Parquet file row by row; nothing is ever written under a name of theirs. What a parser
does with hostile bytes (memory without end, loops, a crash) ends this process and no other. The outcome is two files:
the members' bytes one after the other, and a list of them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MEMORY_BYTES = 3 * 2**30
"""Of address space, beyond what the archive's largest member may have."""
MAX_COLUMNS = 32
MAX_TEXT = 20_000
"""Characters that are taken of a text in a row: more than any caption may have."""
ROWS_AT_ONCE = 4
IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
"""Names of plain binary columns that hold pictures; those that Hugging Face's `Image` makes are known by their type."""


class NoImages(ValueError):
    """A Parquet file has no column of images."""


@dataclass(frozen=True)
class Bounds:
    """What may come of one archive: a member's bytes, all members' together, how many, and seconds of a processor."""

    member_bytes: int
    total_bytes: int
    members: int
    seconds: int

    def hold(self) -> None:
        """Have the system hold this process to them."""
        memory = MEMORY_BYTES + 8 * self.member_bytes
        for kind, most in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_CPU, self.seconds),
            (resource.RLIMIT_FSIZE, self.total_bytes + 2**28),
            (resource.RLIMIT_CORE, 0),
        ):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


@dataclass
class Out:
    """The two files that are written: each member once, with its bytes or with why they are not there."""

    content: IO[bytes]
    listed: IO[str]
    bounds: Bounds
    num_members: int = 0

    def put(self, name: str, num_bytes: int, content: IO[bytes] | None = None, fault: str = "") -> None:
        """Enter one member; raises EOFError where there are more than may be."""
        self.num_members += 1
        if self.num_members > self.bounds.members:
            raise EOFError
        row: dict[str, object] = {"name": name, "num_bytes": num_bytes}
        if not fault and num_bytes > self.bounds.member_bytes:
            fault = "too_large"
        if fault:
            row["fault"] = fault
        elif self.content.tell() + num_bytes > self.bounds.total_bytes:
            row["left"] = "bytes"
        elif content is not None:
            data = content.read(num_bytes)
            row["num_bytes"] = self.content.write(data)
        self.listed.write(json.dumps(row) + "\n")


def unpack(kind: str, archive: Path, out: Out) -> None:
    """Enter all members; raises whatever a parser of hostile bytes raises."""
    (_unpack_tar if kind == ".tar" else _unpack_parquet)(archive, out)


def _unpack_tar(archive: Path, out: Out) -> None:
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep the headers of all
            name = member.name.removeprefix("./")
            if member.isdir():
                continue
            if not member.isreg():
                out.put(name, 0, fault="symlink" if member.issym() or member.islnk() else "not_a_file")
                continue
            out.put(name, member.size, tar.extractfile(member))


def _unpack_parquet(archive: Path, out: Out) -> None:
    import io

    import pyarrow.parquet as pq

    file = pq.ParquetFile(archive)
    image, texts = _columns(file.schema_arrow)
    lines: list[bytes] = []
    for number, (content, said) in enumerate(_rows(file, image, texts)):
        name = f"{number:08d}"
        out.put(name, len(content), io.BytesIO(content))
        lines.append(json.dumps({"file_name": name, **said}).encode())
    joined = b"\n".join(lines)
    bounds = out.bounds
    out.bounds = Bounds(len(joined), bounds.total_bytes, bounds.members, bounds.seconds)
    out.put("metadata.jsonl", len(joined), io.BytesIO(joined))


def _columns(schema: Any) -> tuple[str, list[str]]:
    """The column of images, and those of texts; raises NoImages."""
    import pyarrow as pa

    def is_bytes(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def is_image(field: pa.Field) -> bool:
        kind = field.type
        if pa.types.is_struct(kind):
            return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
        return field.name.lower() in IMAGES and is_bytes(kind)

    images = sorted((field.name for field in schema if is_image(field)), key=lambda name: name.lower() not in IMAGES)
    if not images:
        raise NoImages
    kinds = (pa.types.is_string, pa.types.is_large_string)
    texts = [field.name for field in schema if any(kind(field.type) for kind in kinds)]
    return images[0], texts[:MAX_COLUMNS]


def _rows(file: Any, image: str, texts: list[str]) -> Iterator[tuple[bytes, dict[str, str]]]:
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=[image, *texts], use_threads=False):
        for row in batch.to_pylist():
            found = row[image]
            content = found.get("bytes") if isinstance(found, dict) else found
            said = {name: row[name][:MAX_TEXT] for name in texts if isinstance(row[name], str)}
            yield content if isinstance(content, bytes) else b"", said


def main(arguments: Iterable[str]) -> int:
    """Unpack; 0: all of it, 3: a Parquet file without images, 4: more members than may be, 5: it cannot be read on."""
    kind, archive, content, listed, *numbers = arguments
    bounds = Bounds(*map(int, numbers))
    bounds.hold()
    with Path(content).open("wb") as data, Path(listed).open("w", encoding="ascii") as rows:
        try:
            unpack(kind, Path(archive), Out(data, rows, bounds))
        except NoImages:
            return 3
        except EOFError:
            return 4
        except Exception:  # whatever: the parent says that it is damaged
            return 5
    return 0


if __name__ == "__main__":
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    sys.exit(main(sys.argv[1:]))
