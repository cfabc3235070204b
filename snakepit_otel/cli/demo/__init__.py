"""`snakepit-otel demo`: a real job in front of your eyes, with everything that goes wrong in a day."""

from __future__ import annotations

import logging
import os
import time
from importlib.util import find_spec

from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from snakepit_otel import telemetry
from snakepit_otel.app import Snakepit
from snakepit_otel.cli.demo import report, workload
from snakepit_otel.cli.demo.adapter import DigitReader
from snakepit_otel.cli.output import console, lines, run, styled
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.testing import OtlpSink


def demo() -> None:
    """Read handwritten digits on two workers, watch sessions come, leak and go, and pass a batch by reference.

    Trains a classifier on scikit-learn's digits (install snakepit-otel[demo]). Takes less than a minute.
    """
    run(_demo)


async def _demo() -> None:
    if find_spec("sklearn") is None:
        raise ConfigurationError("the demo needs scikit-learn: pip install 'snakepit-otel[demo]'")
    logging.getLogger("snakepit_otel").addHandler(_Panels())
    logging.getLogger("snakepit_otel").propagate = False
    with OtlpSink() as sink:
        # For this process and, by inheritance, its workers.
        os.environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        process = telemetry.setup("snakepit-authority")
        try:
            batch = await _run_the_day()
        finally:
            process.shutdown()
        _head("9. One request, as its trace tells it")
        report.show_trace(console, report.pick_trace(sink))
        _head("10. The batch, as its trace tells it")
        _show_batch(sink, batch)
        _head("11. The metrics of all processes")
        report.show_metrics(console, sink)
        _say(f"\n   {len(sink.spans)} spans and {len(sink.events)} events arrived over OTLP.")
    _head("What next")
    _say("   The demo received its telemetry itself. To see yours in Grafana, Jaeger or any other backend:")
    _say("   OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 snakepit-otel serve your.module:YourAdapter")


async def _run_the_day() -> workload.Batch:
    _head("1. Start an authority and two workers")
    started = time.perf_counter()
    pit = Snakepit(
        adapter=DigitReader,
        # A new worker trains its model with its first request, which may take its time.
        pool={"size": 2, "queue_timeout": 60_000},
        session_store={
            "max_sessions": workload.MAX_SESSIONS,
            "overflow": "evict",
            "strict_mode": True,
            "cleanup_interval": 500,
        },
    )
    async with pit:
        ids = ", ".join(f"{worker.id} (pid {worker.pid})" for worker in pit.pool.workers)
        _say(f"   ready after {time.perf_counter() - started:.2f} s: {ids}")
        started = time.perf_counter()
        model = await workload.warm_up(pit)
        _say(f"   each has trained its model in {time.perf_counter() - started:.2f} s: {model}")

        _head(f"2. {workload.VISITORS} visitors look in once; their sessions live {workload.VISITOR_TTL:g} s")
        await workload.receive_visitors(pit)
        _head(f"3. {workload.REQUESTS} images for {workload.CUSTOMERS} customers; a worker is killed on the way")
        _tell(await _serve_customers(pit))
        history = await pit.sessions.get_state("customer-00", "history")
        _say(f"   customer-00's history, kept in its session by both workers:\n   {history}")
        _head(f"4. {workload.BATCH:,} more images in one request, by reference")
        batch = await workload.read_batch(pit)
        _say(
            f"   {batch.given:,} bytes of images there and {batch.returned:,} bytes of scores back "
            f"in {batch.seconds:.2f} s; {batch.right:.1%} of them read right"
        )

        _head("5. All workers are replaced, and another one is killed, under idempotent requests")
        _tell_of_restart(await workload.replace_workers(pit))
        _head("6. The visitors' sessions expire")
        await workload.wait_for_pruning(pit)
        stats = pit.sessions.stats_snapshot()
        _say(f"   pruned by TTL: {stats.pruned_ttl}; live: {stats.live}")

        _head("7. Somebody opens sessions and forgets them, up to the quota and beyond")
        before = {session.id for session in await pit.sessions.list()}
        await workload.open_tabs_and_forget_them(pit)
        gone = before - {session.id for session in await pit.sessions.list()}
        _say(f"   evicted to make room, least recently used: {', '.join(sorted(gone)) or 'none'}")
        _head("8. The ledger")
        stats = await pit.sessions.stats()
        _say(
            f"   {stats.created} created - {stats.deleted} deleted - {stats.pruned_ttl} expired "
            f"- {stats.pruned_overflow} evicted = {stats.live} live, {stats.memory_bytes} bytes"
        )
    return batch


def _show_batch(sink: OtlpSink, batch: workload.Batch) -> None:
    spans = report.trace_of(sink, workload.BATCH_SPAN)
    report.show_trace(console, spans)
    crossed = report.crossings(sink, spans)
    for one in sorted(crossed, key=lambda one: one.owner):
        what = "the worker opened the images" if one.owner == "elixir" else "the caller opened the scores"
        _say(f"   {what} in {one.milliseconds:.2f} ms: {one.size:,} bytes, transport {one.transport}")
    shared = sum(one.size for one in crossed if one.transport == "shm")
    copied = sum(one.size for one in crossed if one.transport != "shm")
    _say(f"   {shared:,} bytes were shared, {copied:,} were copied over gRPC;")
    _say(f"   what crossed it in place of the images is their description, {batch.described} bytes of JSON")


async def _serve_customers(pit: Snakepit) -> workload.Findings:
    columns = TextColumn("   reading digits"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=workload.REQUESTS)
        return await workload.serve_customers(pit, lambda: progress.advance(bar))


def _tell(found: workload.Findings) -> None:
    rate, right = found.answered / found.seconds, found.right / found.answered
    _say(f"   {found.answered} answered in {found.seconds:.1f} s ({rate:.0f} a second), {right:.1%} of them read right")
    _say(
        f"   killed {found.killed}: {len(found.lost)} requests failed with it, the first after "
        f"{found.first_error_after * 1000:.0f} ms;\n"
        f"   {found.replacement} took its place after {found.replaced_after:.2f} s"
    )
    for error in found.lost[:1]:
        _say(f"   {type(error).__name__}: {error}", "dim")


def _tell_of_restart(found: workload.Restart) -> None:
    _say(f"   {found.replaced} workers were replaced, one after the other, each once its successor was ready")
    _say(
        f"   {found.answered} requests were answered meanwhile, all that were made; {found.retried} of them had lost "
        f"their worker\n   and ran again elsewhere"
    )


def _head(text: str) -> None:
    _say(f"\n{text}", "bold")


def _say(text: str, style: str = "") -> None:
    console.print(lines(text, style), soft_wrap=True)


class _Panels(logging.Handler):
    """Shows warnings where they happen."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        style = "red" if record.levelno >= logging.ERROR else "yellow"
        title = styled(f"{record.levelname} {record.name}")
        console.print(Panel(lines(record.getMessage()), title=title, border_style=style, expand=False))
