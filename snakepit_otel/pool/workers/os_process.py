"""Child processes: started by exec or by a fork server, watched by pidfd, and never outliving their parent."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

_PR_SET_PDEATHSIG = 1
_MAX_REPORT_BYTES = 1 << 20
_READ_TIMEOUT_S = 0.1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process, even in C code, when its starting thread ends; exit if that has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)


class ChildProcess:
    """A child process with a control socket; see `die_with_parent` for the thread that started it."""

    def __init__(self, pid: int, control: socket.socket, reap: Callable[[], int]) -> None:
        """Watch a process, which `reap` waits for; kill it and raise `OSError` if that is not possible."""
        control.setblocking(False)
        self.pid = pid
        self._control = control
        self._reap_process = reap
        self._exchanged = False
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:
            # Without a descriptor its end would not be noticed.
            control.close()
            os.kill(pid, signal.SIGKILL)
            reap()
            raise
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._descriptor, self._reap)

    @classmethod
    def spawn(
        cls, command: Sequence[str], environ: Mapping[str, str] | None = None, descriptors: Sequence[int] = ()
    ) -> Self:
        """Start a process, with the control socket as standard input and these descriptors. Raises `OSError`."""
        control, inherited = socket.socketpair()
        with inherited:
            try:
                # A session of its own, so that Ctrl-C in a terminal reaches the authority alone.
                process = subprocess.Popen(  # noqa: S603 - our own program
                    command,
                    stdin=inherited.fileno(),
                    start_new_session=True,
                    pass_fds=descriptors,
                    env=dict(environ) if environ is not None else None,
                )
            except BaseException:
                control.close()
                raise
        return cls(process.pid, control, process.wait)

    @classmethod
    def forked(cls, pid: int, control: socket.socket) -> Self:
        """Watch a child of this process that another one has forked. Raises `OSError`."""
        return cls(pid, control, partial(_wait, pid))

    async def exchange(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> bytes | None:
        """Send a line of JSON; return the line that comes back, a mebibyte at most, or None if there is none.

        The line is sent with duplicates of the descriptors.
        """
        exchange = asyncio.get_running_loop().create_task(self._exchange(message, descriptors))
        try:
            ends: list[asyncio.Future[Any]] = [exchange, self._exited]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                # All that it has written is here by now; a child of its may hold the other end open.
                await asyncio.wait([exchange], timeout=_READ_TIMEOUT_S)
            return exchange.result() if exchange.done() else None
        finally:
            exchange.cancel()
            await asyncio.wait([exchange])
            self._exchanged = True
            self._close_if_over()

    async def _exchange(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> bytes | None:
        loop = asyncio.get_running_loop()
        received = bytearray()
        try:
            # Not orjson: paths may have bytes that are no UTF-8.
            line = json.dumps(message).encode() + b"\n"
            if descriptors:
                line = line[socket.send_fds(self._control, [line], descriptors) :]
            await loop.sock_sendall(self._control, line)
            while b"\n" not in received and len(received) < _MAX_REPORT_BYTES:
                part = await loop.sock_recv(self._control, 1 << 16)
                if not part:
                    return None
                received += part
        except OSError:
            return None
        return bytes(received.partition(b"\n")[0])

    def discard(self) -> None:
        """Kill the process, which nobody exchanges anything with."""
        self.signal(signal.SIGKILL)
        self._exchanged = True
        self._close_if_over()

    async def wait(self) -> int:
        """Return the exit status once the process is gone; negative for a signal."""
        return await asyncio.shield(self._exited)

    @property
    def status(self) -> int | None:
        """The exit status, or None while the process runs."""
        return self._exited.result() if self._exited.done() else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs; never to another one."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._descriptor, number)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        status = self._reap_process()
        os.close(self._descriptor)
        self._descriptor = -1
        self._exited.set_result(status)
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._exchanged and self._exited.done():
            self._control.close()


def _wait(pid: int) -> int:
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:  # somebody else has waited for it
        return 0
    return os.waitstatus_to_exitcode(status)


def describe_exit(status: int) -> str:
    """Return how a process ended, in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
