"""Status of an authority, its sessions and its pools, for its operators."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, TypeVar

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker process."""

    id: str  # `POOL-NUMBER.GENERATION`; the number is the slot's, from 1
    pid: int  # 0 before the process starts
    state: str  # `starting`, `ready`, `spare`, `draining` or `stopping`
    active: int = 0  # requests, abandoned ones included
    requests: int = 0  # answered so far
    age_seconds: float = 0.0
    memory_bytes: int | None = None  # resident memory; None if unknown
    heartbeat_age_seconds: float | None = None  # None before the first heartbeat
    missed_heartbeats: int = 0  # in a row
    suspect: str | None = None  # reason for which other workers are preferred
    slot: int = 0  # its place in the pool, from 0, which its replacement inherits
    transport: str = ""  # of the calls to it, `ttrpc` or `grpc`; empty before there is a connection


@dataclass(frozen=True, kw_only=True)
class PoolStatus:
    """One pool, with its workers."""

    name: str
    adapter: str
    profile: str
    affinity: str
    size: int  # workers, besides `spares`
    spares: int = 0
    concurrency: int = 1  # requests that one worker runs at a time
    ready_slots: int = 0  # slots of ready workers
    busy_slots: int = 0  # slots of these that are taken
    queue_length: int = 0
    queue_limit: int = 0
    queue_oldest_seconds: float = 0.0  # of the oldest request in the queue; 0 if it is empty
    breaker: str = "closed"  # `closed`, `open` or `half_open`
    breaker_retry_seconds: float = 0.0  # until an open breaker lets one request through
    start_blocked_seconds: float = 0.0  # until starts are tried again, after too many failed; 0 if they are not delayed
    service_seconds: float = 0.0  # expected time of a request on a worker; 0 while unknown
    answered: int = 0  # requests with a result, or an error that the tool raised
    failed: int = 0  # requests begun without an answer: worker lost, deadline passed, or caller gone
    rejected: dict[str, int] = field(default_factory=dict)  # requests that did not run, by the reason of the error
    retried: int = 0  # runs of requests again, after the loss of a worker or an error that the tool raised
    restarts: int = 0  # workers started in place of another
    workers: tuple[WorkerStatus, ...] = ()
    raised: int = 0  # requests among those answered that ended with an error that the tool raised


@dataclass(frozen=True, kw_only=True)
class ToolStatus:
    """One tool of a pool or of the authority, and what became of its calls: the others succeeded."""

    name: str
    pool: str = ""  # empty for a tool of the authority
    calls: int = 0
    raised: int = 0  # calls that ended with an error that the tool raised
    refused: int = 0  # calls that did not run
    p50_seconds: float | None = None  # of recent calls that ran, without their wait for a worker; None before the first
    p95_seconds: float | None = None
    retried: int = 0  # runs again, after an error that the tool raised or the loss of its worker
    failed: int = 0  # calls that began and have no answer: worker lost, deadline passed, or caller gone


@dataclass(frozen=True, kw_only=True)
class ListenerStatus:
    """One address at which an authority listens."""

    address: str
    transport: str = ""  # `ttrpc`, which serves callers that speak gRPC, too, or `grpc`


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
    rejected_per_owner: int = 0  # of `rejected`, those at the quota of their owner
    max_sessions_per_owner: float = float("inf")
    reported: int = 0  # of the pruned ones, those whose event an authority has confirmed
    store: str = ""
    store_is_away: bool = False  # the figures are those of the last answer


@dataclass(frozen=True, kw_only=True)
class Status:
    """An authority, its sessions and its pools, at one moment."""

    version: str
    run_id: str  # name of the authority's private directory, which is in its workers' command lines
    pid: int
    uptime_seconds: float
    stopping: bool = False  # no more requests are taken
    telemetry_level: str = ""
    sessions: SessionsStatus = field(default_factory=SessionsStatus)
    pools: tuple[PoolStatus, ...] = ()
    tools: tuple[ToolStatus, ...] = ()
    strict_mode: bool = False
    listeners: tuple[ListenerStatus, ...] = ()

    def to_message(self) -> pb.GetStatusResponse:
        """Return this as the wire has it."""
        return pb.GetStatusResponse(**asdict(self))

    @classmethod
    def of_message(cls, message: pb.GetStatusResponse) -> Self:
        """Return the status of a message."""
        pools = tuple(
            _read(
                PoolStatus,
                pool,
                rejected=dict(pool.rejected),
                workers=tuple(_read(WorkerStatus, worker) for worker in pool.workers),
            )
            for pool in message.pools
        )
        tools = tuple(_read(ToolStatus, tool) for tool in message.tools)
        listeners = tuple(_read(ListenerStatus, listener) for listener in message.listeners)
        sessions = _read(SessionsStatus, message.sessions)
        return _read(cls, message, sessions=sessions, pools=pools, tools=tools, listeners=listeners)


def _read(kind: type[T], message: Any, **read: Any) -> T:
    """Return a status with the fields of a message that it has; None for an optional one that is not given."""
    values = {
        name: None if described.has_presence and not message.HasField(name) else getattr(message, name)
        for name, described in message.DESCRIPTOR.fields_by_name.items()
        if name not in read and name in {field.name for field in fields(kind)}  # type: ignore[arg-type]
    }
    return kind(**values, **read)
