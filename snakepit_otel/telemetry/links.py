"""Links between traces that belong together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from opentelemetry.trace import Span, SpanContext, TraceFlags


class Trail:
    """Links each span of a lifecycle point to the one before it with the same key.

    `key` is called with the arguments of the call; an empty one has no trail. The last of the 10 000 most
    recent keys are remembered, and only spans that are recorded count.
    """

    def __init__(self, key: Callable[..., str | None], most: int = 10_000) -> None:
        self.key = key
        self._most = most
        self._last: OrderedDict[str, SpanContext] = OrderedDict()

    def step(self, key: str, span: Span) -> SpanContext | None:
        """Return the span before this one, and remember this one."""
        before = self._last.pop(key, None)
        self._last[key] = span.get_span_context()
        if len(self._last) > self._most:
            self._last.popitem(last=False)
        return before


def links_to(traces: Iterable[str | None], most: int = 32) -> list[SpanContext]:
    """Return links to spans named as `current_trace` names them, to each once, and to so many at most."""
    found: list[SpanContext] = []
    for name in dict.fromkeys(traces):
        if name is not None and len(found) < most:
            trace_id, _, span_id = name.partition("-")
            found.append(SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(TraceFlags.SAMPLED)))
    return found
