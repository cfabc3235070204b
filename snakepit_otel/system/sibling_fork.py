"""Fork that makes a sibling of this process: a child of its parent, which reaps it as its own.

The call is the one that the C library's `fork` makes, with `CLONE_PARENT` besides, and Python's own steps around it.
The C library's handlers for forks do not run: they are for processes of several threads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
from pathlib import Path
from typing import NamedTuple

_CLONE_PARENT, _CLONE_CHILD_SETTID = 0x8000, 0x1000000
_PR_GET_TID_ADDRESS = 40
_SEARCHED_BYTES = 1024  # at the beginning of the C library's structure of a thread, which has its id once


class _Calls(NamedTuple):
    """Numbers of system calls."""

    clone: int
    set_tid_address: int
    set_robust_list: int
    get_robust_list: int


_CALLS = {"x86_64": _Calls(56, 218, 273, 274), "aarch64": _Calls(220, 96, 99, 100)}


class ForkUnsupported(Exception):
    """This process cannot be forked safely, or not at all; the text has the reason."""


class SiblingFork:
    """Forks this process, which has one thread. Raises `ForkUnsupported` where that cannot be done."""

    def __init__(self) -> None:
        calls = _CALLS.get(platform.machine())
        if calls is None or ctypes.sizeof(ctypes.c_void_p) != 8:
            raise ForkUnsupported(f"the machine is a {platform.machine()}")
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads != 1:
            raise ForkUnsupported(f"it has {threads} threads")
        self._calls = calls
        # With the interpreter's lock, as the child must have it.
        self._syscall = ctypes.PyDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._thread_id = _address_of_thread_id()
        # Cleared by the kernel when the thread ends; null where the kernel cannot be asked for it.
        self._cleared = ctypes.c_void_p()
        ctypes.CDLL(None).prctl(_PR_GET_TID_ADDRESS, ctypes.byref(self._cleared), 0, 0, 0)
        self._robust_list, self._robust_list_size = ctypes.c_void_p(), ctypes.c_size_t()
        where = (ctypes.byref(self._robust_list), ctypes.byref(self._robust_list_size))
        self._syscall(ctypes.c_long(calls.get_robust_list), ctypes.c_long(0), *where)

    def fork(self) -> int:
        """Return the new process's id, and 0 in that process. Raises `OSError`."""
        flags = ctypes.c_long(_CLONE_PARENT | _CLONE_CHILD_SETTID | signal.SIGCHLD)
        # Of the last two, one is for the thread's id and the other for new threads only; machines differ in which.
        address = ctypes.c_void_p(self._thread_id)
        arguments = (None, None, address, address)  # first the stack, and an address for the parent
        ctypes.pythonapi.PyOS_BeforeFork()
        pid = int(self._syscall(ctypes.c_long(self._calls.clone), flags, *arguments))
        if pid == 0:
            self._syscall(ctypes.c_long(self._calls.set_tid_address), self._cleared)
            self._syscall(ctypes.c_long(self._calls.set_robust_list), self._robust_list, self._robust_list_size)
            ctypes.pythonapi.PyOS_AfterFork_Child()
            return 0
        number = ctypes.get_errno()
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(number, os.strerror(number))
        return pid


def _address_of_thread_id() -> int:
    """Return where the C library has this thread's id, which it must find changed in the child."""
    words = (ctypes.c_int * (_SEARCHED_BYTES // 4)).from_address(threading.get_ident())
    found = [index for index, word in enumerate(words) if word == threading.get_native_id()]
    if len(found) != 1:
        raise ForkUnsupported(f"the C library's structure of a thread has its id {len(found)} times")
    return ctypes.addressof(words) + 4 * found[0]
