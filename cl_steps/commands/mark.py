"""`retain mark`: pictures that a version drew get content credentials (C2PA) which name it.

Every picture is signed before the first is written, and each is written whole or not at all. A picture that carries
credentials already is refused: whoever made them would be lost, and ours would claim to be its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.formats import credentials
from cl_steps.formats.credentials import FORMATS, Credentials
from cl_steps.formats.facts import gather
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading

TIMESTAMPS = "RETAIN_TSA"


def mark(images: list[str], version: str, certificates: str, key: str, to: str | None, dir: str) -> str:
    """Sign each picture; with the URL of a timestamp authority in RETAIN_TSA their times are attested, too.

    Raises:
        UsageError: no such version, a picture, key or certificate that cannot be used, or the library is missing.
        Unavailable: a remote cannot be reached.
    """
    credentials.require()
    signer = Credentials.of(_read(certificates), _read(key), os.environ.get(TIMESTAMPS, ""))
    targets = _targets(images, to)
    line = resolve(dir)
    with reading(line.git) as main:
        facts = gather(line, main, version)
    definition = credentials.manifest(facts)
    signed = {target: _signed(signer, source, definition) for target, source in targets.items()}
    _write(signed)
    return f"{len(signed)} pictures name {facts.line} {facts.version}, record {facts.record_sha256[:16]}"


def _targets(images: list[str], to: str | None) -> dict[Path, Path]:
    """Where each picture goes, and where it comes from."""
    found: dict[Path, Path] = {}
    for name in images:
        source = Path(name)
        if source.suffix.lower() not in FORMATS:
            raise UsageError(f"{name!r} is no picture that can be marked: give {', '.join(FORMATS)}")
        target = Path(to) / source.name if to else source
        if target in found:
            raise UsageError(f"{target} would be written twice: give pictures of different names")
        found[target] = source
    return found


def _signed(signer: Credentials, source: Path, definition: Mapping[str, object]) -> bytes:
    content, kind = _read(str(source)), FORMATS[source.suffix.lower()]
    try:
        marked = credentials.read(content, kind) is not None
        signed = b"" if marked else signer.sign(content, kind, {**definition, "format": kind})
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    if marked:
        raise UsageError(f"{source} has content credentials already: mark pictures as they were drawn")
    return signed


def _write(contents: Mapping[Path, bytes]) -> None:
    drafts = {target: target.with_name(f".{target.name}.draft") for target in contents}
    try:
        for target, content in contents.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            drafts[target].write_bytes(content)
        for target, draft in drafts.items():
            draft.replace(target)
    except OSError as error:
        raise UsageError(f"the pictures cannot be written: {error}") from error
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
