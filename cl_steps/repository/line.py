"""Where a line's places are: its Git remote, its DVC store, its landing, its place for checkpoints, and its keys.

They come from the deployment and never from what a clone holds: for a folder made by `retain init` from
`.retain/line.json` in it (which Git ignores), for a Git URL from the environment. What lies in the folder itself is
written there as `./...`, so that a copy of the folder is a line of its own, and one that was moved stays what it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from cl_steps.documents import JSON_BYTES, Unreadable, read_json, write_json
from cl_steps.errors import UsageError
from cl_steps.repository.git import address

DEPLOYMENT = ".retain/line.json"
SIGSTORE = "sigstore:"
NEEDED = ("git", "store", "signing_key", "trusted_keys", "judge_key")
"""What a workspace cannot be without; landing and `work` may be gone."""
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
        write_json(folder / DEPLOYMENT, {name: within(folder, value) for name, value in asdict(self).items()})


def resolve(workspace: str) -> Line:
    """The line of a workspace folder or of a Git URL; raises UsageError where it is neither."""
    folder = Path(workspace)
    if (folder / DEPLOYMENT).is_file():
        return _deployment(folder.resolve())
    if "://" not in workspace and not (folder / "HEAD").is_file():
        raise UsageError(f"{workspace!r} is not a workspace: `retain init DIR` makes one")
    store = os.environ.get("RETAIN_STORE_URL")
    if not store:
        raise UsageError("a workspace given by its Git URL needs RETAIN_STORE_URL, the URL of its DVC store")
    places = (os.environ.get(name, "") for name in ("RETAIN_WORK", "RETAIN_LANDING", *KEYS))
    return Line(address(workspace), store, *places)


def within(folder: Path, value: str) -> str:
    """A place as `./...` where it lies in the folder, and otherwise as it is."""
    return _changed(value, partial(_shortened, home=folder.resolve()))


def _deployment(home: Path) -> Line:
    file = home / DEPLOYMENT
    try:
        with file.open("rb") as stream:
            values = read_json(stream.read(JSON_BYTES + 1))
    except (OSError, Unreadable) as error:
        raise UsageError(f"{file} cannot be read ({error}): put back what `retain init` wrote") from error
    names = [place.name for place in fields(Line)]
    if not (isinstance(values, dict) and all(isinstance(value, str) for value in values.values())):
        raise UsageError(f"{file} must hold names and places, all of them text: put back what `retain init` wrote")
    unknown, absent = sorted(values.keys() - set(names)), [name for name in names[:4] if name not in values]
    if unknown or absent or not values["git"]:
        wrong = f"an unknown key {unknown[0]!r:.80}" if unknown else f"no {(absent or ['git'])[0]!r}"
        raise UsageError(f"{file} has {wrong}: put back what `retain init` wrote")
    values = {name: _changed(value, partial(_from, home=home)) for name, value in values.items()}
    return Line(**_rehomed(values, home))


def _rehomed(values: Mapping[str, str], home: Path) -> dict[str, str]:
    """The places of a file of before `./...`, written for another folder: those of this one, if they are all here."""
    elsewhere = (value for value in values.values() if not Path(value.removeprefix(SIGSTORE)).is_relative_to(home))
    other = next((before for value in elsewhere if (before := _home_of(value)) and before != home), None)
    if other is None:
        return dict(values)
    found = {name: _changed(value, partial(_moved, before=other, now=home)) for name, value in values.items()}
    needed = (found[name].removeprefix(SIGSTORE) for name in NEEDED if found.get(name) != values.get(name))
    gone = next((place for place in needed if not Path(place).exists()), None)
    if gone:
        raise UsageError(
            f"{home / DEPLOYMENT} was written for {other}, and {gone} is not there: put this folder's places "
            f"into it, or work in {other}"
        )
    return found


def _home_of(value: str) -> Path | None:
    """The workspace in whose `.retain/` a place lies."""
    before, own, _ = value.removeprefix(SIGSTORE).rpartition("/.retain/")
    return Path(before).resolve() if own and "://" not in before else None


def _shortened(path: str, home: Path) -> str:
    return f"./{Path(path).relative_to(home)}" if Path(path).is_relative_to(home) else path


def _from(path: str, home: Path) -> str:
    return str(home / path) if path.startswith("./") else path


def _moved(path: str, before: Path, now: Path) -> str:
    return str(now / Path(path).relative_to(before)) if Path(path).is_relative_to(before) else path


def _changed(value: str, change: Callable[[str], str]) -> str:
    """A place with its path changed; `sigstore` and URLs have none."""
    if value.startswith(SIGSTORE):
        return SIGSTORE + change(value.removeprefix(SIGSTORE))
    return change(value) if value.startswith((".", "/")) else value


def local(folder: Path) -> Line:
    """The line of a workspace that keeps everything under its own `.retain/`."""
    here = folder.resolve()
    own = here / ".retain"
    return Line(str(own / "git"), str(own / "store"), str(own / "work"), str(here / "landing"))
