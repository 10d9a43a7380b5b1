"""`retain rights`: may a credential do what its role must not? It tries, and fails where the Git server lets it.

What is tried would do no harm, and can be seen: a commit on main that changes nothing, a tag of no version, branches
that name no run. What the server took is taken back where it lets that, too.
"""

from __future__ import annotations

from cl_steps.errors import IntegrityError, Unavailable, UsageError
from cl_steps.repository.beginning import BEGUN
from cl_steps.repository.git import GitError, git, remote_refs, text
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import Mainline, reading

PROBE = "probe-of-rights"
MAIN, TAG, RUN, ARCHIVE = "refs/heads/main", "refs/tags/model@v0.0.999999999", "refs/heads/runs/", "refs/heads/archive"
OTHER = f"refs/heads/{PROBE}"
FORBIDDEN = {
    "step": (MAIN, TAG, f"{BEGUN}{PROBE}", f"{RUN}{PROBE}", OTHER),
    "opener": (MAIN, TAG, OTHER),
}
"""What each role must not write."""


def rights(dir: str, role: str) -> str:
    """Try to write, with the credential of this process, what its role must not.

    Raises:
        UsageError: there is no such role.
        IntegrityError: the Git server took something.
        Unavailable: the Git remote cannot be read: nothing can be said.
    """
    if role not in FORBIDDEN:
        raise UsageError(f"there is nothing to try for the role {role!r}: name one of {', '.join(FORBIDDEN)}")
    with reading(resolve(dir).git) as main:
        tree = text(main.folder, "rev-parse", f"{main.tip}^{{tree}}")
        words = f"a {role}'s credential could write this\n\n`retain rights` tried it; nothing is changed.\n"
        commit = text(main.folder, "commit-tree", tree, "-p", main.tip, "-m", words)
        taken = [ref for ref in FORBIDDEN[role] if _takes(main, commit, ref)]
        if _moves_back(main, commit if MAIN in taken else main.tip):
            taken.append(f"{MAIN} moved back")
    if taken:
        names = ", ".join(taken)
        raise IntegrityError(
            f"with a {role}'s credential the Git server takes {names}: forbid it (containers/git/README.md)"
        )
    return f"a {role}'s credential writes nothing that it must not: {len(FORBIDDEN[role]) + 1} tries were refused"


def _takes(main: Mainline, commit: str, ref: str) -> bool:
    """Whether the server takes a push; it is taken back, but for main, which goes forward only."""
    pushed = f"{main.version_commit('v1') if ref == TAG else commit}:{ref}"
    try:
        git(main.folder, "push", "-q", main.url, pushed)
    except GitError:
        return _is_there(main, commit, ref)
    if ref != MAIN:
        try:
            git(main.folder, "push", "-q", main.url, f":{ref}")
        except GitError:
            return True
    return True


def _is_there(main: Mainline, commit: str, ref: str) -> bool:
    """Whether a push that failed landed all the same; raises Unavailable where nobody answers."""
    return remote_refs(main.url, ref).get(ref) == commit


def _moves_back(main: Mainline, tip: str) -> bool:
    """Whether the server lets main, which is at `tip`, go back by a commit; it is put forward again at once."""
    main.unshallow()
    parents = text(main.folder, "rev-list", "--parents", "-n", "1", tip).split()[1:]
    if not parents:
        return False
    lease = f"--force-with-lease={MAIN}:{tip}"
    try:
        git(main.folder, "push", "-q", lease, main.url, f"+{parents[0]}:{MAIN}")
    except GitError:
        return False
    try:
        git(main.folder, "push", "-q", main.url, f"{tip}:{MAIN}")
    except GitError as error:
        raise Unavailable(f"main was moved back and cannot be put forward again: push {tip} to it") from error
    return True
