"""How a run began: the branch `begun/<run>`, which whoever opens the run makes and no step can write.

It points at the run's first commit: main as it was then, and the run's own `run.yaml`. Whoever writes the run's branch
decides nothing about how the run is judged: of that branch counts what a step stores (`dvc.lock` and its reports), and
everything else must still be as the run began with it. That the beginning itself is main's is asked by trusted acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from cl_steps.config import PER_RUN, RunSpec, load_run
from cl_steps.errors import IntegrityError, Unavailable, UsageError
from cl_steps.repository.git import GitError, git, remote_refs, text
from cl_steps.repository.mainline import Mainline
from cl_steps.repository.rebase_branch import rebase_files

BEGUN = "refs/heads/begun/"
LOCAL = "refs/retain/begun"
"""Where a clone keeps the beginning of its run."""
OF_STEPS = ("dvc.lock", "reports/")
"""What steps write on a run's branch."""


@dataclass(frozen=True)
class Beginning:
    """A run's first commit, the commit of main before it, and what is special about the run."""

    commit: str
    base: str
    spec: RunSpec


def begun_ref(run: str) -> str:
    """The name of the ref that says how a run began."""
    return f"{BEGUN}{run}"


def refuse_own_rules(spec: RunSpec) -> None:
    """A run may choose how it learns, and nothing else; raises UsageError."""
    for key in spec.set:
        if key.partition(".")[0] not in PER_RUN:
            allowed = " and ".join(f"{block}.*" for block in PER_RUN)
            raise UsageError(
                f"{key} cannot be set for one run, only {allowed}: change it in params.yaml on main, where everybody "
                "sees it"
            )


def compare_with_beginning(clone: Path, run: str) -> None:
    """Refuse a run's branch that changed what only main may say.

    Args:
        clone: of the run's branch, with the workspace's Git remote as its `origin`.
        run: the run's id.

    Raises:
        IntegrityError: another file than those of steps differs from how the run began, or nothing says how it began.
        Unavailable: the remote cannot be reached.
    """
    commit = _fetch(clone, run)
    changed = git(clone, "diff-tree", "-r", "-z", "--name-only", commit, "HEAD").split(b"\0")
    foreign = [path.decode(errors="replace") for path in changed if path and not _is_of_steps(path.decode("latin-1"))]
    if foreign:
        raise IntegrityError(
            f"the branch of run {run} changes {foreign[0]!r:.200}, and steps write dvc.lock and reports/ alone: do not "
            "use it, and find out who writes there; then trigger a new run"
        )


def beginning(main: Mainline, run: str) -> Beginning:
    """How a run began, if it began with main as main was once.

    Raises:
        IntegrityError: nothing says how it began, or it did not begin with a commit of main, or with other files.
        UsageError: it chose more than how it learns.
        Unavailable: the remote cannot be reached.
    """
    commit = _fetch(main.folder, run)
    base = _parent(main.folder, commit)
    if base != main.tip and not _is_before(main, base):
        raise IntegrityError(f"run {run} did not begin with a commit of main: do not use it, and trigger a new run")
    (main.folder / "run.yaml").write_bytes(main.at(commit).read("run.yaml") or b"")
    spec = load_run(main.folder)
    _refuse_other_files(main, base, commit, spec)
    if (spec.id, spec.base, spec.state) != (run, base, main.at(base).tree("state")):
        raise IntegrityError(f"what run {run} says of its beginning is not so: do not use it, and trigger a new run")
    refuse_own_rules(spec)
    return Beginning(commit, base, spec)


def beginning_files(main: Mainline, spec: RunSpec) -> dict[str, bytes | None]:
    """What a run's first commit changes on top of main: its own settings, no reports, and a new base if it has one.

    Raises:
        UsageError: nobody asked for that base.
    """
    old: dict[str, bytes | None] = {f"reports/{name}": None for name in main.folder_files("reports")}
    own = yaml.safe_dump(spec.model_dump(), sort_keys=False, allow_unicode=True).encode()
    return {**old, "run.yaml": own, **_new_base(main, spec)}


def _new_base(main: Mainline, spec: RunSpec) -> dict[str, bytes]:
    """The files that bring the new base of a rebase; none in another run."""
    if not spec.rebase:
        return {}
    asked = main.ledger().rebases.get(spec.id)
    if not asked or asked.after["md5"] != spec.rebase:
        raise UsageError(f"main holds no act of a person for the new base of run {spec.id}: use `retain rebase`")
    return rebase_files(main.read("dvc.yaml") or b"", asked.after)


def _fetch(clone: Path, run: str) -> str:
    """The run's first commit, fetched; its parent stays away."""
    ref = begun_ref(run)
    try:
        git(clone, "fetch", "-q", "--depth", "1", "--no-tags", "--filter=blob:none", "origin", f"+{ref}:{LOCAL}")
    except GitError as error:
        if ref in remote_refs(text(clone, "remote", "get-url", "origin"), ref):
            raise Unavailable(f"the beginning of run {run} cannot be read: {error}") from error
        raise IntegrityError(f"nothing says how run {run} began (no branch begun/{run}): trigger a new run") from error
    return text(clone, "rev-parse", LOCAL)


def _parent(clone: Path, commit: str) -> str:
    """The parent that a commit names, whether it is here or not; empty where it names none or several."""
    header = text(clone, "cat-file", "commit", commit).partition("\n\n")[0].splitlines()
    parents = [line.split()[1] for line in header if line.startswith("parent ")]
    return parents[0] if len(parents) == 1 else ""


def _is_before(main: Mainline, commit: str) -> bool:
    main.unshallow()
    try:
        git(main.folder, "merge-base", "--is-ancestor", commit, main.tip)
    except GitError:
        return False
    return True


def _refuse_other_files(main: Mainline, base: str, commit: str, spec: RunSpec) -> None:
    """The first commit holds main's tree and what `beginning_files` puts on top, and nothing else."""
    expected = {path: content for path, content in beginning_files(main.at(base), spec).items() if path != "run.yaml"}
    changed = git(main.folder, "diff-tree", "-r", "-z", "--name-only", base, commit).split(b"\0")
    for path in {name.decode(errors="replace") for name in changed if name} - {"run.yaml"}:
        if path not in expected or main.at(commit).read(path) != expected[path]:
            raise IntegrityError(f"run {spec.id} began with another {path!r:.200} than main's: trigger a new run")


def _is_of_steps(path: str) -> bool:
    return any(path == own or (own.endswith("/") and path.startswith(own)) for own in OF_STEPS)
