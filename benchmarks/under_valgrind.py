"""Runs a module so that its instructions can be counted: python -m benchmarks.under_valgrind MODULE [ARGUMENT …].

Process descriptors (`pidfd_open`) are unknown to valgrind before 3.20; in place of each stands an eventfd, written by a
thread that waits for the process. The garbage collector is off: how much it has to visit, and when, depends on
everything else that is in memory.
"""

from __future__ import annotations

import errno
import gc
import os
import runpy
import signal
import sys
import threading

_pids: dict[int, int] = {}


def _open(pid: int, _flags: int = 0) -> int:
    os.kill(pid, 0)
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    _pids[descriptor] = pid
    threading.Thread(target=_wait, args=(pid, os.dup(descriptor)), daemon=True).start()
    return descriptor


def _wait(pid: int, descriptor: int) -> None:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return  # another's, whose end is not what is counted
    os.eventfd_write(descriptor, 1)
    os.close(descriptor)


def _send_signal(descriptor: int, number: int) -> None:
    os.kill(_pids[descriptor], number)


def substitute() -> None:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.pidfd_open = _open
        signal.pidfd_send_signal = _send_signal


if __name__ == "__main__":
    gc.disable()
    substitute()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
