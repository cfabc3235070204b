"""The cost of one lifecycle point: python -m benchmarks.points.

`SessionStore.get` at 100 000 sessions, bare and observed, and the same observed by plain calls of OpenTelemetry's
SDK. The cases take turns, many short rounds each; the figures are medians of rounds, the bare one of the same round
subtracted or divided by. Telemetry goes to a peer that throws it away.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from benchmarks.worker import serving
from snakepit_otel import SessionStore, telemetry
from snakepit_otel.telemetry import _metric_cells, _switch, names

LIVE, CALLS, ROUNDS = 100_000, 500, 60


async def main() -> None:
    store = SessionStore(max_sessions=float("inf"))
    _switch.set_enabled(False)
    for number in range(LIVE):
        await store.create(f"s{number}")
    _switch.set_enabled(True)
    before = series()
    keys = [f"s{number * 97 % LIVE}" for number in range(CALLS)]
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, case in CASES.items():
            # What one case has left to send is not to be sent during the next.
            FLUSH()
            with case():
                started = time.perf_counter()
                for key in keys:
                    await (stock_get(store, key) if name.startswith("stock") else store.get(key))
                taken[name].append((time.perf_counter() - started) / CALLS * 1e6)
    bare = statistics.median(taken["bare"])
    print(f"SessionStore.get at {LIVE:,} sessions, medians of {ROUNDS} rounds of {CALLS}")
    for name, values in taken.items():
        added = statistics.median(value - base for value, base in zip(values, taken["bare"], strict=True))
        ratio = statistics.median(value / base for value, base in zip(values, taken["bare"], strict=True))
        target = f"   target: at most 2 × + 1 µs = {2 * bare + 1:.2f} µs" if name == "unsampled request" else ""
        print(f"    {name:22} {statistics.median(values):7.2f} µs   {ratio:5.2f} ×   + {added:6.2f} µs{target}")
    print(f"metric series before and after: {before}, {series()}; target: no more by sessions, that is + 1 for get")


def series() -> int:
    return sum(len(of_metric) for _, of_metric in _metric_cells.every())


@contextmanager
def bare() -> Iterator[None]:
    _switch.set_enabled(False)
    try:
        yield
    finally:
        _switch.set_enabled(True)


@contextmanager
def request(sampled: bool) -> Iterator[None]:
    remote = SpanContext(2**127 + 3, 5, True, TraceFlags(int(sampled)))
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
    try:
        with telemetry.Operation(names.REQUEST):
            yield
    finally:
        context.detach(token)


async def stock_get(store: SessionStore, key: str) -> Any:
    started = time.perf_counter()
    attributes = {"snakepit.operation": "access", "session.id": key}
    with STOCK.start_as_current_span("access session", attributes=attributes):
        _switch.set_enabled(False)
        try:
            found = await store.get(key)
        finally:
            _switch.set_enabled(True)
        HISTOGRAM.record(time.perf_counter() - started, {"snakepit.operation": "access"})
    return found


CASES: dict[str, Callable[[], Any]] = {
    "bare": bare,
    "unsampled request": lambda: request(sampled=False),
    "sampled request": lambda: request(sampled=True),
    "stock SDK, unsampled": lambda: request(sampled=False),
    "stock SDK, sampled": lambda: request(sampled=True),
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, serving("sink", f"{directory}/sink.sock"):
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"unix:{directory}/sink.sock"
        os.environ["OTEL_EXPORTER_OTLP_INSECURE"] = "true"
        process = telemetry.setup("benchmark")
        provider = TracerProvider(sampler=ParentBased(root=trace.get_tracer_provider().sampler))  # type: ignore[attr-defined]
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        STOCK = provider.get_tracer("stock")
        HISTOGRAM = MeterProvider().get_meter("stock").create_histogram("snakepit.session.operation.duration")
        FLUSH = lambda: (provider.force_flush(), process.flush())  # noqa: E731
        asyncio.run(main())
        provider.shutdown()
        process.shutdown()
    sys.exit()
