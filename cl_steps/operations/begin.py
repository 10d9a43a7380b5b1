"""Beginning: a new line. The workspace is made beside its place and moved there whole, or not at all."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cl_steps.config import Params, RunSpec, load_params, parse_mapping
from cl_steps.documents import write_json
from cl_steps.errors import UsageError
from cl_steps.ledger.champion import CHAMPION, Champion
from cl_steps.ledger.names import tag_of
from cl_steps.operations.first_state import Sources, write_state
from cl_steps.operations.stages import template
from cl_steps.pipeline import STATE
from cl_steps.progress import say
from cl_steps.records.builders import first_record
from cl_steps.records.keys import JUDGE, SIGNING, TRUSTED, make_keys
from cl_steps.records.signer import version_files
from cl_steps.repository.git import git
from cl_steps.repository.line import Line, local, resolve, within
from cl_steps.store import dvc
from cl_steps.store.pointers import read_dvc_file

KEYS = ".retain/keys"
GITIGNORE = """# bytes that DVC keeps, and what is not kept at all
/landing/
/tonight/
/reports/*.html
/.retain/
"""
# In the folder itself: DVC's own reading of Git's patterns takes `/state/*/` for the whole of state/.
KEEP_FACTS = "/*\n!/.gitignore\n!/*.dvc\n!/*.json\n"
DVC_CONFIG = """[core]
    remote = store
    analytics = false
    check_update = false
[cache]
    type = "reflink,copy"
['remote "store"']
    url = ../.retain/store
    verify = true
"""


def init_line(folder: Path, sources: Sources, overrides: dict[str, Any] | None = None) -> Line:
    """A new line in `folder`: v1 is the base as it came, with an adapter that changes nothing yet, or the one given.

    Args:
        folder: does not exist, or is empty.
        overrides: parameters, dotted, that the new params.yaml gets.

    Raises:
        UsageError: the folder is taken, base or parameters are not right.
        NoUsableData: `data` holds nothing usable.
        Unavailable: the hub cannot be reached.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and is not empty: choose another folder")
    draft = folder.resolve().with_name(f".{folder.resolve().name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        params = _write_templates(draft, folder.resolve().name, overrides or {})
        slices, lora = write_state(draft, params, sources)
        _edit_params(draft / "params.yaml", {f"update.lora.{key}": value for key, value in lora})
        line = _with_keys(draft)
        say("init: storing the first version")
        _write_record(draft, slices, store_state(draft))
        commit_and_push(draft, line)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder.resolve())
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{folder} cannot be made: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return resolve(str(folder))


def _write_templates(root: Path, name: str, overrides: dict[str, Any]) -> Params:
    simple = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "my-line"
    shutil.copy(template("dvc.yaml"), root / "dvc.yaml")
    shutil.copy(template("params.yaml"), root / "params.yaml")
    _edit_params(root / "params.yaml", {"name": simple, **overrides})
    (root / "run.yaml").write_text(yaml.safe_dump(RunSpec().model_dump(), sort_keys=False), encoding="utf-8")
    lay_out(root)
    return load_params(root)


def _edit_params(path: Path, values: dict[str, Any]) -> None:
    """Set dotted keys in a YAML file and keep its comments."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.width = 120
    document = editor.load(path.read_text(encoding="utf-8"))
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        block = document
        for parent in parents:
            block = block.setdefault(parent, {})
            if not isinstance(block, dict):
                raise UsageError(f"{dotted!r} cannot be set: {parent!r} is not a block of params.yaml")
        block[last] = list(value) if isinstance(value, tuple) else value
    with path.open("w", encoding="utf-8") as stream:
        editor.dump(document, stream)


def _with_keys(root: Path) -> Line:
    """The line in `root` that signs with keys of its own."""
    keys = root / KEYS
    make_keys(keys, "retain")
    return replace(
        local(root), signing_key=str(keys / SIGNING), trusted_keys=str(keys / TRUSTED), judge_key=str(keys / JUDGE)
    )


def _write_record(root: Path, slices: list[str], digests: dict[str, str]) -> None:
    champion = Champion(version="v1", seed_plan=1, slices=tuple(slices), anchors=dict.fromkeys(slices, "v1"))
    write_json(root / CHAMPION, champion.document())
    parameters = parse_mapping((root / "params.yaml").read_bytes(), "params.yaml")
    record = first_record(digests, slices, parameters, root / "state")
    signing = replace(local(root), signing_key=str(root / KEYS / SIGNING))
    for path, content in version_files(signing, record, root / "state/adapter").items():
        (root / path).write_bytes(content)


def lay_out(root: Path) -> None:
    """Make the folders that Git keeps also when they are empty, and say what it leaves alone."""
    (root / ".gitignore").write_text(GITIGNORE, encoding="utf-8")
    (root / ".dvcignore").write_text("/.retain\n", encoding="utf-8")
    for kept in ("events", "checks", "data", "versions", "state"):
        (root / kept).mkdir(exist_ok=True)
    for kept in ("events", "checks"):
        (root / kept / ".gitkeep").touch()
    for kept in ("data", "state"):
        (root / kept / ".gitignore").write_text(KEEP_FACTS, encoding="utf-8")
    (root / "landing").mkdir()


def store_state(root: Path) -> dict[str, str]:
    """Track `root/state/*` with DVC, put it on the store under `root/.retain`, and return each part's md5."""
    own = root / ".retain"
    git(None, "init", "-q", "-b", "main", str(root.absolute()))
    (own / "store").mkdir(parents=True)
    (root / ".dvc").mkdir()
    (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    targets = [f"state/{name}" for name in STATE]
    with dvc.opened(root, str(own / "store")) as repo:
        dvc.track(repo, targets)
        dvc.push(repo, [out for out in repo.index.outs if out.hash_info])
    (root / ".dvc" / "config").write_text(DVC_CONFIG, encoding="utf-8")
    return {name: str(read_dvc_file((root / f"state/{name}.dvc").read_bytes())["md5"]) for name in STATE}


def commit_and_push(root: Path, line: Line) -> None:
    """Commit everything as v1 and push it to a bare repository under `root/.retain`, where `line` has its Git."""
    remote = root / ".retain" / "git"
    git(None, "init", "-q", "--bare", "-b", "main", str(remote.absolute()))
    git(remote, "config", "uploadpack.allowFilter", "true")
    line.save(root)
    git(root, "add", "--all")
    git(root, "commit", "-q", "-m", "begin the line\n\nthe base as it came is v1\n")
    git(root, "tag", "-a", tag_of(1), "-m", tag_of(1))
    git(root, "push", "-q", str(remote), "main", tag_of(1))
    git(root, "remote", "add", "origin", within(root, line.git))
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(root, "config", "branch.main.remote", "origin")
    git(root, "config", "branch.main.merge", "refs/heads/main")
