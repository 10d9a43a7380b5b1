"""A line of one's own that begins at a commit of another's main: to make something again, far from the original."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cl_steps.repository.git import git
from cl_steps.repository.line import Line, local, within
from cl_steps.repository.mainline import Mainline
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import Out, read_dvc_file


def fork(main: Mainline, source: Line, commit: str, folder: Path, outs: Iterable[Out] = ()) -> Line:
    """A line in `folder` that keeps everything there; nothing of it reaches the other line.

    Args:
        main: the other line's main.
        source: where the other line is.
        commit: a commit of that main; the new main ends with it.
        folder: is made.
        outs: outputs to bring along beside the state of that commit.

    Raises:
        IntegrityError: an object is missing from the other line's store or is not what its name says.
        Unavailable: a remote cannot be reached.
    """
    line = local(folder)
    Path(line.landing).mkdir(parents=True)
    main.unshallow()
    git(None, "init", "-q", "--bare", "-b", "main", line.git)
    git(main.folder, "push", "-q", line.git, f"{commit}:refs/heads/main")
    state = main.at(commit).folder_files("state")
    parts = [read_dvc_file(content) for name, content in state.items() if name.endswith(".dvc")]
    with open_store(source.store) as store:
        store.copy((str(out["md5"]) for out in (*parts, *outs)), Path(line.store))
    line.save(folder)
    return line


def check_out(folder: Path, line: Line) -> None:
    """Make `folder` a person's checkout of its line, with the bytes of its state."""
    from cl_steps.repository.checkout import fetch_state

    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", within(folder, line.git))
    git(folder, "fetch", "-q", "--tags", "origin")
    git(folder, "checkout", "-q", "-f", "-B", "main", "--track", "origin/main")
    fetch_state(folder)
