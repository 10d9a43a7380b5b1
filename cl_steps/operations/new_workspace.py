"""The making of a workspace: its folders, its first objects on the store, its first commit on main."""

from __future__ import annotations

from pathlib import Path

from cl_steps.ledger.names import tag_of
from cl_steps.pipeline import STATE
from cl_steps.repository.git import git
from cl_steps.repository.line import Line, within
from cl_steps.store import dvc
from cl_steps.store.pointers import read_dvc_file

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


def template(name: str) -> Path:
    """A file that every workspace gets: shipped in the package, or at the top of a source tree."""
    package = Path(__file__).parents[1]
    shipped = package / "template" / name
    return shipped if shipped.is_file() else package.parent / name


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


def publish(root: Path, line: Line) -> None:
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
