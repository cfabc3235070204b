"""Single numbers: large ones with their course behind them, and bars for ranking."""

from __future__ import annotations

import math

from dashboards.previews.canvas import SMALL, Box, Canvas, Font, evenly
from dashboards.previews.panels import Panel
from dashboards.previews.results import Found, Results, Series, with_gaps

_LARGEST = 40
_BAR = 28


def draw_stat(canvas: Canvas, box: Box, panel: Panel, found: Found, results: Results) -> None:
    """Draw a panel of the type stat, with a column for each series."""
    for series, column in zip(found.series, evenly(box, len(found.series)), strict=True):
        _large(canvas, column, panel, series, results, named=len(found.series) > 1)


def _large(canvas: Canvas, box: Box, panel: Panel, series: Series, results: Results, *, named: bool) -> None:
    look = panel.look(series.name, series.ref)
    mapped = panel.mapped(series.last)
    words = mapped[0] if mapped else look.written(series.last)
    colour = panel.shade(canvas.theme, series.last, look)
    if panel.options.get("graphMode", "area") == "area" and len(series.times) > 1:
        _sparkline(canvas, box.without(top=box.height * 0.6), series, results, colour)
        box = box.without(bottom=box.height * 0.35)
    x, y = box.middle
    size = _LARGEST
    if named:
        canvas.text((x, box.y + 4), look.name, SMALL, across="center", within=box.width - 8)
        y, size = y + 8, 30
    while size > 14 and canvas.measure(words, Font(size, bold=True)) > box.width - 20:
        size -= 2
    canvas.text((x, y), words, Font(size, bold=True), colour, across="center", within=box.width)


def _sparkline(canvas: Canvas, box: Box, series: Series, results: Results, colour: str) -> None:
    times, values = with_gaps(series, results.step)
    there = [value for value in values if math.isfinite(value)]
    if not there:
        return
    low, high = min(0.0, *there), max(there)
    axes = canvas.axes(box)
    axes.set_xlim(results.start, results.end)
    axes.set_ylim(low, low + ((high - low) or 1) * 1.1)
    axes.plot(times, values, color=colour, linewidth=0.9, alpha=0.8)
    axes.fill_between(times, low, values, color=colour, alpha=0.18, linewidth=0)


def draw_bars(canvas: Canvas, box: Box, panel: Panel, found: Found, _results: Results) -> None:
    """Draw a panel of the type bargauge, lying, with a bar for each series."""
    theme = canvas.theme
    room = max(1, int(box.height // (_BAR * 0.72)))
    shown = found.series[: room if len(found.series) <= room else room - 1]
    looks = [panel.look(series.name, series.ref) for series in shown]
    said = [look.written(series.last) for look, series in zip(looks, shown, strict=True)]
    names = min(max(canvas.measure(look.name, SMALL) for look in looks) + 12, box.width * 0.45)
    values = max(canvas.measure(words, Font(13, bold=True)) for words in said) + 10
    most = panel.defaults.get("max")
    whole = float(most) if most is not None else max([*(one.last for one in shown if math.isfinite(one.last)), 0])
    least = float(panel.defaults.get("min") or 0)
    each = min(_BAR * 1.6, box.height / (len(shown) + (len(shown) < len(found.series))))
    for row, (series, look, words) in enumerate(zip(shown, looks, said, strict=True)):
        line = Box(box.x, box.y + row * each, box.width, each)
        colour = panel.shade(theme, series.last, look)
        canvas.text((line.x, line.middle[1]), look.name, SMALL, within=names - 8)
        track = line.without(left=names, right=values, top=3, bottom=3)
        canvas.rectangle(track, theme.ground)
        part = (series.last - least) / (whole - least) if whole > least and math.isfinite(series.last) else 0
        filled = Box(track.x, track.y, track.width * min(max(part, 0), 1), track.height)
        canvas.rectangle(filled, colour, alpha=0.35)
        canvas.line((filled.right, track.y), (filled.right, track.bottom), colour, 2)
        canvas.text((line.right, line.middle[1]), words, Font(13, bold=True), colour, across="right")
    if len(shown) < len(found.series):
        y = box.y + (len(shown) + 0.5) * each
        canvas.text((box.x, y), f"… and {len(found.series) - len(shown)} more", SMALL, theme.faint)
