"""The branch `archive`: what stays of a run once its own branch is pruned, under `archive/<run>/`.

The parameters and the spec it ran with, what exactly went in and came out, its reports, and a person's answers. It only
ever grows, by compare-and-swap as main does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cl_steps.errors import Unavailable
from cl_steps.ledger.times import FILE as TIMES
from cl_steps.pipeline import STAGES
from cl_steps.repository.bundle import ARCHIVE
from cl_steps.repository.git import GitError, blobs, git, remote_refs, text
from cl_steps.repository.mainline import TRIES, Change, Mainline

FILES = (
    *("params.yaml", "run.yaml", "dvc.lock", "reports/junit.xml", TIMES, *(step.report for step in STAGES)),
    *(step.statement for step in STAGES if step.judges),
)
"""What a run's branch has that main has not."""
BEGINNING = {"GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}
"""Of the first, empty commit: whoever makes it makes the same one."""


def archived(clone: Path) -> dict[str, str]:
    """Where, in a clone that has the archive, the files of every archived run are: run id to `REF:FOLDER/`."""
    names = text(clone, "for-each-ref", "--format=%(refname)", ARCHIVE).splitlines()
    if ARCHIVE not in names:
        return {}
    found = text(clone, "ls-tree", "--name-only", ARCHIVE, "archive/").splitlines()
    return {name.rpartition("/")[2]: f"{ARCHIVE}:{name}/" for name in found}


def put_away(main: Mainline, tips: Mapping[str, str], answers: Mapping[str, Mapping[str, bytes]]) -> None:
    """Copy runs into the archive, in one commit; those that lie there already, as they are now, change nothing.

    Args:
        main: its clone must hold the tips.
        tips: the commit of each run's branch, by run id.
        answers: the event files of answers to each run, name to content.

    Raises:
        Unavailable: the archive did not take it.
    """
    files = {path: content for run, tip in tips.items() for path, content in _kept(main.folder, run, tip).items()}
    for run in tips:
        files |= {f"archive/{run}/events/{name}": content for name, content in answers.get(run, {}).items()}
    for _ in range(TRIES):
        if _stored(main, Change(files, f"archive {len(tips)} runs\n")):
            return
    raise Unavailable("the branch archive did not take the runs (this needs the trusted credential): try again")


def _stored(main: Mainline, change: Change) -> bool:
    """One try; the archive is fast-forwarded, and whoever loses looks at it again."""
    old = _tip(main)
    commit = main.commit(change, parent=old or _beginning(main.folder))
    if old and not text(main.folder, "diff", "--name-only", old, commit):
        return True
    try:
        git(main.folder, "push", "-q", f"--force-with-lease={ARCHIVE}:{old}", main.url, f"{commit}:{ARCHIVE}")
    except GitError:
        return False
    return True


def _kept(clone: Path, run: str, tip: str) -> dict[str, bytes]:
    contents = blobs(clone, [f"{tip}:{path}" for path in FILES])
    found = zip(FILES, contents, strict=True)
    return {f"archive/{run}/{path}": content for path, content in found if content is not None}


def _tip(main: Mainline) -> str:
    """The archive's commit on the remote, fetched; empty where there is none yet."""
    tip = remote_refs(main.url, ARCHIVE).get(ARCHIVE, "")
    if tip:
        git(main.folder, "fetch", "-q", "--no-tags", main.url, f"+{ARCHIVE}:{ARCHIVE}")
    return text(main.folder, "rev-parse", ARCHIVE) if tip else ""


def _beginning(clone: Path) -> str:
    tree = git(clone, "mktree", stdin=b"").decode().strip()
    words = ("-m", "begin the archive of runs")
    return git(clone, "commit-tree", tree, *words, env=BEGINNING).decode().strip()
