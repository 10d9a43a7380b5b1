"""Runs pytest in a process that has given up what it does not need. Started by path, by `sandbox.py` alone.

    python launch.py '{"seconds": .., "bytes": .., "readable": [..], "writable": [..], "path": .., "arguments": [..],
                       "confined": true}'

Before any code of a check is loaded: limits on time, memory and file size; Landlock (Linux 5.13), after which only the
named folders can be read or written, and (6.7, 6.12) no TCP connection made and no other process signalled; and a
filter of system calls (`syscalls.py`) for what Landlock does not see. Neither needs a privilege or a namespace. Where
one of them is not to be had, nothing runs, unless the deployment said so ("confined": false).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_RULE_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_READ = 0b1101  # execute, read a file, list a folder
_READ_FILE = 0b0101
_WRITE_FILE = 0b0010
_ALL_BY_VERSION = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_ALL_LATEST = 0xFFFF
_OPEN_PATH = getattr(os, "O_PATH", 0)
MAX_FILE_BYTES = 32 * 2**20
OPEN = 97
"""The exit code where the room cannot be closed: no check was run."""


def landlock_version() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    if sys.platform != "linux":
        return 0  # system calls have other numbers there
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)))


def limit(seconds: int, memory_bytes: int) -> None:
    """Bound processor time, address space and the size of any file written; no core files."""
    bounds = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in bounds.items():
        most = resource.getrlimit(kind)[1]
        bound = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (bound, bound))


def confine(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Give up every file but these and what lies below them; False where the kernel has no Landlock."""
    version = landlock_version()
    if not version:
        return False
    everything = _ALL_BY_VERSION.get(version, _ALL_LATEST)
    ruleset = _ruleset(version, everything)
    for path in readable:
        _allow(ruleset, path, _READ)
    for path in writable:
        _allow(ruleset, path, everything)
    _allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
    _must(_libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _must(_libc().syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


def _ruleset(version: int, everything: int) -> int:
    """Files; from version 4 TCP (bind, connect), from 6 abstract sockets and signals."""
    words = [everything] + ([0b11] if version >= 4 else []) + ([0b11] if version >= 6 else [])
    attributes = struct.pack(f"={len(words)}Q", *words)
    return _must(_libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))


def _allow(ruleset: int, path: str, access: int) -> None:
    """Allow `access` below `path`; a path that is not there needs no rule."""
    try:
        opened = os.open(path, _OPEN_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not Path(path).is_dir():
        access &= _READ_FILE | _WRITE_FILE
    rule = struct.pack("=Qi", access, opened)
    _must(_libc().syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    os.close(opened)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _must(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused")
    return result


def main() -> int:
    """Close the door and run pytest; returns its exit code."""
    spec = json.loads(sys.argv[1])
    sys.path.insert(0, spec["path"])
    from cl_steps.checks import syscalls

    limit(spec["seconds"], spec["bytes"])
    if spec["confined"]:
        if not confine(spec["readable"], spec["writable"]):
            return OPEN
        syscalls.install()
    import pytest  # only now: its plugins are loaded inside

    return int(pytest.main(spec["arguments"]))


if __name__ == "__main__":
    sys.exit(main())
