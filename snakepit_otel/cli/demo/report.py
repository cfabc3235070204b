"""Report of the demo: one request's trace, the batch's trace, and the metrics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from snakepit_otel.cli.output import line, styled
from snakepit_otel.telemetry import names
from snakepit_otel.testing import OtlpSink, Span

_SHOWN = {
    names.REQUEST.span: (names.SESSION_ID, names.SNAKEPIT_TOOL_NAME),
    names.POOL_DISPATCH.span: (names.SNAKEPIT_WORKER_ID, names.SNAKEPIT_AFFINITY_OUTCOME),
    names.CALLBACK.span: (names.SNAKEPIT_TOOL_NAME,),
    names.ZERO_COPY_CREATE.span: (
        names.SNAKEPIT_ZERO_COPY_OWNER,
        names.SNAKEPIT_ZERO_COPY_DTYPE,
        names.SNAKEPIT_ZERO_COPY_SHAPE,
        names.SNAKEPIT_ZERO_COPY_SIZE,
    ),
    names.ZERO_COPY_RELEASE.span: (names.SNAKEPIT_ZERO_COPY_OWNER, names.SNAKEPIT_ZERO_COPY_RELEASE_REASON),
}
_SAME_EVERYWHERE = (names.RPC_SYSTEM_NAME, names.TABLE_NAME, names.STRICT_MODE, names.SNAKEPIT_POOL_NAME)


def pick_trace(sink: OtlpSink) -> list[Span]:
    """Return the spans of one ordinary request that was answered: the one of median length."""
    by_trace = _by_trace(sink)
    whole = [
        spans
        for spans in by_trace.values()
        if any(span.parent_id is None and span.name == names.REQUEST.span for span in spans)
        and any(span.name == names.ADAPTER_CLEANUP.span for span in spans)
        and all(span.ok for span in spans)
    ]
    whole.sort(key=lambda spans: max(span.milliseconds for span in spans))
    return whole[len(whole) // 2] if whole else []


def trace_of(sink: OtlpSink, root: str) -> list[Span]:
    """Return the spans of the trace that begins with a span of this name."""
    for spans in _by_trace(sink).values():
        if any(span.parent_id is None and span.name == root for span in spans):
            return spans
    return []


@dataclass(frozen=True)
class Crossing:
    """Transfer of a reference's bytes to the side that did not create it."""

    owner: str
    size: int
    transport: str
    milliseconds: float


def crossings(sink: OtlpSink, spans: list[Span]) -> list[Crossing]:
    """Return the transfers of the references that were created in a trace, by their import events."""
    created = {span.attributes.get(names.SNAKEPIT_ZERO_COPY_REFERENCE_ID) for span in spans}
    return [
        Crossing(
            event.attributes[names.SNAKEPIT_ZERO_COPY_OWNER],
            event.attributes["size"],
            event.attributes[names.SNAKEPIT_ZERO_COPY_TRANSPORT],
            event.attributes["duration"] * 1000,
        )
        for event in sink.events
        if event.name == names.EVENT_ZERO_COPY_IMPORT.name
        and event.attributes[names.SNAKEPIT_ZERO_COPY_REFERENCE_ID] in created
    ]


def show_trace(console: Console, spans: list[Span]) -> None:
    """Print a trace as a tree, each span with its time, its process and its main attributes."""
    children: dict[str | None, list[Span]] = defaultdict(list)
    known = {span.span_id for span in spans}
    for span in sorted(spans, key=lambda span: span.start):
        children[span.parent_id if span.parent_id in known else None].append(span)

    def grow(branch: Tree, parent: str | None) -> None:
        for span in children[parent]:
            grow(branch.add(_line(span)), span.span_id)

    if not spans:
        console.print("no whole trace arrived")
        return
    root = Tree(line(f"trace {spans[0].trace_id}", "bold"), guide_style="dim")
    grow(root, None)
    console.print(root)


def show_metrics(console: Console, sink: OtlpSink) -> None:
    """Print every metric that arrived, added up over processes."""
    series: dict[str, dict[str, _Total]] = defaultdict(lambda: defaultdict(_Total))
    for point in sink.points:
        attributes_text = ", ".join(
            str(value).rpartition("/")[2] for key, value in point.attributes if key not in _SAME_EVERYWHERE
        )
        total = series[point.metric][attributes_text]
        total.value += point.value
        total.count += point.count or 0
        total.is_histogram = point.count is not None
        total.unit = point.unit
    table = Table("metric, attributes", "value", "mean", box=None, pad_edge=False, show_header=False)
    for metric in sorted(series):
        unit = next(iter(series[metric].values())).unit
        table.add_row(styled((metric, "bold"), " ", (unit, "dim")))
        for attributes_text, total in sorted(series[metric].items()):
            table.add_row(f"    {attributes_text or '-'}", *total.shown())
    console.print(table)


def _by_trace(sink: OtlpSink) -> dict[str, list[Span]]:
    by_trace: dict[str, list[Span]] = defaultdict(list)
    for span in sink.spans:
        by_trace[span.trace_id].append(span)
    return by_trace


@dataclass
class _Total:
    """One series, added up."""

    value: float = 0.0
    count: int = 0
    is_histogram: bool = False
    unit: str = ""

    def shown(self) -> tuple[str, str]:
        if not self.is_histogram:
            return f"{self.value:g}", ""
        mean = self.value / self.count if self.count else 0.0
        shown = f"mean {1000 * mean:.2f} ms" if self.unit == "s" else f"mean {mean:,.0f} {self.unit}"
        return f"{self.count} ×", shown if self.count else ""


def _line(span: Span) -> Text:
    side = "worker" if span.service.endswith("worker") else "authority"
    kind, _, method = span.name.rpartition("/")
    name = f"rpc {method}" if kind else span.name
    wanted = _SHOWN.get(span.name, ())
    attributes = {key.removeprefix("snakepit.").removeprefix("zero_copy."): span.attributes.get(key) for key in wanted}
    attributes_text = "  ".join(f"{key}={value}" for key, value in attributes.items() if value is not None)
    return styled(
        f"{name}  ", (f"{span.milliseconds:.2f} ms", "cyan"), "  ", (side, "magenta"), "  ", (attributes_text, "dim")
    )
