"""`retain backup` and `retain restore`: a line's Git, what its store must hold, and its keys, in one folder or URL."""

from __future__ import annotations

from typing import Any

from cl_steps.operations import backup as backups
from cl_steps.repository.line import resolve


def backup(
    dir: str, to: str, keep: int, keys: str | None, passphrase_file: str | None, json: bool
) -> dict[str, Any] | str:
    """Write a backup; raises as `operations.backup.back_up` does."""
    made = backups.back_up(resolve(dir), to, keep, keys, passphrase_file)
    if json:
        document = {"backup": made.url, "refs": made.refs, "store": made.store, "keys": bool(keys)}
        return {**document, "deleted": made.deleted}
    return f"{made.url}: {made.refs} refs, read back and right; {len(made.deleted)} older backups deleted"


def restore(source: str, to: str, keys_to: str | None, passphrase_file: str | None) -> str:
    """Restore a backup; raises as `operations.backup.restore` does."""
    chosen = backups.restore(source, to, keys_to, passphrase_file)
    refs, stored = chosen.manifest["refs"], chosen.manifest["store"]
    must = f"its store must hold {stored['objects']} objects of {stored['bytes']} bytes"
    return f"{to}: {len(refs)} refs, the same as in {chosen.name}; {must} ({backups.OBJECTS} of the backup names them)"
