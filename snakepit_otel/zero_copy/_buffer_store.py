"""What an authority holds for the two sides of each request: published buffers, by request, until it ends."""

from __future__ import annotations

import resource
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Self

from snakepit_otel import telemetry
from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.errors import ReferenceMisused, ReferenceRefused, ReferenceReleased, ZeroCopyLimitExceeded
from snakepit_otel.telemetry import names
from snakepit_otel.zero_copy import _memory as memory
from snakepit_otel.zero_copy import _metrics as reports
from snakepit_otel.zero_copy._descriptor import Description, Owner
from snakepit_otel.zero_copy._exchange import ExchangeUnavailable
from snakepit_otel.zero_copy._limits import Limits
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._reference import check
from snakepit_otel.zero_copy._scope import Scope

HERE = "here"
"""The peer that is this process."""
BEARER = "bearer"
"""A peer of which nothing is known but that it knows the id of a request, or of a result."""


@dataclass(eq=False)
class _Held:
    description: Description
    buffer: Buffer
    by: str
    request: _Request | None
    since: float
    charge: ByteCharge | None = None
    lent: int = 0
    """How many read it, who keep the memory whatever becomes of it."""
    dropped: bool = False
    deadline: float | None = None
    is_result: bool = False
    """Whether a caller in another process has been told of it, who may come for it when the request has ended."""
    was_placed: bool = False
    """Whether the caller had placed it for the request."""


@dataclass(eq=False)
class _Request:
    id: str
    session_id: str | None
    worker: str | None = None
    held: dict[str, _Held] = field(default_factory=dict)
    bytes: int = 0


