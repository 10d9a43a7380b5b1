"""DVC, in-process and in one place: how a workspace's big data is fetched, kept and checked."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_steps.errors import IntegrityError, Unavailable
from cl_steps.store.pointers import document, dvc_file, read_dvc_file

if TYPE_CHECKING:
    from dvc.repo import Repo as Repo  # noqa: PLC0414  (who holds one, too, takes its type from here)

TALKATIVE = ("dvc", "dvc_data", "dvc_objects")
"""Loggers of DVC, which write tracebacks to a stream of their own; what they have to say, our errors say."""
NAMED = "`retain verify` names them"
CONFIG = """[core]
    remote = store
    no_scm = {no_scm}
    autostage = false
    analytics = false
    check_update = false
[cache]
    type = "reflink,copy"
['remote "store"']
    url = {url}
    verify = true
"""


def quiet_dvc(root: Path) -> None:
    """Keep DVC to the workspace: no file of the machine's users, no telemetry."""
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        os.environ[name] = str(root.resolve() / ".dvc" / "tmp" / name.lower())
    os.environ["DVC_NO_ANALYTICS"] = "1"


@contextmanager
def opened(root: Path, store_url: str | None = None, no_scm: bool = False) -> Iterator[Repo]:
    """DVC on the clone at `root`, whose own `.dvc/config` is replaced by the deployment's store, if one is given.

    DVC takes paths and names of stages from the process's folder, which is `root` meanwhile.
    """
    quiet_dvc(root)
    if store_url:
        (root / ".dvc").mkdir(exist_ok=True)
        (root / ".dvc" / "config").write_text(
            CONFIG.format(url=store_url, no_scm=str(no_scm).lower()), encoding="utf-8"
        )
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        if (root / name).is_file():
            document((root / name).read_bytes(), name)  # DVC's own reading knows no bounds
    from dvc.repo import Repo

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with chdir(root), Repo(str(root)) as repo:
        yield repo


def pull(repo: Repo, targets: Iterable[str]) -> None:
    """Fetch outputs by name, verified against their digests.

    DVC's own `Repo.pull` reads every YAML file anew for every target; asked for objects it takes a tenth of the time.

    Raises:
        IntegrityError: an object is missing or is not what its name says.
        Unavailable: the store cannot be reached.
    """
    outs = _outs(repo, targets)
    if not outs:
        return
    from dvc.exceptions import CheckoutError, DvcException
    from dvc_objects.errors import ObjectFormatError

    names = ", ".join(str(out) for out in outs)
    try:
        failed = repo.cloud.pull(_hashes(outs)).failed
        if failed:
            raise IntegrityError(f"{names}: {len(failed)} objects are missing from the store or are corrupt; {NAMED}")
        for out in outs:
            out.checkout(force=True)
    except (CheckoutError, ObjectFormatError, FileNotFoundError) as error:
        raise IntegrityError(f"{names}: objects are missing from the store or are corrupt; {NAMED}") from error
    except (DvcException, OSError) as error:
        raise Unavailable(f"{names} cannot be fetched from the store: {error}") from error


def track(repo: Repo, targets: Iterable[str]) -> None:
    """Make a `.dvc` file for each folder."""
    repo.add(list(targets))


def commit(repo: Repo, name: str) -> None:
    """Write a stage's entry of `dvc.lock` from what lies on disk, and send its outputs to the store.

    Raises:
        Unavailable: the store cannot be reached.
    """
    from dvc.repo import lock_repo

    with lock_repo(repo):
        stage = repo.stage.load_one(name=name)
        # The record of what was run serves `dvc repro`, and goes with the step's clone.
        stage.save(run_cache=False)
        stage.commit(relink=False)
        stage.dump(update_pipeline=False)
    push(repo, [out for out in stage.outs if out.use_cache])


def push(repo: Repo, outs: Iterable[Any]) -> None:
    """Send DVC's outputs to the store; raises Unavailable."""
    from dvc.exceptions import DvcException

    try:
        failed = repo.cloud.push(_hashes(outs)).failed
    except (DvcException, OSError) as error:
        raise Unavailable(f"the store cannot be written: {error}") from error
    if failed:
        raise Unavailable(f"the store did not take {len(failed)} objects: try again")


def _hashes(outs: Iterable[Any]) -> set[Any]:
    """DVC's names of all objects of those outputs; lists of folders that are not here yet are fetched."""
    return {oid for out in outs for oids in out.get_used_objs().values() for oid in oids}


def _outs(repo: Repo, targets: Iterable[str]) -> list[Any]:
    """DVC's outputs of those paths, from their own `.dvc` files and `dvc.yaml`.

    `repo.index` would read every `.dvc` file of the workspace, and a line gets one with every intake.
    """
    root, wanted = Path(repo.root_dir), list(targets)
    files = [f"{target}.dvc" for target in wanted if (root / f"{target}.dvc").is_file()]
    for file in files:
        read_dvc_file((root / file).read_bytes())
    files += ["dvc.yaml"] if len(files) < len(wanted) and (root / "dvc.yaml").is_file() else []
    stages = (stage for file in files for stage in repo.stage.load_file(str(root / file)))
    found = {out.fs_path: out for stage in stages for out in stage.outs if out.hash_info}
    lacking = [target for target in wanted if str(root / target) not in found]
    if lacking:
        raise IntegrityError(f"the workspace names no bytes for {', '.join(lacking)}: was its step run?")
    return [found[str(root / target)] for target in wanted]


def fetch(root: Path, store_url: str, folders: Mapping[str, str]) -> None:
    """Fetch folders by their digests, with no workspace: name under `root` to md5; raises as `pull` does."""
    root.mkdir(parents=True)
    for name, md5 in folders.items():
        (root / f"{name}.dvc").write_bytes(dvc_file({"md5": md5}, name))
    with opened(root, store_url, no_scm=True) as repo:
        pull(repo, folders)
