"""First process of a container: starts the program as its child, and reaps orphans.

The kernel gives a process whose parent has ended to the first process, or to a nearer "subreaper", which has to wait
for it. A server that waits for all children would take exit statuses for which its libraries wait. So this process does
nothing else: it passes signals on to the server, and exits with the server's status.

This file is a program of its own, with few imports, that replaces what the process had loaded.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_GET_CHILD_SUBREAPER = 37
_PARENT_VARIABLE = "_SNAKEPIT_FIRST_PROCESS"  # the reaper's pid
is_reaped = False  # whether the reaper, and with it the container, ends with this process
# `si_code` of a terminal's signals, which the server gets itself, as it is in the same process group.
_SI_KERNEL = 0x80
_SIGNALS = {
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}


def has_orphans() -> bool:
    """Whether the kernel gives this process orphans."""
    if os.getpid() == 1:
        return True
    try:
        flag = ctypes.c_int(0)
        found = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return found == 0 and bool(flag.value)


def run_as_reaper() -> None:
    """Start this program again as a child, and become its reaper; return only if there can be no child."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, _PARENT_VARIABLE: str(os.getpid())},
            setsigmask=before,
        )
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.stderr.write(f"orphans are not reaped, as no process could be started: {error.strerror}\n")
        return
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(child)])  # noqa: S606 - this file
    finally:
        # Without exec, in this process.
        os._exit(reap_until_exit(child))


def exit_with_reaper() -> None:
    """Have the kernel end this process with its reaper, if it has one."""
    global is_reaped
    parent = os.environ.pop(_PARENT_VARIABLE, None)
    if parent is not None:
        is_reaped = True
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if str(os.getppid()) != parent:
            os._exit(1)


def reap_until_exit(child: int) -> int:
    """Pass signals on to a child and reap all others, until the child ends; return its status as shells report it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # If SIGCHLD were ignored, there would be no statuses; the mask keeps the handler from being called.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        status = _reap(child)
        if status is not None:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        info = signal.sigwaitinfo(_SIGNALS)
        if info.si_signo != signal.SIGCHLD and info.si_code != _SI_KERNEL:
            os.kill(child, info.si_signo)


def _reap(child: int) -> int | None:
    """Reap all that have ended; return the child's wait status if it has."""
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
    os._exit(reap_until_exit(int(sys.argv[1])))
