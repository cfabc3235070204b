"""Links between traces that belong together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from opentelemetry.trace import Span, SpanContext, TraceFlags

_MAX_KEY_CHARACTERS = 256


class Trail:
    """Links each span of a lifecycle point to the one before it with the same key.

    `key` is called with the arguments of the call. Empty keys, and those of more than 256 characters, have no trail.
    The spans of the `limit` most recent keys are kept; only recorded spans count.
    """

    def __init__(self, key: Callable[..., str | None], limit: int = 10_000) -> None:
        self.key = key
        self._limit = limit
        self._last: OrderedDict[str, SpanContext] = OrderedDict()

    def step(self, key: str, span: Span) -> SpanContext | None:
        """Return the previous span of the key, and keep this one."""
        if len(key) > _MAX_KEY_CHARACTERS:
            return None
        before = self._last.pop(key, None)
        self._last[key] = without_state(span.get_span_context())
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        return before


def without_state(identity: SpanContext) -> SpanContext:
    """Return a span's identity without its trace state, of which a caller may send several KiB."""
    if not identity.trace_state:
        return identity
    return SpanContext(identity.trace_id, identity.span_id, identity.is_remote, identity.trace_flags)


def links_to(traces: Iterable[str | None], limit: int = 32) -> list[SpanContext]:
    """Return links to spans, given as `current_trace` returns them: to each once, and to `limit` at most."""
    found: list[SpanContext] = []
    for name in dict.fromkeys(traces):
        if name is not None and len(found) < limit:
            trace_id, _, span_id = name.partition("-")
            found.append(SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(TraceFlags.SAMPLED)))
    return found
