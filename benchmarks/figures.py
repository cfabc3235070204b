"""Lines of the table of local calls: what each measures, its goal, and the figures that benchmarks note for it.

A benchmark that is given `--figures FILE` adds its figures to that file, one JSON object a line; `benchmarks.local`
makes one table of them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.transports import TRANSPORTS


@dataclass(frozen=True)
class Line:
    text: str
    unit: str
    goal: float
    is_least: bool = False  # whether the goal is the least that is wanted, else it is the most

    def reached(self, value: float) -> bool:
        return value >= self.goal if self.is_least else value <= self.goal

    def in_words(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {shown(self.goal, self.unit)}"


LINES = {
    "thread": Line("`Snakepit.execute`, of two bare `grpc.aio` servers", "%", 250, is_least=True),
    "process": Line("the same, profile `process` (one request a worker)", "%", 150, is_least=True),
    "client": Line("`Client` in another process, Unix socket", "%", 150, is_least=True),
    "plain": Line("plain (sync) tools in process", "%", 180, is_least=True),
    "alone": Line("p50 of one call at a time, of bare gRPC's", "×", 0.5),
    "recorded": Line("everything recorded at 100 %, of level off, in process", "%", 85, is_least=True),
    "instructions": Line("a worker's instructions a request, level off", "k", 250),
    "instructions recorded": Line("… added by everything recorded", "k", 60),
    "ray async": Line("`Snakepit.execute` recorded, of awaited calls of async Ray actors", "×", 4, is_least=True),
    "ray sync": Line("… of awaited calls of plain Ray actors", "×", 4, is_least=True),
    "ray async get": Line("… of async Ray actors, by `ray.get` with 64 under way", "×", 4, is_least=True),
    "ray sync get": Line("… of plain Ray actors, by `ray.get` with 64 under way", "×", 4, is_least=True),
    "handed over": Line("hand-over of a reference, after other calls", "ms", 0.5),
    "handed over, rested": Line("hand-over of a reference, after 20 ms of quiet", "ms", 1.0),
    "refused": Line("refusals under 3 × overload through `Client`, p99", "ms", 5),
    "kill storm": Line("kill storm at 300 requests/s, p99", "ms", 150),
    "memory": Line("memory of an idle worker beside the adapter's own", "MiB", 45),
    "grpc": Line("a worker called over gRPC, of a bare server, async tool", "%", 74, is_least=True),
    "soak": Line("soak, growth of the authority after warming up", "MiB", 2),
    "soak workers": Line("soak, growth of a worker after warming up", "MiB", 2),
}


@dataclass(frozen=True)
class Figure:
    line: str
    value: float
    # Quartiles of what the value is the median of; the value itself where it is no median.
    low: float
    high: float

    def text(self) -> str:
        unit = LINES[self.line].unit
        if self.low == self.high:
            return shown(self.value, unit)
        return f"{shown(self.value, unit)} ({number(self.low, unit)} to {number(self.high, unit)})"


def number(value: float, unit: str) -> str:
    """Return a figure as text: whole where it is a share or a number of instructions, else with two digits or more."""
    if unit in ("%", "k") or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def shown(value: float, unit: str) -> str:
    return f"{number(value, unit)} {unit}"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the first quartile, the median and the third; of one value, that value."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def figure_of(line: str, values: Sequence[float]) -> Figure:
    low, middle, high = quartiles(values)
    return Figure(line, middle, low, high)


def option_parser(description: str | None, *, quick: bool = True) -> argparse.ArgumentParser:
    """Return a parser of the options that benchmarks of local calls share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, help="a file that the figures of the table are added to, as JSON lines")
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0], help="between processes of ours")
    if quick:
        parser.add_argument("--quick", action="store_true", help="fewer and shorter bursts: to try it, not to quote it")
    return parser


def note(file: Path | None, figures: Iterable[Figure]) -> None:
    """Add figures to the file, where one is given."""
    if file is not None:
        with file.open("a") as lines:
            lines.writelines(json.dumps(asdict(figure)) + "\n" for figure in figures)


def noted(file: Path) -> dict[str, Figure]:
    """Return the figures of a file by line; the later one where a line has two."""
    found = (Figure(**json.loads(line)) for line in file.read_text().splitlines())
    return {figure.line: figure for figure in found}


def table(figures: dict[str, Figure]) -> Iterator[str]:
    """Yield the table as Markdown: every line with its figure, its goal, and whether that is reached."""
    yield "| line | figure (quartiles) | goal | reached |"
    yield "| --- | --- | --- | --- |"
    for name, line in LINES.items():
        figure = figures.get(name)
        if figure is None or math.isnan(figure.value):
            text, reached = "not measured", ""
        else:
            text, reached = figure.text(), "yes" if line.reached(figure.value) else "no"
        yield f"| {line.text} | {text} | {line.in_words()} | {reached} |"
