"""Memory of an authority: the store of buffers, and the server that passes them to other processes."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.socket_files import checked_socket_directory
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._current_scope import pending_scope
from snakepit_otel.zero_copy._fd_server import FdServer, fd_server_path
from snakepit_otel.zero_copy._limits import Limits


class AuthorityMemory:
    """Buffer store beside the authority's `socket`, with a file-descriptor server where memory is shared.

    Raises `ConfigurationError` where that server cannot listen.
    """

    def __init__(self, limits: Limits, socket: Path, *, strict: bool) -> None:
        self._open = ExitStack()
        self.store = BufferStore(limits, strict=strict)
        self.store.register_gauges()
        # References that are made outside of requests follow the settings of the newest authority.
        self._open.callback(_set_loose, pending_scope.settings, pending_scope.strict)
        _set_loose(limits, strict)
        self.fd_server: FdServer | None = None
        if not self.store.can_share:
            self._open.callback(self.store.close)
            self._open.callback(asyncio.get_running_loop().create_task(self._sweep()).cancel)
            return
        # Made here where it is not there yet, for both sockets.
        checked_socket_directory(socket)
        self.fd_server = FdServer(self.store, fd_server_path(socket))
        try:
            self.fd_server.start()
        except ConfigurationError as error:
            raise ConfigurationError(f"no socket for shared memory at {self.fd_server.path}: {error}") from None
        self._open.callback(self.fd_server.close)

    def follow(self, socket: Path) -> None:
        """Serve beside the authority's socket, which has been made again."""
        if self.fd_server is not None:
            self.fd_server.ensure_socket(fd_server_path(socket))

    def close(self) -> None:
        """Release all memory."""
        self._open.close()

    async def _sweep(self) -> None:
        """Release expired buffers each second, as the file-descriptor server does where there is one."""
        while True:
            await asyncio.sleep(1)
            self.store.sweep()
            pending_scope.sweep(time.monotonic())


def _set_loose(limits: Limits, strict: bool) -> None:
    pending_scope.settings, pending_scope.strict = limits, strict
