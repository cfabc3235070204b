"""Report of a rolling restart, worker by worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb


class Replacement(NamedTuple):
    """A worker that was replaced, or that goes on because its replacement did not start."""

    pool: str
    worker: str  # id of the replaced worker
    replacement: str  # id of its replacement
    failure: str | None = None  # reason for which the replacement did not become ready
    remaining: int = 0  # workers of the same pool still to be replaced

    def to_message(self) -> pb.Replacement:
        """Return this as the wire has it."""
        return pb.Replacement(**self._asdict())

    @classmethod
    def of_message(cls, message: pb.Replacement) -> Self:
        """Return the replacement of a message."""
        failure = message.failure if message.HasField("failure") else None
        return cls(message.pool, message.worker, message.replacement, failure, message.remaining)


class RestartReport(NamedTuple):
    """The replacements of a rolling restart, in order."""

    replacements: tuple[Replacement, ...]

    @property
    def failures(self) -> tuple[Replacement, ...]:
        """Those that failed."""
        return tuple(replacement for replacement in self.replacements if replacement.failure is not None)


class Restart(Protocol):
    """Replaces all workers of one pool, or of every pool for None, and calls `progress` after each.

    Raises `PoolNotFound`, and `PoolNotStarted` where the pool stops meanwhile.
    """

    async def __call__(self, pool: str | None, progress: Callable[[Replacement], None], /) -> RestartReport:
        """Return when every worker has had its turn."""
