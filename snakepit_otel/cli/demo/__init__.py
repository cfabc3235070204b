"""`snakepit-otel demo`: a job on two workers, with a crash, a leak and a restart."""

from __future__ import annotations

import logging
import os
import time
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from snakepit_otel import telemetry
from snakepit_otel.app import Snakepit
from snakepit_otel.cli.demo import report, workload
from snakepit_otel.cli.demo.adapter import DigitReader
from snakepit_otel.cli.output import console, lines, run, styled
from snakepit_otel.cli.session_store import url_of
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.testing import OtlpSink


def demo(
    store: Annotated[
        str | None,
        typer.Option(
            help="Where sessions are kept: a SQLite FILE, or a URL as in session_store.url.", show_default="memory"
        ),
    ] = None,
) -> None:
    """Read handwritten digits on two workers, watch sessions come, leak and go, and pass a batch by reference.

    Trains a classifier on scikit-learn's digits (install snakepit-otel[demo]). Takes less than a minute.
    """
    run(lambda: _demo(store))


async def _demo(store: str | None) -> None:
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
            batch = await _run_the_day(store)
        finally:
            process.shutdown()
        _print_heading("9. The trace of one request")
        report.show_trace(console, report.pick_trace(sink))
        _print_heading("10. The trace of the batch")
        _show_batch(sink, batch)
        _print_heading("11. The metrics of all processes")
        report.show_metrics(console, sink)
        _print(f"\n   {len(sink.spans)} spans and {len(sink.events)} events arrived over OTLP.")
    _print_heading("What next")
    _print("   The demo received its own telemetry. To see yours in Grafana, Jaeger or any other backend:")
    _print("   OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 snakepit-otel serve your.module:YourAdapter")


async def _run_the_day(store: str | None) -> workload.Batch:
    _print_heading("1. Start an authority and two workers")
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
            "url": None if store is None else url_of(store),
        },
    )
    async with pit:
        ids = ", ".join(f"{worker.id} (pid {worker.pid})" for worker in pit.pool.workers)
        _print(f"   ready after {time.perf_counter() - started:.2f} s: {ids}")
        started = time.perf_counter()
        model = await workload.warm_up(pit)
        _print(f"   each has trained its model in {time.perf_counter() - started:.2f} s: {model}")

        _print_heading(f"2. {workload.VISITORS} visitors look in once; their sessions live {workload.VISITOR_TTL:g} s")
        await workload.receive_visitors(pit)
        _print_heading(
            f"3. {workload.REQUESTS} images for {workload.CUSTOMERS} customers; a worker is killed on the way"
        )
        _print_findings(await _serve_customers(pit))
        history = await pit.sessions.get_state("customer-00", "history")
        _print(f"   customer-00's history, kept in its session by both workers:\n   {history}")
        _print_heading(f"4. {workload.BATCH:,} more images in one request, by reference")
        batch = await workload.read_batch(pit)
        _print(
            f"   {batch.given:,} bytes of images there and {batch.returned:,} bytes of scores back "
            f"in {batch.seconds:.2f} s; {batch.right:.1%} of them read right"
        )

        _print_heading("5. All workers are replaced, and another one is killed, under idempotent requests")
        _print_restart(await workload.replace_workers(pit))
        _print_heading("6. The visitors' sessions expire")
        await workload.wait_for_pruning(pit)
        stats = pit.sessions.stats_snapshot()
        _print(f"   pruned by TTL: {stats.pruned_ttl}; live: {stats.live}")

        _print_heading("7. Somebody opens sessions and forgets them, up to the quota and beyond")
        before = {session.id for session in await pit.sessions.list()}
        await workload.leak_sessions(pit)
        gone = before - {session.id for session in await pit.sessions.list()}
        _print(f"   evicted to make room, least recently used: {', '.join(sorted(gone)) or 'none'}")
        _print_heading("8. The ledger")
        stats = await pit.sessions.stats()
        _print(
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
        _print(f"   {what} in {one.milliseconds:.2f} ms: {one.size:,} bytes, transport {one.transport}")
    shared = sum(one.size for one in crossed if one.transport == "shm")
    copied = sum(one.size for one in crossed if one.transport != "shm")
    _print(f"   {shared:,} bytes were shared, {copied:,} were copied over gRPC;")
    _print(f"   what crossed it in place of the images is their description, {batch.described} bytes of JSON")


async def _serve_customers(pit: Snakepit) -> workload.Findings:
    columns = TextColumn("   reading digits"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=workload.REQUESTS)
        return await workload.serve_customers(pit, lambda: progress.advance(bar))


def _print_findings(found: workload.Findings) -> None:
    rate, right = found.answered / found.seconds, found.right / found.answered
    _print(
        f"   {found.answered} answered in {found.seconds:.1f} s ({rate:.0f} a second), {right:.1%} of them read right"
    )
    _print(
        f"   killed {found.killed}: {len(found.lost)} requests failed with it, the first after "
        f"{found.first_error_after * 1000:.0f} ms;\n"
        f"   {found.replacement} took its place after {found.replaced_after:.2f} s"
    )
    for error in found.lost[:1]:
        _print(f"   {type(error).__name__}: {error}", "dim")


def _print_restart(found: workload.Restart) -> None:
    _print(f"   {found.replaced} workers were replaced, one after the other, each once its successor was ready")
    _print(
        f"   {found.answered} requests were answered meanwhile, all that were made; {found.retried} of them had lost "
        f"their worker\n   and ran again elsewhere"
    )


def _print_heading(text: str) -> None:
    _print(f"\n{text}", "bold")


def _print(text: str, style: str = "") -> None:
    console.print(lines(text, style), soft_wrap=True)


class _Panels(logging.Handler):
    """Handler that prints warnings as panels."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = "red" if record.levelno >= logging.ERROR else "yellow"
        title = styled(f"{record.levelname} {record.name}")
        console.print(Panel(lines(record.getMessage()), title=title, border_style=style, expand=False))
