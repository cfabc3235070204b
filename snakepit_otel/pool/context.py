"""Resources shared by all pools: run directory, call-back address, buffer store, fencing tokens, file of workers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.common.printable import printable
from snakepit_otel.middleware._loading import Spec
from snakepit_otel.pool.workers.fork_server import ForkServer
from snakepit_otel.pool.workers.orphans import WorkerPidFile
from snakepit_otel.system.private_directory import PrivateDirectory
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._fd_server import FdServer

_log = logging.getLogger("snakepit_otel.pool")


def authority_socket(directory: Path) -> Path:
    """Return the path of the socket at which an authority listens for its workers."""
    return directory / "authority.sock"


class PoolContext(NamedTuple):
    """Resources that the workers of all pools of an authority share."""

    private: PrivateDirectory
    buffer_store: BufferStore
    fd_server: FdServer | None  # None: memory is not shared
    fencing_tokens: FencingTokens
    pid_file: WorkerPidFile
    fork_server: ForkServer
    middleware: Sequence[Spec] = ()
    local_transport: str = "local"

    @property
    def directory(self) -> Path:
        """The path of the private directory, whose name is the run id; it may change when the directory is removed."""
        return self.private.path

    @property
    def authority(self) -> str:
        """The address that workers call back to, which is not that of callers."""
        return f"unix:{authority_socket(self.directory)}"

    def ensure(self) -> None:
        """Recreate the private directory if it is gone. Raises `ConfigurationError` if that fails."""
        before = self.private.path
        if self.private.make_again():
            self.pid_file.move(self.private.path)
            _log.warning(
                "the private directory %s was gone; it was recreated as %s",
                printable(before),
                printable(self.private.path),
            )
