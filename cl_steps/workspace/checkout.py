"""A person's own checkout of a workspace: keep it clean, bring it up to date."""

from __future__ import annotations

from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.workspace.git import GitError, git, refuse_links, text


def refuse_dirty(folder: Path) -> None:
    """Raise UsageError where the checkout holds changes that a run, which works from main, would not see."""
    if not (folder / ".git").exists():
        return
    refuse_links(folder)
    changed = text(folder, "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        names = ", ".join(line.split(maxsplit=1)[1] for line in changed[:3])
        raise UsageError(f"the workspace has changes that are not committed ({names}): commit and push or discard them")
    git(folder, "fetch", "-q", "origin")
    if text(folder, "rev-list", "origin/main..HEAD"):
        raise UsageError("the workspace has commits that are not pushed: `git push origin main`, then try again")


def sync(folder: Path) -> None:
    """Fast-forward the checkout to main and fetch the state's data that changed."""
    if not (folder / ".git").exists():
        return
    before = text(folder, "rev-parse", "HEAD:state")
    try:
        git(folder, "pull", "-q", "--ff-only", "--tags", "origin", "main")
    except GitError as error:
        raise UsageError(f"the workspace's checkout cannot follow main: {str(error).splitlines()[-1]}") from error
    if text(folder, "rev-parse", "HEAD:state") != before:
        fetch_state(folder)


def fetch_state(folder: Path) -> None:
    """Bring `state/` on disk to what the checkout's `.dvc` files name, from the store of its own configuration."""
    from cl_steps.workspace import store

    with store.opened(folder.resolve()) as repo:
        store.pull(repo, [f"state/{path.stem}" for path in sorted((folder / "state").glob("*.dvc"))])
