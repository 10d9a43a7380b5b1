"""Where a line's landing is: a folder or a URL, as the deployment or main's params.yaml names it.

What lands goes to the store, which many may read: a folder that holds keys or credentials is no landing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cl_steps.config import Params
from cl_steps.errors import NoUsableData, UsageError
from cl_steps.landing.bucket import S3, Bucket, Memory
from cl_steps.landing.entries import Source
from cl_steps.landing.folder import Folder
from cl_steps.repository.line import Line
from cl_steps.store.places import open_place

LOCAL = ("file", "local")
KINDS = {"s3": S3, "memory": Memory}
HUB_KINDS = ("datasets/", "spaces/", "models/", "buckets/")
MASKS = ("dir", "simplecache", "filecache", "blockcache", "cached", "asyncwrapper", "async_wrapper")
"""File systems that show another one as it is, and would follow the links of a folder of this machine."""
OWN = ".retain"
"""What `retain init` keeps beside a workspace: its keys, among others."""
SECRET_FOLDERS = ("/etc/retain", "/run/secrets", "/var/run/secrets")
"""Where pods find keys and credentials."""
SECRETS_AT_HOME = (".ssh", ".aws", ".config/gcloud", ".azure", ".netrc", ".git-credentials")
SECRET_FILES = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "GIT_CONFIG_GLOBAL", "GOOGLE_APPLICATION_CREDENTIALS")
"""Variables that name files with credentials."""


def open_landing(line: Line, params: Params, scratch: Path) -> Source:
    """The landing of a line, which nobody has looked into yet.

    Args:
        line: the deployment.
        params: main's, which may name another landing.
        scratch: where a copy of it will lie.

    Raises:
        NoUsableData: the line has none.
        UsageError: it reaches what must not be copied, or nothing here can open such a URL.
    """
    place = params.landing or line.landing
    if not place:
        raise NoUsableData("the line has no landing: name a folder or URL for it, and put images and metadata.jsonl in")
    for folder in _folders(place):
        _refuse_reach(folder, line, scratch)
    return source_of(place)


def source_of(place: str) -> Source:
    """What lies at a folder or URL, which nobody has looked into yet; raises UsageError where nothing opens the URL."""
    if "://" not in place:
        return Folder(Path(place))
    found = open_place(_spelt(place))
    if found.is_local:
        return Folder(Path(found.root))
    kinds = {found.files.protocol} if isinstance(found.files.protocol, str) else set(found.files.protocol)
    source = next((KINDS[kind] for kind in kinds if kind in KINDS), Bucket)
    return source(found.files, found.root, place)


def _spelt(place: str) -> str:
    """A URL as its library wants it: `hf://owner/name` is the data set of that id."""
    kind, _, rest = place.partition("://")
    return f"hf://datasets/{rest}" if kind == "hf" and not rest.startswith(HUB_KINDS) else place


def _folders(place: str) -> Iterator[Path]:
    """The folders of this machine that a landing names, right or within a chain of URLs."""
    if "://" not in place:
        yield Path(place)
        return
    first, *others = place.split("::")
    for part in (first, *others):
        kind, is_url, rest = part.partition("://")
        if (is_url and kind in LOCAL) or (not is_url and others and "/" in part):
            if others and first.partition("://")[0] in MASKS:
                raise UsageError(f"the landing {place} is a folder of this machine: name the folder itself")
            yield Path(rest or part)


def _refuse_reach(folder: Path, line: Line, scratch: Path) -> None:
    here = _real(folder)
    secret = next((place for place in _secrets(line) if _real(place).is_relative_to(here)), None)
    inside = next((place for place in map(_real, map(Path, SECRET_FOLDERS)) if here.is_relative_to(place)), None)
    if secret or inside or OWN in here.parts:
        raise UsageError(
            f"the landing {folder} reaches keys or credentials ({secret or inside or OWN}), and what lands is stored"
            " for many to read: use a folder that holds nothing else"
        )
    if _real(scratch).is_relative_to(here):
        raise UsageError(f"the landing {folder} holds the folder for temporary files ({scratch}): set TMPDIR elsewhere")


def _secrets(line: Line) -> Iterator[Path]:
    yield from map(Path, SECRET_FOLDERS)
    yield from (path for name in SECRETS_AT_HOME if (path := Path.home() / name).exists())
    yield from (Path(os.environ[name]) for name in SECRET_FILES if os.environ.get(name))
    keys = [key.removeprefix("sigstore:") for key in (line.signing_key, line.judge_key) if key not in ("", "sigstore")]
    yield from map(Path, keys)
    for place in (line.git, line.store, line.work, *keys):
        parts = Path(place).parts
        if OWN in parts:
            yield Path(*parts[: parts.index(OWN) + 1])


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
