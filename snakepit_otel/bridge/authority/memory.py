"""Memory of an authority: the store of buffers, and the servers that pass them to other processes."""

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
    """Buffer store beside the authority's `socket` for workers, with a file-descriptor server where memory is shared.

    Callers have another server beside their socket, if that is not the same. Raises `ConfigurationError` where a server
    cannot listen.
    """

    def __init__(self, limits: Limits, socket: Path, *, strict: bool) -> None:
        self.store = BufferStore(limits, strict=strict)
        self.fd_server: FdServer | None = None
        self._callers: FdServer | None = None
        with ExitStack() as opened:
            self.store.register_gauges()
            # References that are made outside of requests follow the settings of the newest authority.
            opened.callback(_set_loose, pending_scope.settings, pending_scope.strict)
            _set_loose(limits, strict)
            if self.store.can_share:
                self.fd_server = self._serve(socket, opened)
            else:
                opened.callback(self.store.close)
                opened.callback(asyncio.get_running_loop().create_task(self._sweep()).cancel)
            self._opened = opened.pop_all()

    def serve_callers(self, socket: Path, *, replace: bool = False) -> None:
        """Serve callers beside their socket; with `replace`, in place of another authority."""
        if self.fd_server is not None and self.fd_server.path != fd_server_path(socket):
            self._callers = self._serve(socket, self._opened, replace=replace, shares_store=True)

    def set_replaced(self, replaced: bool) -> None:
        """Have callers' memory copied, as another authority takes the address; or shared again."""
        if self._callers is not None:
            self._callers.is_replaced = replaced

    def follow(self, socket: Path) -> None:
        """Serve workers beside their socket, which has been made again."""
        if self.fd_server is not None:
            self.fd_server.ensure_socket(fd_server_path(socket))

    def follow_callers(self, socket: Path) -> None:
        """Serve callers beside their socket, which has been made again."""
        if self._callers is not None:
            self._callers.ensure_socket(fd_server_path(socket))

    def _serve(self, socket: Path, opened: ExitStack, *, replace: bool = False, shares_store: bool = False) -> FdServer:
        # Made here where it is not there yet, for both sockets.
        checked_socket_directory(socket)
        server = FdServer(self.store, fd_server_path(socket), replace=replace, shares_store=shares_store)
        try:
            server.start()
        except ConfigurationError as error:
            raise ConfigurationError(f"no socket for shared memory at {server.path}: {error}") from None
        opened.callback(server.close)
        return server

    def set_strict(self, strict: bool) -> None:
        """Report references that are made for nothing from now on, or no longer."""
        self.store.strict = strict
        _set_loose(self.store.settings, strict)

    def close(self) -> None:
        """Release all memory."""
        self._opened.close()

    async def _sweep(self) -> None:
        """Release expired buffers each second, as the file-descriptor server does where there is one."""
        while True:
            await asyncio.sleep(1)
            self.store.sweep()
            pending_scope.sweep(time.monotonic())


def _set_loose(limits: Limits, strict: bool) -> None:
    pending_scope.settings, pending_scope.strict = limits, strict
