"""Store of the buffers that are published for an authority's requests, each until its request ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from snakepit_otel import telemetry
from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.errors import ReferenceMisused, ReferenceRefused, ReferenceReleased
from snakepit_otel.telemetry import names
from snakepit_otel.zero_copy import _memory as memory
from snakepit_otel.zero_copy import _metrics as metrics
from snakepit_otel.zero_copy._descriptor import Description, Owner
from snakepit_otel.zero_copy._exchange import ExchangeUnavailable
from snakepit_otel.zero_copy._limits import Limits, check_limit
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._reference import check
from snakepit_otel.zero_copy._scope import Scope
from snakepit_otel.zero_copy._store_usage import Reservation, StoreUsage

HERE = "here"  # the peer that is this process
BEARER = "bearer"  # a peer identified by nothing but the random id of a request or result


@dataclass(eq=False)
class _Stored:
    """A published buffer. While `readers` copy it, its bytes stay counted, also after its removal.

    A result is for a caller in another process, who may fetch it for a while after the request has ended.
    """

    description: Description
    buffer: Buffer
    publisher: str
    request: _Request | None
    since: float
    charge: ByteCharge | None = None
    readers: int = 0
    removed: bool = False
    deadline: float | None = None
    is_result: bool = False
    is_argument: bool = False


@dataclass(eq=False, slots=True)
class _Request:
    id: str
    session_id: str | None
    worker: str | None = None
    stored: dict[str, _Stored] = field(default_factory=dict)
    bytes: int = 0


class BufferStore:
    """The buffers of an authority's requests. Safe to use from several threads.

    A peer is `HERE`, a worker's id, or the name of another process of this user. A worker has access to the requests
    that it serves only; other processes have access to buffers of a request to come, and to results, by their random
    ids. `clock` is monotonic, in seconds.
    """

    def __init__(
        self, settings: Limits | None = None, *, strict: bool = False, clock: Callable[[], float] = monotonic
    ) -> None:
        self.settings = settings or Limits()
        self.strict = strict
        self.can_share = self.settings.enabled and memory.can_share()
        self._clock = clock
        self._usage = StoreUsage(self.settings)
        self._lock = self._usage.lock
        self._requests: dict[str, _Request] = {}
        self._stored: dict[str, _Stored] = {}
        self._workers: dict[int, str] = {}
        self._ids = _ids()

    def register_gauges(self) -> None:
        telemetry.observe(self, names.METRIC_ZERO_COPY_HELD_COUNT, BufferStore._read_count)
        telemetry.observe(self, names.METRIC_ZERO_COPY_HELD_SIZE, BufferStore._read_size)
        telemetry.observe(self, names.METRIC_ZERO_COPY_HELD_LIMIT, lambda me: [(me.settings.max_host_bytes, {})])

    def request(self, session_id: str | None, tool: str) -> Scope:
        """Begin a request, and return the scope of its references on the authority's side.

        The scope ends with its `with` block, or by `close`.
        """
        request = _Request(next(self._ids), session_id)
        self._requests[request.id] = request
        return Scope(
            Owner.ELIXIR,
            self,
            self.settings,
            request=request.id,
            session_id=session_id,
            tool=tool,
            strict=self.strict,
            on_close=partial(self._close, request),
        )

    def assign_worker(self, request: str, worker: str) -> None:
        """Give a worker access to the references of the request that it is about to run."""
        found = self._requests.get(request)
        if found is not None:
            found.worker = worker

    def add_worker(self, pid: int, worker: str) -> None:
        self._workers[pid] = worker

    def remove_worker(self, pid: int) -> None:
        """Remove a worker whose process is gone.

        What it had published is removed with its requests: the answer to one of them may have arrived, and not be read
        yet.
        """
        self._workers.pop(pid, None)

    def remove_peer(self, peer: str) -> None:
        """Release what a peer other than a worker had published for requests to come."""
        with self._lock:
            for stored in [
                stored for stored in self._stored.values() if stored.publisher == peer and stored.request is None
            ]:
                if stored.description.owner is Owner.ELIXIR:
                    self._remove_lost(stored)

    def peer_of(self, pid: int) -> str:
        """Return the name of a process: the id of its worker, or one with its process id."""
        return self._workers.get(pid, f"process {pid}")

    def is_worker(self, peer: str) -> bool:
        return peer in self._workers.values()

    def reserve(self, request: str | None, size: int, peer: str) -> Reservation:
        """Reserve a reference of `size` bytes, before they are received. Raises as `publish` does."""
        with self._lock:
            self._check_limits(self._request_of(request, peer), size)
            self._usage.check_store(size)
            return Reservation(self._usage, size)

    def publish(
        self,
        request: str | None,
        description: Description,
        buffer: Buffer,
        peer: str = HERE,
        *,
        reserved: Reservation | None = None,
        charge: ByteCharge | None = None,
    ) -> None:
        """Store a buffer for a request, or for one to come, and own it, also where this raises.

        A reservation `reserved` is released, since the buffer is counted from now on. `charge` is released with the
        buffer, and also where this raises. Raises `ReferenceRefused`, `ReferenceMisused`, `ReferenceReleased`,
        `ZeroCopyLimitExceeded`.
        """
        stored = buffer.twin() if peer == HERE else buffer
        try:
            if description.data is not None:
                raise ReferenceRefused("a reference with its data in it is not published")
            check(description, buffer.size)
            with self._lock:
                found = self._request_of(request, peer)
                if description.ref in self._stored:
                    raise ReferenceRefused(f"reference {description.ref[:8]} is published already")
                if reserved is not None:
                    reserved.release()
                size = max(description.size, buffer.size)
                self._check_limits(found, size)
                self._usage.check_store(size)
                now = self._clock()
                entry = _Stored(description, stored, peer, found, now, charge)
                if found is None:
                    entry.deadline = now + self.settings.unused_ttl / 1000
                else:
                    found.stored[description.ref] = entry
                    found.bytes += buffer.size
                self._stored[description.ref] = entry
                self._usage.add(buffer.size)
        except BaseException:
            stored.close()
            if charge is not None:
                charge.resize(0)
            raise

    def fetch(self, request: str | None, ref: str, peer: str = HERE) -> tuple[Description, Buffer]:
        """Return a published buffer, for the caller to close. Raises as `publish` does."""
        stored, buffer = self._fetch(request, ref, peer)
        return stored.description, buffer

    @contextmanager
    def borrow(self, request: str | None, ref: str, peer: str) -> Iterator[tuple[Description, Buffer]]:
        """Return a published buffer to copy, which stays counted for the block. Raises as `publish` does."""
        with self._lock:
            stored, buffer = self._fetch(request, ref, peer)
            stored.readers += 1
        try:
            yield stored.description, buffer
        finally:
            buffer.close()
            with self._lock:
                stored.readers -= 1
                if stored.removed and not stored.readers:
                    self._release_bytes(stored)

    def _fetch(self, request: str | None, ref: str, peer: str) -> tuple[_Stored, Buffer]:
        with self._lock:
            found = self._request_of(request, peer)
            stored = self._find(ref)
            if stored.request is not found and not (found is None and stored.is_result):
                if stored.request is not None or found is None:
                    raise ReferenceMisused(
                        f"reference {ref[:8]} belongs to another request: a reference lives for one request"
                    )
                if stored.is_result or stored.description.owner is Owner.PYTHON:
                    raise ReferenceMisused(f"reference {ref[:8]} is a result, for its caller only")
                self._assign(stored, found)
            if peer not in (HERE, BEARER) and not stored.buffer.shared:
                raise ExchangeUnavailable("disabled" if not self.settings.enabled else "no_memory")
            return stored, stored.buffer.twin()

    def release(self, request: str | None, ref: str, peer: str = HERE) -> None:
        """Remove a published buffer, if it is still stored and the peer may remove it."""
        with self._lock:
            stored = self._stored.get(ref)
            found = self._requests.get(request) if request is not None else None
            if stored is None or (found is None and (request is not None or self.is_worker(peer))):
                return
            if (stored.request is found and (found is None or peer in (HERE, BEARER, found.worker))) or (
                found is None and stored.is_result
            ):
                self._remove(stored)

    def has(self, ref: str) -> bool:
        return ref in self._stored

    def claim(self, request: str, ref: str) -> None:
        """Assign a reference of a request to come to this one; raise `ReferenceMisused` if it is another's."""
        with self._lock:
            found, stored = self._request_of(request, HERE), self._stored.get(ref)
            if stored is None or stored.request is found or found is None:
                # A reference that is not stored is refused by the worker, with the name of the argument.
                return
            if stored.request is not None:
                raise ReferenceMisused(
                    f"reference {ref[:8]} belongs to another request: a reference lives for one request"
                )
            if stored.is_result:
                raise ReferenceMisused(f"reference {ref[:8]} is a result, for its caller only")
            self._assign(stored, found)

    def offer(self, request: str, ref: str, charge: ByteCharge | None = None) -> None:
        """Keep a result of the request for a caller in another process, also for a while after its end.

        Its bytes are charged to `charge` until then, if there is one. Raises `BudgetExceeded` where that does.
        """
        with self._lock:
            found, stored = self._requests.get(request), self._stored.get(ref)
            if stored is None or found is None or stored.request is not found or stored.is_argument or stored.is_result:
                return
            if charge is not None and stored.charge is None:
                charge.resize(stored.buffer.size)
                stored.charge = charge
            stored.is_result = True

    def join(self, request: str, session_id: str | None) -> Scope:
        """Return a scope for a call-back of a request that has not ended; it is closed on its own.

        Raises `ReferenceReleased` if the request has ended, `ReferenceMisused` if it is another session's.
        """
        found = self._request_of(request, HERE)
        assert found is not None
        if found.session_id != session_id:
            raise ReferenceMisused("the request is another session's: a reference lives for one request")
        return Scope(Owner.ELIXIR, self, self.settings, request=request, session_id=session_id, strict=self.strict)

    def sweep(self) -> None:
        now = self._clock()
        with self._lock:
            for stored in [
                stored for stored in self._stored.values() if stored.deadline is not None and stored.deadline < now
            ]:
                self._remove(stored)

    def close(self) -> None:
        with self._lock:
            for stored in list(self._stored.values()):
                self._remove(stored)
            self._requests.clear()

    def _close(self, request: _Request, reason: str) -> None:
        with self._lock:
            self._requests.pop(request.id, None)
            if not request.stored:
                return
            deadline = self._clock() + self.settings.unused_ttl / 1000
            for stored in list(request.stored.values()):
                if reason == metrics.PEER_LOST and stored.publisher == request.worker:
                    # The pool may not have noticed yet that the worker is gone.
                    self._remove_lost(stored)
                elif stored.is_result:
                    stored.request, stored.deadline = None, deadline
                else:
                    self._remove(stored)

    def _request_of(self, request: str | None, peer: str) -> _Request | None:
        if request is None:
            if self.is_worker(peer):
                raise ReferenceMisused("a worker's references belong to a request")
            return None
        found = self._requests.get(request)
        if found is None:
            raise ReferenceReleased(
                "the request has ended, and with it its references: a reference lives for one request"
            )
        if peer not in (HERE, BEARER, found.worker):
            raise ReferenceMisused("the request is not this process': a reference lives for one request")
        return found

    def _find(self, ref: str) -> _Stored:
        stored = self._stored.get(ref)
        if stored is None or (stored.deadline is not None and stored.deadline < self._clock()):
            raise ReferenceReleased(f"there is no reference {ref[:8]}: it never was, or has been released")
        return stored

    def _assign(self, stored: _Stored, request: _Request) -> None:
        """Assign a buffer of a request to come to the first request that has its reference."""
        self._check_limits(request, stored.buffer.size)
        stored.request, stored.deadline = request, None
        stored.is_argument = True
        request.stored[stored.description.ref] = stored
        request.bytes += stored.buffer.size

    def _check_limits(self, request: _Request | None, size: int) -> None:
        check_limit(self.settings, "max_bytes", size, "bytes in one reference")
        if request is not None:
            self._usage.check_request(size, request.bytes, len(request.stored))

    def _remove_lost(self, stored: _Stored) -> None:
        metrics.record_release(stored.description, metrics.PEER_LOST, self._clock() - stored.since)
        self._remove(stored)

    def _remove(self, stored: _Stored) -> None:
        del self._stored[stored.description.ref]
        stored.removed = True
        if not stored.readers:
            self._release_bytes(stored)
        if stored.request is not None:
            stored.request.stored.pop(stored.description.ref, None)
            stored.request.bytes -= stored.buffer.size
        stored.buffer.close()

    def _release_bytes(self, stored: _Stored) -> None:
        self._usage.add(stored.buffer.size, -1)
        if stored.charge is not None:
            stored.charge.resize(0)

    def _read_count(self) -> list[tuple[float, dict[str, str]]]:
        return [(len(stored), {names.SNAKEPIT_ZERO_COPY_OWNER: owner}) for owner, stored in self._by_owner()]

    def _read_size(self) -> list[tuple[float, dict[str, str]]]:
        return [(sum(stored), {names.SNAKEPIT_ZERO_COPY_OWNER: owner}) for owner, stored in self._by_owner()]

    def _by_owner(self) -> Iterator[tuple[str, list[int]]]:
        with self._lock:
            everything = [(stored.description.owner, stored.buffer.size) for stored in self._stored.values()]
        for owner in Owner:
            yield owner.value, [size for side, size in everything if side is owner]


def _ids() -> Iterator[str]:
    while True:
        # Many at once, because a system call for each request costs time.
        drawn = secrets.token_hex(16 * 64)
        yield from (drawn[start : start + 32] for start in range(0, len(drawn), 32))
