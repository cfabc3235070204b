"""What an authority says of itself to whoever operates it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker process."""

    id: str
    """`POOL-SLOT.GENERATION`."""
    pid: int
    """0 before there is a process."""
    state: str
    """`starting`, `ready`, `spare`, `draining` or `stopping`."""
    active: int = 0
    """Requests that it has now, those whose caller has gone included."""
    requests: int = 0
    """Requests that it has answered."""
    age_seconds: float = 0.0
    """Since its process was started."""
    memory_bytes: int | None = None
    """Its resident memory; None if that could not be read."""
    heartbeat_age_seconds: float | None = None
    """Since it last said that it is responsive; None if it has not yet."""
    missed_heartbeats: int = 0
    """Late answers in a row."""
    suspect: str | None = None
    """Why it is passed over where another worker is ready; None if it is not."""


@dataclass(frozen=True, kw_only=True)
class PoolStatus:
    """One pool, with its workers."""

    name: str
    adapter: str
    profile: str
    affinity: str
    size: int
    """Workers that there should be, besides `spares`."""
    spares: int = 0
    concurrency: int = 1
    """Requests that one worker runs at a time."""
    ready_places: int = 0
    """Requests that those workers can run that are ready."""
    busy_places: int = 0
    """Of these places, the taken ones."""
    queue_length: int = 0
    queue_limit: int = 0
    queue_oldest_seconds: float = 0.0
    """How long the first in the queue has waited; 0 if it is empty."""
    breaker: str = "closed"
    """`closed`, `open` or `half_open`."""
    breaker_retry_seconds: float = 0.0
    """Until an open breaker lets one request through."""
    barred_seconds: float = 0.0
    """Until a worker may be started again, because too many have died of their start; 0 if none has to wait."""
    service_seconds: float = 0.0
    """How long a request is expected to take on a worker; 0 while unknown."""
    answered: int = 0
    """Requests that a worker answered: by a result, or by what the tool raised."""
    failed: int = 0
    """Requests that were begun and not answered: the worker was lost, the time was up, or the caller left."""
    refused: dict[str, int] = field(default_factory=dict)
    """Requests that did not run, by the reason of the error."""
    retried: int = 0
    """Times that a request was run again, because its worker was lost."""
    restarts: int = 0
    """Workers that were started in place of another."""
    workers: tuple[WorkerStatus, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SessionsStatus:
    """The ledger of sessions: `created - deleted - pruned_ttl - pruned_overflow == live`."""

    created: int = 0
    deleted: int = 0
    pruned_ttl: int = 0
    pruned_overflow: int = 0
    rejected: int = 0
    live: int = 0
    memory_bytes: int = 0
    max_sessions: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Status:
    """An authority, its sessions and its pools, at one moment."""

    version: str
    run_id: str
    """The name of its private directory, which its workers have in their command lines."""
    pid: int
    uptime_seconds: float
    stopping: bool = False
    """Whether it takes no more requests."""
    telemetry_level: str = ""
    sessions: SessionsStatus = field(default_factory=SessionsStatus)
    pools: tuple[PoolStatus, ...] = ()

    def to_message(self) -> pb.GetStatusResponse:
        """Return this as the wire has it."""
        return pb.GetStatusResponse(**asdict(self))

    @classmethod
    def of_message(cls, message: pb.GetStatusResponse) -> Self:
        """Return what the wire tells of."""
        pools = tuple(
            PoolStatus(
                **{
                    **_values(pool),
                    "refused": dict(pool.refused),
                    "workers": tuple(WorkerStatus(**_values(worker)) for worker in pool.workers),
                }
            )
            for pool in message.pools
        )
        return cls(**{**_values(message), "sessions": SessionsStatus(**_values(message.sessions)), "pools": pools})


def _values(message: Any) -> dict[str, Any]:
    """Return the fields by name; None for an optional one that is not given."""
    return {
        name: None if described.has_presence and not message.HasField(name) else getattr(message, name)
        for name, described in message.DESCRIPTOR.fields_by_name.items()
    }
