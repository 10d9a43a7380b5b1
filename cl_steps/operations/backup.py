"""Backups: a line's Git, what its store must hold, and its keys, in one folder or URL.

    TO/20261122T030000000000Z/
      workspace.bundle   every ref, as `git bundle` writes it: `git clone --mirror workspace.bundle` reads it without us
      objects.json       what the DVC store must hold, by digest and size; its bytes are for the bucket's own copies
      keys.json          the folder of keys, encrypted with a passphrase; only where asked for
      manifest.json      every file's SHA-256 and size, and every ref; written last: without it there is no backup

A backup counts once its bytes were read back and are right; only then older ones go.
"""

from __future__ import annotations

import json as documents
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cl_steps.digests import file_sha256
from cl_steps.documents import Json
from cl_steps.errors import IntegrityError, NoUsableData, UsageError
from cl_steps.operations.key_file import read_keys, seal, unseal, write_keys
from cl_steps.repository.bundle import (
    mirror_workspace,
    open_bundle,
    refuse_full,
    send_all,
    stored_objects,
    write_bundle,
)
from cl_steps.repository.line import Line
from cl_steps.store.places import Place, open_place

BUNDLE, OBJECTS, KEYS, MANIFEST = "workspace.bundle", "objects.json", "keys.json", "manifest.json"
STAMP = "%Y%m%dT%H%M%S%fZ"
FORMAT = 1
TRYING = timedelta(days=1)
"""How long a backup without a manifest may still be one that is being written."""


@dataclass(frozen=True)
class Backup:
    """One backup that is there: its name in the place of backups, and what its manifest says."""

    name: str
    manifest: Json


@dataclass(frozen=True)
class Made:
    """A backup that was written: where it is, how many refs it has, what the store must hold, which older ones went."""

    url: str
    refs: int
    store: Mapping[str, int]
    deleted: list[str]


def back_up(line: Line, to: str, keep: int, keys: str | None, passphrase_file: str | None) -> Made:
    """Write one backup of a line under `to`, read it back, and then let all but the `keep` newest go.

    Raises:
        UsageError: `keep` is below 1, or there are keys without a passphrase (or the other way round).
        NoUsableData: the workspace's Git remote has no main.
        Unavailable: the Git remote or `to` cannot be reached; what is there already stays.
        IntegrityError: what was read back is not what was written; what is there already stays.
    """
    if keep < 1:
        raise UsageError("--keep must be 1 or more: the newest backup is never deleted")
    _refuse_half("--keys", keys, passphrase_file)
    backups = open_place(to)
    with tempfile.TemporaryDirectory(prefix="retain-backup-") as scratch:
        folder = Path(scratch) / datetime.now(UTC).strftime(STAMP)
        folder.mkdir()
        if keys and passphrase_file:
            (folder / KEYS).write_bytes(seal(read_keys(Path(keys)), Path(passphrase_file)))
        made = Backup(folder.name, _write(line.git, folder))
        _upload(backups, folder, made)
    gone = _retire(backups, made, keep)
    return Made(f"{backups.label}/{made.name}", len(made.manifest["refs"]), made.manifest["store"], gone)


def restore(source: str, to: str, keys_to: str | None, passphrase_file: str | None) -> Backup:
    """Every ref of a backup into an empty Git remote, or into a folder that is made for it; then its keys.

    `source` is one backup, or where backups lie: then the newest one is taken.

    Raises:
        UsageError: a target is not empty, or keys are asked for that are not there.
        NoUsableData: no backup is there.
        IntegrityError: a file is not what the manifest says, or the passphrase is another one; nothing was restored.
        Unavailable: the source or the target cannot be reached.
    """
    _refuse_half("--keys-to", keys_to, passphrase_file)
    backups, chosen = _choose(source)
    refuse_full(to)
    if keys_to and Path(keys_to).exists() and any(Path(keys_to).iterdir()):
        raise UsageError(f"{keys_to} is not empty: name a folder that is not there yet for the keys")
    with tempfile.TemporaryDirectory(prefix="retain-restore-") as scratch:
        folder, clone = Path(scratch) / chosen.name, Path(scratch) / "mirror.git"
        _download(backups, chosen, folder)
        opened = _open_keys(folder, passphrase_file) if passphrase_file else {}
        open_bundle(folder / BUNDLE, clone, chosen.manifest["refs"])
        send_all(clone, dict(chosen.manifest["refs"]), to)
    if keys_to:
        write_keys(opened, Path(keys_to))
    return chosen


def _refuse_half(option: str, keys: str | None, passphrase_file: str | None) -> None:
    if bool(keys) != bool(passphrase_file):
        raise UsageError(f"{option} and --passphrase-file belong together: keys are kept encrypted only")