class BufferStore:
    """The buffers of an authority's requests. Safe to use from several threads.

    A peer is `HERE`, a worker's id, or whatever names another process of this user; a worker gets at those requests
    only that it serves, and other processes at what waits for a request, and at results that wait for them, by their
    random ids. `clock` is monotonic, in seconds.
    """

    def __init__(
        self, settings: Limits | None = None, *, strict: bool = False, clock: Callable[[], float] = monotonic
    ) -> None:
        self.settings = settings or Limits()
        self.strict = strict
        self.shares = self.settings.enabled and memory.can_share()
        """Whether other processes can be given memory, rather than copies."""
        self._clock = clock
        self._lock = threading.RLock()
        self._requests: dict[str, _Request] = {}
        self._held: dict[str, _Held] = {}
        self._bytes = 0
        self._count = 0
        """Of references: those that are held, reserved, or lent and dropped meanwhile."""
        self._workers: dict[int, str] = {}
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = self.settings.max_host_references
        if descriptors != resource.RLIM_INFINITY:
            self._most = min(self._most, descriptors // 2)
        self._ids = _ids()

    def be_observed(self) -> None:
        """Have telemetry say what is held here."""
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

    def serve(self, request: str, worker: str) -> None:
        """Let a worker at the references of a request, which it is about to run."""
        found = self._requests.get(request)
        if found is not None:
            found.worker = worker

    def admit(self, pid: int, worker: str) -> None:
        """Know a process for a worker."""
        self._workers[pid] = worker

    def dismiss(self, pid: int) -> None:
        """Know a process for a worker no more, which is gone.

        What it had published goes with its requests, which end by themselves: the answer to one of them may have
        arrived, and be about to be read.
        """
        self._workers.pop(pid, None)

    def lose(self, peer: str) -> None:
        """Release what a peer that is none of our workers had published for requests to come."""
        with self._lock:
            for held in [held for held in self._held.values() if held.by == peer and held.request is None]:
                if held.description.owner is Owner.ELIXIR:
                    self._lose(held)

    def peer_of(self, pid: int) -> str:
        """Return who a process is."""
        return self._workers.get(pid, f"process {pid}")

    def is_worker(self, peer: str) -> bool:
        """Say whether a peer is one of our workers."""
        return peer in self._workers.values()

    def reserve(self, request: str | None, size: int, by: str) -> Reservation:
        """Reserve what a reference of `size` bytes takes, before they come. Raises as `publish` does."""
        with self._lock:
            self._admit(self._for(request, by), size)
            self._take(size)
        return Reservation(self, size)

    def publish(
        self,
        request: str | None,
        description: Description,
        buffer: Buffer,
        by: str = HERE,
        *,
        reserved: Reservation | None = None,
        charge: ByteCharge | None = None,
    ) -> None:
        """Hold a buffer for a request, or for one to come; the buffer is ours from here on, whatever happens.

        What was `reserved` for it is given back, since it counts itself from now on. `charge` is released with the
        buffer, and also where this raises. Raises `ReferenceRefused`, `ReferenceMisused`, `ReferenceReleased`,
        `ZeroCopyLimitExceeded`.
        """
        held = buffer.twin() if by == HERE else buffer
        try:
            if description.data is not None:
                raise ReferenceRefused("a reference with its data in it is not published")
            check(description, buffer.size)
            with self._lock:
                found = self._for(request, by)
                if description.ref in self._held:
                    raise ReferenceRefused(f"reference {description.ref[:8]} is published already")
                if reserved is not None:
                    reserved.release()
                self._admit(found, max(description.size, buffer.size))
                now = self._clock()
                entry = _Held(description, held, by, found, now, charge)
                if found is None:
                    entry.deadline = now + self.settings.unused_ttl / 1000
                else:
                    found.held[description.ref] = entry
                    found.bytes += buffer.size
                self._held[description.ref] = entry
                self._take(buffer.size)
        except BaseException:
            held.close()
            if charge is not None:
                charge.resize(0)
            raise

    def fetch(self, request: str | None, ref: str, by: str = HERE) -> tuple[Description, Buffer]:
        """Return a published buffer, for the caller to close. Raises as `publish` does."""
        held, buffer = self._open(request, ref, by)
        return held.description, buffer

    @contextmanager
    def lent(self, request: str | None, ref: str, by: str) -> Iterator[tuple[Description, Buffer]]:
        """Give a published buffer to whoever copies it, and count it as held until then. Raises as `publish` does."""
        with self._lock:
            held, buffer = self._open(request, ref, by)
            held.lent += 1
        try:
            yield held.description, buffer
        finally:
            buffer.close()
            with self._lock:
                held.lent -= 1
                if held.dropped and not held.lent:
                    self._give_back(held)

    def _open(self, request: str | None, ref: str, by: str) -> tuple[_Held, Buffer]:
        with self._lock:
            found = self._for(request, by)
            held = self._find(ref)
            if held.request is not found and not (found is None and held.is_result):
                if held.request is not None or found is None:
                    raise ReferenceMisused(
                        f"reference {ref[:8]} belongs to another request: a reference lives for one request"
                    )
                if held.is_result or held.description.owner is Owner.PYTHON:
                    raise ReferenceMisused(f"reference {ref[:8]} is a result, for its caller only")
                self._bind(held, found)
            if by not in (HERE, BEARER) and not held.buffer.shared:
                raise ExchangeUnavailable("disabled" if not self.settings.enabled else "no_memory")
            return held, held.buffer.twin()

    def release(self, request: str | None, ref: str, by: str = HERE) -> None:
        """Let go of a published buffer, if it is still held and the peer may."""
        with self._lock:
            held = self._held.get(ref)
            found = self._requests.get(request) if request is not None else None
            if held is None or (found is None and (request is not None or self.is_worker(by))):
                return
            if (held.request is found and (found is None or by in (HERE, BEARER, found.worker))) or (
                found is None and held.is_result
            ):
                self._drop(held)

    def has(self, ref: str) -> bool:
        """Say whether a reference is held."""
        return ref in self._held

    def claim(self, request: str, ref: str) -> None:
        """Give a reference that waits for a request to this one; raise `ReferenceMisused` if it is another's."""
        with self._lock:
            found, held = self._for(request, HERE), self._held.get(ref)
            if held is None or held.request is found or found is None:
                # What nobody holds is for the worker to refuse, which knows what it was for.
                return
            if held.request is not None:
                raise ReferenceMisused(
                    f"reference {ref[:8]} belongs to another request: a reference lives for one request"
                )
            if held.is_result:
                raise ReferenceMisused(f"reference {ref[:8]} is a result, for its caller only")
            self._bind(held, found)

    def offer(self, request: str, ref: str, charge: ByteCharge | None = None) -> None:
        """Let a caller in another process come for a result of the request, also for a while after its end.

        Its bytes are charged to `charge` until then, if there is one. Raises `BudgetExceeded` where that does.
        """
        with self._lock:
            found, held = self._requests.get(request), self._held.get(ref)
            if held is None or found is None or held.request is not found or held.was_placed or held.is_result:
                return
            if charge is not None and held.charge is None:
                charge.resize(held.buffer.size)
                held.charge = charge
            held.is_result = True

    def join(self, request: str, session_id: str | None) -> Scope:
        """Return a scope for a call-back of a request that has not ended; it is closed on its own.

        Raises `ReferenceReleased` if the request has ended, `ReferenceMisused` if it is another session's.
        """
        found = self._for(request, HERE)
        assert found is not None
        if found.session_id != session_id:
            raise ReferenceMisused("the request is another session's: a reference lives for one request")
        return Scope(Owner.ELIXIR, self, self.settings, request=request, session_id=session_id, strict=self.strict)

    def sweep(self) -> None:
        """Release what nobody came for in time."""
        now = self._clock()
        with self._lock:
            for held in [held for held in self._held.values() if held.deadline is not None and held.deadline < now]:
                self._drop(held)

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            for held in list(self._held.values()):
                self._drop(held)
            self._requests.clear()

    def _close(self, request: _Request, reason: str) -> None:
        with self._lock:
            self._requests.pop(request.id, None)
            deadline = self._clock() + self.settings.unused_ttl / 1000
            for held in list(request.held.values()):
                if reason == reports.PEER_LOST and held.by == request.worker:
                    # Which may not have been missed yet by those who would say so.
                    self._lose(held)
                elif held.is_result:
                    held.request, held.deadline = None, deadline
                else:
                    self._drop(held)

    def _for(self, request: str | None, by: str) -> _Request | None:
        if request is None:
            if self.is_worker(by):
                raise ReferenceMisused("a worker's references belong to a request")
            return None
        found = self._requests.get(request)
        if found is None:
            raise ReferenceReleased(
                "the request has ended, and with it its references: a reference lives for one request"
            )
        if by not in (HERE, BEARER, found.worker):
            raise ReferenceMisused("the request is not this process': a reference lives for one request")
        return found

    def _find(self, ref: str) -> _Held:
        held = self._held.get(ref)
        if held is None or (held.deadline is not None and held.deadline < self._clock()):
            raise ReferenceReleased(f"there is no reference {ref[:8]}: it never was, or has been released")
        return held

    def _bind(self, held: _Held, request: _Request) -> None:
        """Give a buffer that waited for a request to the first that has its reference."""
        self._admit(request, held.buffer.size, again=True)
        held.request, held.deadline = request, None
        held.was_placed = True
        request.held[held.description.ref] = held
        request.bytes += held.buffer.size

    def _admit(self, request: _Request | None, size: int, *, again: bool = False) -> None:
        limits = self.settings
        if size > limits.max_bytes:
            raise ZeroCopyLimitExceeded.of("bytes in one reference", size, "max_bytes", limits.max_bytes)
        if request is not None:
            wanted = request.bytes + size
            _check("bytes in one request", wanted, size, "max_request_bytes", limits.max_request_bytes)
            wanted = len(request.held) + 1
            _check("references in one request", wanted, 1, "max_request_references", limits.max_request_references)
        if not again:
            wanted = self._bytes + size
            _check("bytes held by the authority", wanted, size, "max_host_bytes", limits.max_host_bytes)
            wanted = self._count + 1
            _check("references held by the authority", wanted, 1, "max_host_references", self._most)

    def _lose(self, held: _Held) -> None:
        reports.lost(held.description, self._clock() - held.since)
        self._drop(held)

    def _drop(self, held: _Held) -> None:
        del self._held[held.description.ref]
        held.dropped = True
        if not held.lent:
            self._give_back(held)
        if held.request is not None:
            held.request.held.pop(held.description.ref, None)
            held.request.bytes -= held.buffer.size
        held.buffer.close()

    def _give_back(self, held: _Held) -> None:
        self._take(held.buffer.size, -1)
        if held.charge is not None:
            held.charge.resize(0)

    def _take(self, size: int, count: int = 1) -> None:
        """Count a reference of `size` bytes, or so many fewer."""
        self._bytes += size * count
        self._count += count

    def _read_count(self) -> list[tuple[float, dict[str, str]]]:
        return [(len(held), {names.SNAKEPIT_ZERO_COPY_OWNER: owner}) for owner, held in self._by_owner()]

    def _read_size(self) -> list[tuple[float, dict[str, str]]]:
        return [(sum(held), {names.SNAKEPIT_ZERO_COPY_OWNER: owner}) for owner, held in self._by_owner()]

    def _by_owner(self) -> Iterator[tuple[str, list[int]]]:
        with self._lock:
            everything = [(held.description.owner, held.buffer.size) for held in self._held.values()]
        for owner in Owner:
            yield owner.value, [size for whose, size in everything if whose is owner]


class Reservation:
    """What is kept free for a reference whose bytes have not all come; a context manager that gives it back."""

    def __init__(self, buffer_store: BufferStore, size: int) -> None:
        self._buffer_store = buffer_store
        self._size = size
        self._stands = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; again does nothing."""
        with self._buffer_store._lock:
            if self._stands:
                self._stands = False
                self._buffer_store._take(self._size, -1)


def _check(what: str, wanted: int, alone: int, setting: str, limit: int) -> None:
    """Raise if `wanted` is over the limit, which passes if what is asked for is not over it `alone`."""
    if wanted > limit:
        error = ZeroCopyLimitExceeded.of(what, wanted, setting, limit)
        error.passes = alone <= limit
        raise error


def _ids() -> Iterator[str]:
    while True:
        # Many at once, because a system call for each request is not free.
        drawn = secrets.token_hex(16 * 64)
        yield from (drawn[start : start + 32] for start in range(0, len(drawn), 32))
