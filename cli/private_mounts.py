"""A private mount namespace for this process: what is mounted in it, the rest of the host never sees.

Python has os.unshare only since 3.12 and no mount at all, so both are called in libc. Knows nothing of
grants.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Final

CLONE_NEWNS: Final = 0x00020000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18


def possible() -> bool:
    """Whether this process may have such a namespace: tried out in a child, for it can't be left again.

    Being root does not answer it: a container's root may not, a user with CAP_SYS_ADMIN may.
    """
    child = os.fork()
    if child == 0:
        try:
            enter()
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def enter() -> None:
    """Leave the mount namespace for a copy that nothing gets out of. OSError if that isn't allowed."""
    libc = _libc()
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount /")


def bind(pairs: Iterable[tuple[str, str]]) -> None:
    """Mount each source over its target, which must be there. Only in a namespace that was entered."""
    libc = _libc()
    for source, target in pairs:
        _check(libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None), f"mount {target}")


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    path, flags = ctypes.c_char_p, ctypes.c_ulong
    libc.mount.argtypes = (path, path, path, flags, ctypes.c_void_p)
    libc.unshare.argtypes = (ctypes.c_int,)
    return libc


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