def _write(url: str, folder: Path) -> dict[str, Any]:
    """Every file of the backup into `folder`, the manifest last; returns the manifest."""
    clone = folder.parent / "mirror.git"
    refs = mirror_workspace(url, clone)
    write_bundle(clone, folder / BUNDLE)
    objects = stored_objects(clone, refs)
    _dump(folder / OBJECTS, {"format": FORMAT, "objects": objects})
    manifest = {
        "format": FORMAT,
        "created": folder.name,
        "files": {file.name: {"sha256": file_sha256(file), "bytes": file.stat().st_size} for file in folder.iterdir()},
        "refs": refs,
        "store": {"objects": len(objects), "bytes": sum(int(found.get("size", 0)) for found in objects)},
    }
    _dump(folder / MANIFEST, manifest)
    return manifest


def _dump(file: Path, document: Json) -> None:
    file.write_text(documents.dumps(document, indent=1, sort_keys=True), encoding="utf-8")


def _upload(backups: Place, folder: Path, made: Backup) -> None:
    """Every file, then all of it read back, then the manifest."""
    for name in made.manifest["files"]:
        backups.put(folder / name, f"{made.name}/{name}")
    _download(backups, made, folder.parent / "back")
    backups.put(folder / MANIFEST, f"{made.name}/{MANIFEST}")


def _download(backups: Place, chosen: Backup, folder: Path) -> None:
    """Fetch every file of a backup; raises IntegrityError where one is not what the manifest says."""
    folder.mkdir()
    for name, facts in chosen.manifest["files"].items():
        if name not in (BUNDLE, OBJECTS, KEYS):
            raise IntegrityError(f"{chosen.name}/{MANIFEST} names {name!r}, which is no file of a backup")
        path, copy = f"{chosen.name}/{name}", folder / name
        try:
            backups.get(path, copy)
        except FileNotFoundError as error:
            raise IntegrityError(f"{path} is missing from the backup: restore from another one") from error
        if copy.stat().st_size != facts["bytes"] or file_sha256(copy) != facts["sha256"]:
            raise IntegrityError(f"{path} is not what its manifest says: take another backup")


def _retire(backups: Place, made: Backup, keep: int) -> list[str]:
    """Delete all whole backups but the `keep` newest, which `made` is one of, and tries that were given up."""
    names = [name for name in backups.folders() if _when(name)]
    manifests = {name: _read_manifest(backups, name) for name in names}
    whole = sorted({made.name} | {name for name, content in manifests.items() if content and _is_whole(content, name)})
    long_ago = datetime.now(UTC) - TRYING
    given_up = [name for name, content in manifests.items() if content is None and (_when(name) or long_ago) < long_ago]
    gone = sorted({*whole[:-keep], *given_up} - {made.name})
    for name in gone:
        # The manifest goes first: half a backup is none.
        backups.delete(f"{name}/{MANIFEST}")
        backups.remove(name)
    return gone


def _choose(source: str) -> tuple[Place, Backup]:
    """The backup at `source`, or the newest one under it."""
    parent, _, name = source.rstrip("/").rpartition("/")
    backups = open_place((parent or ".") if _when(name) else source)
    names = [name] if _when(name) else [found for found in reversed(backups.folders()) if _when(found)]
    for found in names:
        content = _read_manifest(backups, found)
        if content:
            return backups, Backup(found, _parse(content, found))
    raise NoUsableData(f"{source} holds no whole backup: name the folder or URL that `retain backup` was given")


def _read_manifest(backups: Place, name: str) -> bytes | None:
    with suppress(FileNotFoundError):
        return backups.read(f"{name}/{MANIFEST}")
    return None


def _parse(content: bytes, name: str) -> dict[str, Any]:
    """A manifest; raises IntegrityError."""
    try:
        manifest = documents.loads(content)
        whole = manifest["format"] == FORMAT and {BUNDLE, OBJECTS} <= set(manifest["files"]) and manifest["refs"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{name}/{MANIFEST} is damaged: name another backup") from error
    if not whole:
        raise IntegrityError(f"{name}/{MANIFEST} is of another format: take the version of retain that wrote it")
    return dict(manifest)


def _is_whole(content: bytes, name: str) -> bool:
    try:
        _parse(content, name)
    except IntegrityError:
        return False
    return True


def _open_keys(folder: Path, passphrase_file: str) -> dict[str, bytes]:
    if not (folder / KEYS).is_file():
        raise UsageError("this backup holds no keys: leave --keys-to and --passphrase-file out")
    return unseal((folder / KEYS).read_bytes(), Path(passphrase_file))


def _when(name: str) -> datetime | None:
    """When a backup of that name was begun; None where it is no backup's name."""
    try:
        return datetime.strptime(name, STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
