"""Where a line's places are: its Git remote, its DVC store, its landing, its place for checkpoints, and its keys.

They come from the deployment and never from what a clone holds: for a folder made by `retain init` from
`.retain/line.json` in it (which Git ignores), for a Git URL from the environment.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.workspace.context import write_json

DEPLOYMENT = ".retain/line.json"
KEYS = ("RETAIN_SIGNING_KEY", "RETAIN_TRUSTED_KEYS", "RETAIN_JUDGE_KEY")


@dataclass(frozen=True)
class Line:
    """One model that is kept up to date, as this machine reaches it; what is empty is not there.

    `work` is a folder or URL. `signing_key` is a file with a private key (PEM), or `sigstore`, or `sigstore:FILE` for
    a private one, and only the trusted steps and commands have it. `judge_key` is such a key too: with it evaluate and
    gate sign what they find, and no other step has it. `trusted_keys` says whose signatures count.
    """

    git: str
    store: str
    work: str
    landing: str
    signing_key: str = ""
    trusted_keys: str = ""
    judge_key: str = ""

    def save(self, folder: Path) -> None:
        """Keep it as the deployment of the workspace in `folder`."""
        write_json(folder / DEPLOYMENT, asdict(self))


def resolve(workspace: str) -> Line:
    """The line of a workspace folder or of a Git URL; raises UsageError where it is neither."""
    folder = Path(workspace)
    if (folder / DEPLOYMENT).is_file():
        return Line(**json.loads((folder / DEPLOYMENT).read_text(encoding="utf-8")))
    if "://" not in workspace and not (folder / "HEAD").is_file():
        raise UsageError(f"{workspace!r} is not a workspace: `retain init DIR` makes one")
    store = os.environ.get("RETAIN_STORE_URL")
    if not store:
        raise UsageError("a workspace given by its Git URL needs RETAIN_STORE_URL, the URL of its DVC store")
    places = (os.environ.get(name, "") for name in ("RETAIN_WORK", "RETAIN_LANDING", *KEYS))
    return Line(workspace, store, *places)


def local(folder: Path) -> Line:
    """The line of a workspace that keeps everything under its own `.retain/`."""
    here = folder.resolve()
    own = here / ".retain"
    return Line(str(own / "git"), str(own / "store"), str(own / "work"), str(here / "landing"))
