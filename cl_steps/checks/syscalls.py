"""A filter on system calls (seccomp) for the room of checks: what Landlock does not see, and what no check needs.

Landlock decides which files are opened; it has no say in calls that change a file's mode, owner, times or attributes by
its name. Those do nothing here and say that all went well, so that `shutil.copy` in a check still works. Sockets,
namespaces, mounts, tracing, keys, io_uring and the like are refused, and so are new sessions and process groups: all
that a check starts stays in one group, which can be ended as one. No privilege is needed, and no library.

Numbers are those of the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from collections.abc import Iterator

# x86_64, aarch64; None where an architecture has no such call.
Numbers = dict[str, tuple[int | None, int | None]]

NOTHING_DONE: Numbers = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
}  # fmt: skip
"""They return 0 and do nothing."""
REFUSED: Numbers = {
    "socket": (41, 198), "mknod": (133, None), "mknodat": (259, 33),
    "setsid": (112, 157), "setpgid": (109, 154), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "personality": (135, 92), "vhangup": (153, 58), "lookup_dcookie": (212, 18),
}  # fmt: skip
"""They fail with EPERM."""
CLONE: tuple[int, int] = (56, 220)
CLONE3 = 435
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column of the tables, and what the kernel calls the architecture."""
X32 = 0x40000000
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_GET_SECCOMP, _SET_SECCOMP, _FILTER = 21, 22, 2


def is_known() -> bool:
    """Whether there is a filter for this machine, and its kernel takes filters."""
    return (
        sys.platform == "linux" and platform.machine() in ARCHITECTURES and _libc().prctl(_GET_SECCOMP, 0, 0, 0, 0) >= 0
    )


def program(machine: str) -> bytes:
    """The filter as the kernel takes it: struct sock_filter (code, jumps if true and if false, value), 8 bytes each."""
    return b"".join(struct.pack("=HBBI", *line) for line in _lines(*ARCHITECTURES[machine]))


def install() -> None:
    """Filter this process and all that it starts, for ever; needs PR_SET_NO_NEW_PRIVS. Raises OSError."""
    made = program(platform.machine())
    lines = ctypes.create_string_buffer(made, len(made))
    header = _Program(len(made) // 8, ctypes.addressof(lines))
    if _libc().prctl(_SET_SECCOMP, _FILTER, ctypes.byref(header), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


class _Program(ctypes.Structure):
    _fields_ = (("num_lines", ctypes.c_ushort), ("lines", ctypes.c_void_p))


def _lines(column: int, architecture: int) -> Iterator[tuple[int, int, int, int]]:
    yield (_LOAD, 0, 0, _ARCHITECTURE_AT)
    yield (_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, _NUMBER_AT)
    # The second table of x86-64, with numbers of its own.
    yield (_AT_LEAST, 0, 1, X32)
    yield (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    for table, code in ((NOTHING_DONE, 0), (REFUSED, errno.EPERM)):
        for numbers in table.values():
            if (number := numbers[column]) is not None:
                yield from _answer(number, code)
    # Its flags lie in memory, where no filter sees them; without it, libraries take `clone`.
    yield from _answer(CLONE3, errno.ENOSYS)
    yield (_EQUAL, 0, 3, CLONE[column])
    yield (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)
    yield (_ANY_BIT, 0, 1, NEW_NAMESPACES)
    yield (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    yield (_RETURN, 0, 0, _ALLOW)


def _answer(number: int, code: int) -> Iterator[tuple[int, int, int, int]]:
    yield (_EQUAL, 0, 1, number)
    yield (_RETURN, 0, 0, _ERRNO | code)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
