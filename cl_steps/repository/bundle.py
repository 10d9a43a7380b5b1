"""A whole Git remote as one file: every ref into a bundle, and every ref of a bundle into an empty remote."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cl_steps.errors import IntegrityError, NoUsableData, Unavailable, UsageError
from cl_steps.repository.git import GitError, address, git, reason, remote_refs, text
from cl_steps.store.pointers import lock_outs, read_dvc_file, read_lock

FACTS = ("md5", "size", "nfiles")
Refs = dict[str, str]
"""Ref name to the id of what it points at."""
ARCHIVE = "refs/heads/archive"
"""The branch with what stays of pruned runs (see `repository.archive`)."""
SERVERS = ("refs/pull/", "refs/merge-requests/", "refs/keep-around/", "refs/pipelines/", "refs/environments/")
"""Refs that hosting servers make by themselves: they are in a bundle, but no server takes them back."""


def mirror(source: str, folder: Path) -> Refs:
    """Clone every ref of a remote (or of a bundle) into a bare repository.

    Raises:
        GitError: git's own words, for the caller to classify.
    """
    git(None, "clone", "-q", "--mirror", "--no-local", address(source), str(folder.absolute()))
    lines = text(folder, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    return {name: commit for commit, _, name in (line.partition(" ") for line in lines)}


def mirror_workspace(url: str, folder: Path) -> Refs:
    """Clone every ref of a workspace's Git remote.

    Raises:
        Unavailable: the remote cannot be read.
        NoUsableData: it has no main.
    """
    try:
        refs = mirror(url, folder)
    except GitError as error:
        raise Unavailable(f"the workspace's Git remote cannot be read: {reason(error)}") from error
    if "refs/heads/main" not in refs:
        raise NoUsableData("the workspace's Git remote has no branch main: there is nothing to back up")
    return refs


def write_bundle(clone: Path, file: Path) -> None:
    """Every ref of a mirror, and all that they reach, as one file."""
    git(clone, "bundle", "create", "-q", str(file), "--all")


def stored_objects(clone: Path, refs: Refs) -> list[dict[str, Any]]:
    """What the store must hold for the tips of all refs: md5 (`.dir` at its end: a folder), size in bytes, files."""
    found: dict[str, dict[str, Any]] = {}
    for content, path in _data_files(clone, refs):
        try:
            outs = lock_outs(read_lock(content)).values() if path.endswith("dvc.lock") else [read_dvc_file(content)]
            named = {str(out["md5"]): {key: out[key] for key in FACTS if key in out} for out in outs if out.get("md5")}
        except IntegrityError:
            # Whoever runs a step may write anything on its run's branch; that must not end the backup of a line.
            continue
        found |= named
    return [found[md5] for md5 in sorted(found)]


def _data_files(clone: Path, refs: Refs) -> Iterator[tuple[bytes, str]]:
    """Every `.dvc` file and `dvc.lock` of the refs' trees, each content once; the archive's objects may be gone."""
    blobs: dict[str, str] = {}
    for tree in {text(clone, "rev-parse", f"{ref}^{{tree}}") for ref in refs if ref != ARCHIVE}:
        for line in git(clone, "ls-tree", "-r", "-z", tree).split(b"\0"):
            facts, _, path = line.decode(errors="replace").partition("\t")
            if path.endswith((".dvc", "dvc.lock")):
                blobs[facts.split()[2]] = path
    for blob, path in blobs.items():
        yield git(clone, "cat-file", "blob", blob), path


def open_bundle(bundle: Path, folder: Path, expected: Mapping[str, str]) -> None:
    """Clone a bundle and check it; raises IntegrityError where it is not whole, or holds other refs than expected."""
    try:
        found = mirror(str(bundle), folder)
        git(folder, "fsck", "--connectivity-only", "--no-progress")
    except GitError as error:
        raise IntegrityError("git cannot read the backup's bundle: restore from another backup") from error
    if found != dict(expected):
        raise IntegrityError("the bundle holds other refs than its manifest says: restore from another backup")


def is_folder(target: str) -> bool:
    """Whether a target is a folder that is to become a Git repository, and no remote that is there."""
    return "://" not in target and not (Path(target) / "HEAD").is_file()


def refuse_full(target: str) -> None:
    """Raise UsageError unless the target is an empty Git remote, an empty folder, or nothing yet."""
    folder = Path(target)
    if not is_folder(target):
        if remote_refs(target):
            raise UsageError(f"{target} has branches or tags already: restore into an empty Git remote")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{target} is not empty: name a folder that is not there yet, or an empty Git remote")


def send_all(clone: Path, refs: Refs, target: str) -> Refs:
    """Every ref (but those that servers make) to an empty target, all or none; returns what the target then has.

    Raises:
        Unavailable: the target did not take them.
    """
    wanted = {ref: commit for ref, commit in refs.items() if not ref.startswith(SERVERS)}
    for ref in refs.keys() - wanted.keys():
        git(clone, "update-ref", "-d", ref)
    if is_folder(target):
        _place(clone, Path(target))
    else:
        _push(clone, target)
    found = {ref: commit for ref, commit in remote_refs(target, "refs/*").items() if not ref.endswith("^{}")}
    if found != wanted:
        raise Unavailable(f"{target} holds {len(found)} refs instead of {len(wanted)}: empty it and try again")
    return found


def _place(clone: Path, folder: Path) -> None:
    """The clone becomes the bare repository `folder`, in one rename."""
    git(clone, "config", "--remove-section", "remote.origin")
    git(clone, "symbolic-ref", "HEAD", "refs/heads/main")
    git(clone, "config", "uploadpack.allowFilter", "true")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        shutil.copytree(clone, beside / "git")
        if folder.exists():
            folder.rmdir()
        (beside / "git").rename(folder)
    finally:
        shutil.rmtree(beside)


def _push(clone: Path, url: str) -> None:
    try:
        git(clone, "push", "-q", "--atomic", "--mirror", address(url))
    except GitError as error:
        words = f"{url} did not take the refs (this needs a credential that may write all of them)"
        raise Unavailable(f"{words}: {reason(error)}") from error
