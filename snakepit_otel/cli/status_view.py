"""View of an authority's status in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from snakepit_otel.bridge.wire.status import PoolStatus, Status, ToolStatus, WorkerStatus
from snakepit_otel.cli.output import line

_NARROW = 60
_WIDE = 90
_STYLES = {
    "ready": "green",
    "spare": "cyan",
    "starting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "closed": "green",
    "half_open": "yellow",
    "open": "bold red",
}


class StatusView:
    """A status as text and tables, with fewer columns the narrower the terminal is."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts, for rich."""
        yield _pairs(_of_server(self._status))
        for pool in self._status.pools:
            yield ""
            yield _pairs(_of_pool(pool))
            if pool.workers:
                yield ""
                yield _workers(pool, options.max_width)
            if options.max_width < _WIDE:
                for worker in pool.workers:
                    if remarks := _remarks(worker):
                        yield line(f"{worker.id}: {remarks}", style="yellow")


class ToolsView:
    """The calls of each tool as a table, with fewer columns the narrower the terminal is."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts, for rich."""
        yield _pairs(_of_server(self._status))
        yield ""
        yield _tools(self._status.tools, options.max_width)


class Screenful:
    """Renderable that is cut to the terminal's height, with the number of hidden lines."""

    def __init__(self, *parts: RenderableType) -> None:
        self._parts = Group(*parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines, for rich."""
        lines = console.render_lines(self._parts, options.update(height=None))
        hidden = len(lines) - console.height + 1
        if hidden > 1:
            more = line(f"… {hidden} more lines than fit", "bold")
            more.no_wrap, more.overflow = True, "ellipsis"
            lines[console.height - 1 :] = console.render_lines(more, options.update(height=None))
        for row in lines:
            yield from row
            yield Segment.line()


def _pairs(lines: Iterator[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(line(name, style="bold"), text)
    return table


def _of_server(status: Status) -> Iterator[tuple[str, Text]]:
    about = f"{status.version}, pid {status.pid}, up {duration(status.uptime_seconds)}, run {status.run_id}"
    if status.telemetry_level:
        about += f", telemetry {status.telemetry_level}"
    yield "server", _joined(line(about), line("stopping", style="bold yellow") if status.stopping else None)
    if status.listeners:
        listeners = (f"{listener.address} ({listener.transport})" for listener in status.listeners)
        yield "listeners", line(", ".join(listeners))
    sessions = status.sessions
    quota = "" if math.isinf(sessions.max_sessions) else f" of {sessions.max_sessions:.0f}"
    yield (
        "sessions",
        _joined(
            line(
                f"{sessions.live}{quota} live, {size(sessions.memory_bytes)}; {sessions.created} created, "
                f"{sessions.deleted} deleted, {sessions.pruned_ttl} expired, {sessions.pruned_overflow} evicted, "
                f"{sessions.rejected} rejected"
                + (f" ({sessions.rejected_per_owner} at their owner's quota)" if sessions.rejected_per_owner else "")
                + (", strict mode" if status.strict_mode else "")
                + (f"; store {sessions.store}" if sessions.store and not sessions.store.startswith("memory-") else "")
            ),
            line("the store does not answer", style="bold red") if sessions.store_is_away else None,
        ),
    )


def _of_pool(pool: PoolStatus) -> Iterator[tuple[str, Text]]:
    yield "pool", _joined(line(pool.name, style="bold"), line(f"{pool.adapter}, {pool.profile}, {pool.affinity}"))
    ready = sum(worker.state == "ready" for worker in pool.workers)
    spares = sum(worker.state == "spare" for worker in pool.workers)
    short = "bold red" if not ready else "yellow" if ready < pool.size else ""
    yield (
        "workers",
        _joined(
            line(f"{ready} of {pool.size} ready", style=short),
            line(f"{spares} of {pool.spares} spare", style="yellow" if spares < pool.spares else "")
            if pool.spares
            else None,
            line(f"{pool.busy_slots} of {pool.ready_slots} slots busy"),
            line(f"none is started for {duration(pool.start_blocked_seconds)}, too many died", style="bold red")
            if pool.start_blocked_seconds
            else None,
        ),
    )
    yield (
        "queue",
        _joined(
            line(f"{pool.queue_length} of {pool.queue_limit}"),
            line(f"the first for {duration(pool.queue_oldest_seconds)}") if pool.queue_length else None,
            line(f"about {duration(pool.service_seconds)} a request") if pool.service_seconds else None,
        ),
    )
    yield (
        "breaker",
        _joined(
            line(pool.breaker.replace("_", " "), style=_STYLES.get(pool.breaker, "")),
            line(f"tries again in {duration(pool.breaker_retry_seconds)}") if pool.breaker == "open" else None,
        ),
    )
    rejected = ", ".join(f"{reason} {count}" for reason, count in sorted(pool.rejected.items()) if count)
    yield (
        "requests",
        line(
            f"{pool.answered} answered, {pool.raised} of them raised, {pool.failed} failed, "
            f"{sum(pool.rejected.values())} rejected"
            + (f" ({rejected})" if rejected else "")
            + f", {pool.retried} retried; {pool.restarts} workers replaced"
        ),
    )


def _workers(pool: PoolStatus, width: int) -> Table:
    table = Table(box=None)
    table.add_column("worker", overflow="fold")
    table.add_column("state")
    table.add_column("active", justify="right")
    if width >= _NARROW:
        for name in ("requests", "age", "memory"):
            table.add_column(name, justify="right", no_wrap=True)
    if width >= _WIDE:
        for name in ("heartbeat", "slot", "pid"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
    for worker in pool.workers:
        cells = [
            line(worker.id),
            line(worker.state, style=_STYLES.get(worker.state, "")),
            line(f"{worker.active}/{pool.concurrency}"),
        ]
        if width >= _NARROW:
            memory = "-" if worker.memory_bytes is None else size(worker.memory_bytes)
            cells += [line(str(worker.requests)), line(duration(worker.age_seconds)), line(memory)]
        if width >= _WIDE:
            beat = "-" if worker.heartbeat_age_seconds is None else duration(worker.heartbeat_age_seconds)
            cells += [line(beat), line(str(worker.slot)), line(str(worker.pid or "-"))]
            cells.append(line(_remarks(worker), style="yellow"))
        table.add_row(*cells)
    return table


def _tools(tools: Sequence[ToolStatus], width: int) -> Table:
    columns = ["calls", "raised"]
    if width >= _NARROW:
        columns += ["refused", "p50", "p95"]
    if width >= _WIDE:
        columns += ["failed", "retried"]
    table = Table(box=None)
    table.add_column("tool", overflow="fold")
    if width >= _NARROW:
        table.add_column("pool", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for tool in tools:
        cells = {
            "calls": line(str(tool.calls)),
            "raised": line(str(tool.raised), style="bold red" if tool.raised else ""),
            "refused": line(str(tool.refused), style="yellow" if tool.refused else ""),
            "failed": line(str(tool.failed), style="bold red" if tool.failed else ""),
            "retried": line(str(tool.retried), style="yellow" if tool.retried else ""),
            "p50": line(_latency(tool.p50_seconds)),
            "p95": line(_latency(tool.p95_seconds)),
        }
        where = [line(tool.pool or "(authority)")] if width >= _NARROW else []
        table.add_row(line(tool.name), *where, *(cells[name] for name in columns))
    return table


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.2g} ms" if seconds < 0.01 else duration(seconds)


def _remarks(worker: WorkerStatus) -> str:
    late = f"{worker.missed_heartbeats} beats late" if worker.missed_heartbeats else ""
    suspect = worker.suspect and f"suspect: {worker.suspect}"
    return ", ".join(remark for remark in (suspect, late, worker.transport) if remark)


def _joined(*parts: Text | None) -> Text:
    return Text(", ").join(part for part in parts if part is not None)


def duration(seconds: float) -> str:
    """Return seconds as text, with two units at most."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 10:
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 60 * 24:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (60 * 24)} d {minutes // 60 % 24} h"


def size(count: float) -> str:
    """Return a number of bytes as text."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
