"""Publishing: a line that keeps everything under its own `.retain/` moves to remotes that pods can reach.

Objects go first, then every ref of Git at once, then the folder's deployment and its `origin` are switched. Each part
finds out what is there already, so that the same command, given again, goes on wherever it was killed.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from cl_steps.errors import IntegrityError, Unavailable, UsageError
from cl_steps.progress import progress, say
from cl_steps.repository.bundle import Refs, is_folder, mirror_workspace, send_all, stored_objects
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.git import git as run_git
from cl_steps.repository.git import remote_refs, text
from cl_steps.repository.line import Line, local, resolve
from cl_steps.repository.mainline import Change, Mainline
from cl_steps.store.digests import object_path
from cl_steps.store.inventory import Inventory
from cl_steps.store.objects import open_store
from cl_steps.store.places import open_place, reaching

CONFIG = ".dvc/config"
MAIN = "refs/heads/main"
STORE_URL = re.compile(r"""(^\['remote "store"'\]\n(?:(?!\[).*\n)*?\s*url *= *)[^\n]*""", re.MULTILINE)
"""The line of `.dvc/config` that says where the store is."""


@dataclass(frozen=True)
class Moved:
    """Where the line was, and where it is now."""

    own: Line
    target: Line


def publish(folder: Path, git: str, store: str, work: str | None, landing: str | None) -> Moved:
    """Move the line of the workspace `folder`; let no run be under way meanwhile.

    Raises:
        UsageError: the line lives elsewhere already, a URL cannot be opened, or the Git remote is not empty.
        IntegrityError: objects arrived with other sizes than they have here.
        Unavailable: a remote cannot be reached or does not take what is sent, or a run wrote meanwhile.
    """
    line, own = resolve(str(folder)), local(folder)
    target = replace(
        line,
        git=_absolute(git),
        store=_absolute(store),
        work=_absolute(work or line.work),
        landing=_absolute(landing or line.landing),
    )
    for url in (target.store, target.work, target.landing):
        open_place(url)
    if (line.git, line.store) == (own.git, own.store):
        refuse_dirty(folder, line)
        _send(own, target)
    elif (line.git, line.store) != (target.git, target.store):
        raise UsageError(
            f"{folder} is at {line.git} already: only a line that keeps everything in its folder is published"
        )
    target.save(folder)
    _follow(folder, target)
    return Moved(own, target)


def _absolute(place: str) -> str:
    """A folder as every process finds it; URLs stay."""
    return place if "://" in place or not place else str(Path(place).resolve())


def _send(own: Line, target: Line) -> None:
    """Everything to the new remotes: objects, then refs."""
    if target.git == own.git or target.store == own.store:
        raise UsageError("the line is there already: name remotes outside of its .retain folder")
    with tempfile.TemporaryDirectory(prefix="retain-publish-") as scratch:
        mirror = Path(scratch) / "mirror.git"
        refs = mirror_workspace(own.git, mirror)
        wanted = {**refs, MAIN: _pointing_to(target.store, mirror, refs[MAIN])}
        run_git(mirror, "update-ref", MAIN, wanted[MAIN])
        _refuse_full(target.git, wanted)
        _copy(Path(own.store), target.store)
        _check_readable(target.store, mirror)
        if _refs(own.git) != refs:
            raise Unavailable("a run wrote to the line meanwhile: let it end, then give the same command again")
        say(f"publish: {len(wanted)} branches and tags")
        send_all(mirror, wanted, target.git)


def _pointing_to(store_url: str, mirror: Path, tip: str) -> str:
    """The commit on `tip` that names the new store for people's own `dvc`: the same one in every try."""
    main = Mainline(str(mirror), mirror, tip)
    config = (main.read(CONFIG) or b"").decode()
    changed, found = STORE_URL.subn(lambda match: match[1] + store_url, config)
    if not found:
        raise UsageError(f"main's {CONFIG} names no remote 'store': put it back, as `retain init` wrote it")
    tree = text(mirror, "rev-parse", f"{main.commit(Change({CONFIG: changed.encode()}, 'draft'))}^{{tree}}")
    when = text(mirror, "show", "-s", "--format=%ct +0000", tip)
    dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    words = ("-p", tip, "-m", "publish the line\n\nthe store is elsewhere now\n")
    return run_git(mirror, "commit-tree", tree, *words, env=dates).decode().strip()


def _refs(url: str) -> Refs:
    return {name: commit for name, commit in remote_refs(url, "refs/*").items() if not name.endswith("^{}")}


def _refuse_full(url: str, wanted: Refs) -> None:
    """Raise UsageError where the Git remote holds anything but what an earlier try of this command put there."""
    if is_folder(url):
        full = Path(url).exists() and (not Path(url).is_dir() or any(Path(url).iterdir()))
    else:
        full = not _refs(url).items() <= wanted.items()
    if full:
        raise UsageError(f"{url} is not empty: name an empty Git remote")


def _copy(folder: Path, url: str) -> None:
    """Every object of the store in a folder to the store at `url`, but for those that are there whole."""
    target, here = open_place(url), Inventory.of(open_place(folder)).sizes
    there = Inventory.of(target).sizes
    absent = [name for name, size in sorted(here.items()) if there.get(name) != size]
    say(f"publish: {len(absent)} of {len(here)} objects to send, {sum(here[name] for name in absent)} bytes")
    for path in progress(map(object_path, absent), len(absent), "publish: objects"):
        target.put(folder / path, path)
    arrived = Inventory.of(target).sizes
    wrong = [name for name, size in here.items() if arrived.get(name) != size]
    if wrong:
        raise IntegrityError(f"{len(wrong)} objects at {url} are not whole: give the same command again")


def _check_readable(url: str, mirror: Path) -> None:
    """Have DVC find the state of main at the new store, by the same credentials that nights will use."""
    named = [{**out, "path": out["md5"]} for out in stored_objects(mirror, {MAIN: ""})]
    with reaching(url, passing=()), open_store(url) as store:
        absent = store.missing(named)
    if absent:
        raise IntegrityError(f"{len(absent)} parts of the state are not at {url}: is the line's own store whole?")


def _follow(folder: Path, target: Line) -> None:
    """The person's checkout looks at the new remote from now on."""
    if (folder / ".git").exists():
        run_git(folder, "config", "remote.origin.url", target.git)
        sync(folder, target)
