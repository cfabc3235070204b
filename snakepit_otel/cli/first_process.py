"""The first process of a container: it starts the program as its child, and reaps whatever is left to it.

The kernel gives a process whose parent has ended to the first process, or to a "subreaper" nearer by, which has to
wait for it. A server cannot do that without taking the exit statuses of children of its own, of which its libraries
know. So this process does nothing else: it passes signals on to the server, and ends as the server does.

This file is a program by itself, which imports little and can take the place of whatever was loaded before.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_GET_CHILD_SUBREAPER = 37
_PARENT = "_SNAKEPIT_FIRST_PROCESS"
"""The variable that has the number of the process that reaps, for the child that it starts."""
_SENT_BY_KERNEL = 0x80
"""`si_code` of signals of a terminal, which the server gets itself, as it is in the same process group."""
_TAKEN = {
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}


def has_orphans() -> bool:
    """Return whether this process gets processes whose parents have ended."""
    if os.getpid() == 1:
        return True
    try:
        flag = ctypes.c_int(0)
        found = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return found == 0 and bool(flag.value)


def reap_for_a_child() -> None:
    """Start this program again, as a child, and be what reaps from here on; return only if that cannot be."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
    try:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, _PARENT: str(os.getpid())},
            setsigmask=before,
        )
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.stderr.write(f"orphans are not reaped, as there cannot be a process for that: {error.strerror}\n")
        return
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(child)])  # noqa: S606 - ourselves
    finally:
        # Where that cannot be, as we are.
        os._exit(reap_until_end_of(child))


def end_with_first_process() -> None:
    """Have the kernel end this process with the one that reaps for it, if that has started it."""
    parent = os.environ.pop(_PARENT, None)
    if parent is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if str(os.getppid()) != parent:
            os._exit(1)


def reap_until_end_of(child: int) -> int:
    """Pass signals on to a child and reap all others, until it ends; return its exit status, as shells have it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
    # Ignored, it would not be waited for; the mask keeps the handler from being called.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        status = _reap(child)
        if status is not None:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        info = signal.sigwaitinfo(_TAKEN)
        if info.si_signo != signal.SIGCHLD and info.si_code != _SENT_BY_KERNEL:
            os.kill(child, info.si_signo)


def _reap(child: int) -> int | None:
    """Wait for all that have ended; return the wait status of the child, if that has."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == child:
            found = status
        if not pid:
            return found


if __name__ == "__main__":
    os._exit(reap_until_end_of(int(sys.argv[1])))
