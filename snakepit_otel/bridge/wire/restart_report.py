"""What a rolling restart says of itself, worker by worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb


class Replacement(NamedTuple):
    """A worker that was replaced, or that goes on because its replacement did not start."""

    pool: str
    worker: str
    """The id of the worker that was to go."""
    replacement: str
    """The id of the one in its place."""
    failure: str | None = None
    """Why the replacement did not become ready; None if it did."""
    remaining: int = 0
    """Workers of the same pool whose turn is still to come."""

    def to_message(self) -> pb.Replacement:
        """Return this as the wire has it."""
        return pb.Replacement(**self._asdict())

    @classmethod
    def of_message(cls, message: pb.Replacement) -> Self:
        """Return what the wire tells of."""
        failure = message.failure if message.HasField("failure") else None
        return cls(message.pool, message.worker, message.replacement, failure, message.remaining)


class RestartReport(NamedTuple):
    """What a rolling restart has done, in order."""

    replacements: tuple[Replacement, ...]

    @property
    def failures(self) -> tuple[Replacement, ...]:
        """Those that failed."""
        return tuple(replacement for replacement in self.replacements if replacement.failure is not None)


class Restart(Protocol):
    """Replaces all workers of one pool, or of every pool for None, and tells `progress` of each as it is done.

    Raises `PoolNotFound`, and `PoolNotStarted` where the pool stops meanwhile.
    """

    async def __call__(self, pool: str | None, progress: Callable[[Replacement], None], /) -> RestartReport:
        """Return when every worker has had its turn."""
