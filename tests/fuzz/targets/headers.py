"""All that comes beside a request: trace context, baggage, and the headers of sessions, owners and deadlines."""

from __future__ import annotations

from typing import Any

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import SpanContext

from snakepit_otel.bridge.authority.service import _creator, _headers, _owner, _ttl
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.worker.call_metadata import deadline_of
from snakepit_otel.errors import InvalidSession, SnakepitError, ValueRefused
from snakepit_otel.sessions import SessionStore
from snakepit_otel.sessions._session import MAX_OWNER, MAX_TTL
from snakepit_otel.telemetry import _guard, incoming
from snakepit_otel.telemetry._propagation import outgoing, plain_parent
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, refusing, target
from tests.fuzz.loop import wait_for

_PARENTS = (
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
)
_STATES = ("a=1,b=2", "a=" + "x" * 300, ",".join(f"k{number}=v" for number in range(40)), "a=1,a=2", "=", ",,,")
_BAGGAGE = (
    "a=1",
    "a=1;p=2,b=%20%C3%A9",
    ",".join(f"key{number}=value" for number in range(1_000)),
    "=",
    "%zz=%zz",
    "a",
)


@target()
def trace_context(data: bytes) -> None:
    """Trace context of any metadata is what the standard's propagators make of it, and is passed on within limits."""
    choices = Choices(data)
    metadata: list[tuple[str, str | bytes]] = []
    for _ in range(choices.below(5)):
        key = choices.pick(["traceparent", "tracestate", "baggage", "baggage", "x-other", "grpc-trace-bin"])
        known = {"traceparent": _PARENTS, "tracestate": _STATES, "baggage": _BAGGAGE}.get(key, ("x",))
        value: Any = choices.pick(known) if choices.chance() else choices.raw().decode("latin-1")
        metadata.append((key, choices.raw() if key.endswith("-bin") else value))
    before = _guard.fault_count
    found = incoming(metadata)
    # Baggage that is too long is left out with a word, which is no fault of ours.
    _guard.fault_count = before
    expected = _by_propagators(metadata)
    insist(_identity(found)[:2] == _identity(expected)[:2], "another trace:", metadata, _identity(found))
    insist(_identity(found)[2] & 1 == _identity(expected)[2] & 1)
    insist(len(baggage.get_all(found)) <= 180, "more baggage than there may be")
    if (plain := plain_parent(metadata)) is not None:
        insist(plain[0] == _identity(found)[0], "another trace by the short way:", metadata)
    token = attach(found)
    try:
        sent = outgoing()
    finally:
        detach(token)
        _guard.fault_count = before
    for key, value in sent:
        insist(key == key.lower() and isinstance(value, str) and len(value) <= 8_192, key, len(value))
        insist(value.isascii() and value.isprintable(), "a header that gRPC refuses:", value)


def _by_propagators(metadata: list[tuple[str, str | bytes]]) -> Context:
    return propagate.extract({key: value for key, value in metadata if isinstance(value, str)}, Context())


def _identity(context: Context) -> tuple[int, int, int]:
    span: SpanContext = trace.get_current_span(context).get_span_context()
    return span.trace_id, span.span_id, int(span.trace_flags)


class _Call:
    """What the services ask of a call's context."""

    def __init__(self, metadata: list[tuple[str, Any]], left: float | None, peer: str) -> None:
        self._metadata, self._left, self._peer = metadata, left, peer

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._left

    def peer(self) -> str:
        return self._peer


@target()
def session_headers(data: bytes) -> None:
    """Headers of TTL, owner and call site make a session that keeps its limits, or are refused in a line."""
    choices = Choices(data)
    values: list[tuple[str, Any]] = []
    for key in (methods.TTL_HEADER, methods.OWNER_HEADER, methods.CALL_SITE_HEADER, methods.WORKER_HEADER):
        if choices.below(4):
            text = choices.pick(["60", "1e999", "nan", "-1", "0", "%F0%9F%92%A9" * 90, "a b"])
            values.append((key, text if choices.chance() else choices.raw().decode("latin-1")))
    call: Any = _Call(values, choices.pick([None, 1.0, -5.0]), choices.pick(["unix:", "ipv4:127.0.0.1:1", ""]))
    headers = _headers(call)
    metadata = (
        {"timeout_ms": choices.pick(["1", "0", "-1", "1e3", "٣", "9" * 13, "x" * 200])} if choices.chance() else {}
    )
    with refusing(ValueRefused):
        due = deadline_of(metadata, call)
        insist(due is None or due < float("inf"))
    store, session_id = SessionStore(), choices.sendable()
    with refusing(InvalidSession, SnakepitError):
        creator = _creator(call, headers, choices.sendable())
        ttl, owner = _ttl(headers.get(methods.TTL_HEADER)), _owner(headers)
        kept = {choices.sendable(): choices.sendable() for _ in range(choices.below(3))}
        session = wait_for(store.create(session_id, ttl=ttl, owner=owner, metadata=kept, creator=creator))
        insist(0 < session.ttl <= MAX_TTL, session.ttl)
        insist(len(session.owner or "") <= MAX_OWNER)
        insist(len(session.id.encode()) <= 256)
        insist(wait_for(store.stats()).live == 1)
