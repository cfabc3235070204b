"""An adapter whose tools leave processes behind, and an authority's tool that does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from snakepit_otel import AuthorityContext, BaseAdapter, authority_tool, tool

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
"""Streams of processes that outlive the authority, which must not keep its output open."""


def ignore_and_sleep() -> None:
    """Do not end when asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


class Leaving(BaseAdapter):
    """Starts processes of all kinds, and returns their process ids."""

    @tool
    def leave(self) -> dict[str, int]:
        """Start one of each kind."""
        fork, spawn = (multiprocessing.get_context(method) for method in ("fork", "spawn"))
        stubborn = fork.Process(target=ignore_and_sleep)
        daemonic = fork.Process(target=time.sleep, args=(600,), daemon=True)
        spawned = spawn.Process(target=time.sleep, args=(600,))
        for process in (stubborn, daemonic, spawned):
            process.start()
        assert stubborn.pid is not None
        assert daemonic.pid is not None
        assert spawned.pid is not None
        # The first of them is gone, so that the second is nobody's child any more.
        shell = subprocess.run(["sh", "-c", "sleep 600 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
        return {
            "stubborn": stubborn.pid,
            "daemonic": daemonic.pid,
            "spawned": spawned.pid,
            "program": subprocess.Popen(SLEEP).pid,
            "grandchild": int(shell.stdout),
            "detached": subprocess.Popen(SLEEP, start_new_session=True, **SILENT).pid,
        }

    @tool
    def pid(self) -> int:
        """Return the worker's process id."""
        return os.getpid()


@authority_tool
def leave_here(context: AuthorityContext) -> dict[str, int]:
    """Leave a child of the authority, and one that is detached."""
    return {
        "program": subprocess.Popen(SLEEP).pid,
        "detached": subprocess.Popen(SLEEP, start_new_session=True, **SILENT).pid,
    }
