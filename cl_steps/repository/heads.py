"""Where each line's main was when somebody looked last, kept outside of the workspace: main only ever goes forward.

Whoever may push to main may push an older one, and nothing in the workspace then tells of what it lost. A file that the
workspace's writers cannot reach remembers: {"my-line": "the commit of main"}.
"""

from __future__ import annotations

import json
from pathlib import Path

from cl_steps.documents import write_json
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.repository.git import GitError, git
from cl_steps.repository.mainline import Mainline


def refuse_older(main: Mainline, seen: str | None) -> None:
    """Raise IntegrityError where main does not hold the commit that it was at when somebody looked last."""
    if not seen or seen == main.tip:
        return
    main.unshallow()
    try:
        git(main.folder, "merge-base", "--is-ancestor", seen, main.tip)
    except GitError as error:
        raise IntegrityError(
            f"main was at {seen[:10]} and does not hold that commit any more: somebody pushed an older one; "
            "restore it from a backup, and change the credentials that may write it"
        ) from error


def read_heads(file: Path) -> dict[str, str]:
    """The commits by line; none where there is no file yet. Raises UsageError where it is no such file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as the heads of lines: mend it, or name another file") from error
    if not isinstance(found, dict) or not all(isinstance(commit, str) for commit in found.values()):
        raise UsageError(f"{file} does not hold a commit a line: mend it, or name another file")
    return {str(line): commit for line, commit in found.items()}


def write_heads(file: Path, heads: dict[str, str]) -> None:
    """Keep them, whole or not at all; raises UsageError where the file cannot be written."""
    try:
        write_json(file, heads)
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}): name a file that can") from error
