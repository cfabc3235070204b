"""What the demo shows at its end: one request's trace, and the metrics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from snakepit_otel.telemetry import names
from snakepit_otel.testing import OtlpSink, Span

_SHOWN = {
    names.REQUEST.span: (names.SESSION_ID, names.SNAKEPIT_TOOL_NAME),
    names.POOL_DISPATCH.span: (names.SNAKEPIT_WORKER_ID, names.SNAKEPIT_AFFINITY_OUTCOME),
    names.CALLBACK.span: (names.SNAKEPIT_TOOL_NAME,),
}
_SAME_EVERYWHERE = (names.RPC_SYSTEM_NAME, names.TABLE_NAME, names.STRICT_MODE, names.SNAKEPIT_POOL_NAME)


def pick_trace(sink: OtlpSink) -> list[Span]:
    """Return the spans of one ordinary request that was answered: the one of median length."""
    by_trace: dict[str, list[Span]] = defaultdict(list)
    for span in sink.spans:
        by_trace[span.trace_id].append(span)
    whole = [
        spans
        for spans in by_trace.values()
        if any(span.parent_id is None and span.name == names.REQUEST.span for span in spans)
        and any(span.name == names.ADAPTER_CLEANUP.span for span in spans)
        and all(span.ok for span in spans)
    ]
    whole.sort(key=lambda spans: max(span.milliseconds for span in spans))
    return whole[len(whole) // 2] if whole else []


def show_trace(console: Console, spans: list[Span]) -> None:
    """Print a trace as a tree, each span with its process, its time and what it says."""
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
    root = Tree(f"[bold]trace {spans[0].trace_id}[/]", guide_style="dim")
    grow(root, None)
    console.print(root)


def show_metrics(console: Console, sink: OtlpSink) -> None:
    """Print every metric that arrived, added up over processes."""
    series: dict[str, dict[str, _Total]] = defaultdict(lambda: defaultdict(_Total))
    for point in sink.points:
        about = ", ".join(
            str(value).rpartition("/")[2] for key, value in point.attributes if key not in _SAME_EVERYWHERE
        )
        total = series[f"{point.metric} [dim]{point.unit}[/]"][about]
        total.value += point.value
        total.count += point.count or 0
        total.is_histogram = point.count is not None
    table = Table("metric, attributes", "value", "mean", box=None, pad_edge=False, show_header=False)
    for metric in sorted(series):
        table.add_row(f"[bold]{metric}[/]")
        for about, total in sorted(series[metric].items()):
            table.add_row(f"    {escape(about) or '-'}", *total.shown())
    console.print(table)


@dataclass
class _Total:
    """One series, added up."""

    value: float = 0.0
    count: int = 0
    is_histogram: bool = False

    def shown(self) -> tuple[str, str]:
        if not self.is_histogram:
            return f"{self.value:g}", ""
        return f"{self.count} ×", f"mean {1000 * self.value / self.count:.2f} ms" if self.count else ""


def _line(span: Span) -> str:
    side = "worker" if span.service.endswith("worker") else "authority"
    kind, _, method = span.name.rpartition("/")
    name = f"rpc {method}" if kind else span.name
    wanted = _SHOWN.get(span.name, ())
    about = "  ".join(
        f"{key.removeprefix('snakepit.')}={span.attributes[key]}" for key in wanted if key in span.attributes
    )
    return f"{escape(name)}  [cyan]{span.milliseconds:.2f} ms[/]  [magenta]{side}[/]  [dim]{escape(about)}[/]"
