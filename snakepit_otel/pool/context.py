"""What an authority gives the workers of all its pools."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.common.printable import printable
from snakepit_otel.middleware._loading import Spec
from snakepit_otel.pool.workers.orphans import WorkerPidFile
from snakepit_otel.system.private_directory import PrivateDirectory
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._fd_server import FdServer

_log = logging.getLogger("snakepit_otel.pool")


def authority_socket(directory: Path) -> Path:
    """Return where an authority listens for its workers."""
    return directory / "authority.sock"


class PoolContext(NamedTuple):
    """The place where an authority lives, as far as its workers have to do with it."""

    private: PrivateDirectory
    """For the workers' sockets."""
    buffer_store: BufferStore
    """What the authority holds for its workers' requests."""
    fd_server: FdServer | None
    """Who gives it to them; None where memory is not shared."""
    fencing_tokens: FencingTokens
    """Who may call back, and for which request."""
    pid_file: WorkerPidFile
    """Which processes are ours, for whoever comes after us."""
    middleware: Sequence[Spec] = ()

    @property
    def directory(self) -> Path:
        """The path of the private directory, whose name is the run id; it may change when somebody removes it."""
        return self.private.path

    @property
    def authority(self) -> str:
        """The address that workers call back to: theirs, whatever becomes of that of callers."""
        return f"unix:{authority_socket(self.directory)}"

    def ensure(self) -> None:
        """Make the private directory again if it is gone. Raises `ConfigurationError` if it cannot be made."""
        before = self.private.path
        if self.private.make_again():
            self.pid_file.move(self.private.path)
            _log.warning(
                "the private directory %s was gone; it was made again, as %s",
                printable(before),
                printable(self.private.path),
            )
