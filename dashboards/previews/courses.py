"""Courses over time: lines, or areas one upon the other, with lines at thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from dashboards.previews.axes import names_below, round_numbers, spread, times_below
from dashboards.previews.canvas import SMALL, Box, Canvas
from dashboards.previews.panels import Panel
from dashboards.previews.results import Found, Results, Series, with_gaps
from dashboards.previews.units import along_an_axis

Course = npt.NDArray[np.float64]


def draw(canvas: Canvas, box: Box, panel: Panel, found: Found, results: Results) -> None:
    """Draw a panel of the type timeseries."""
    theme = canvas.theme
    looks = [panel.look(series.name, series.ref) for series in found.series]
    if len(units := {look.unit for look in looks}) > 1:
        raise ValueError(f"previews draw one unit in a panel, not {', '.join(sorted(units))}")
    colours = [theme.colour(look.colour) if look.colour else theme.in_turn(at) for at, look in enumerate(looks)]
    if (panel.options.get("legend") or {}).get("showLegend", True):
        box = names_below(canvas, box, [(look.name, colour) for look, colour in zip(looks, colours, strict=True)])
    stacked = (panel.custom.get("stacking") or {}).get("mode", "none") == "normal"
    times, edges = _edges(found.series, results.step, stacked=stacked)
    low, high = _bounds(panel, [upper for _, upper in edges])
    ticks = round_numbers(low, high, max(2, int(box.height // 34)), looks[0].unit)
    labels = along_an_axis(ticks, looks[0].unit)
    plot = box.without(left=max(canvas.measure(label, SMALL) for label in labels) + 8, top=6, right=10, bottom=22)
    axes = canvas.axes(plot)
    axes.set_xlim(results.start, results.end)
    axes.set_ylim(low, high)
    for tick, label in zip(ticks, labels, strict=True):
        y = plot.bottom - (tick - low) / (high - low) * plot.height
        canvas.text((plot.x - 6, y), label, SMALL, theme.faint, across="right")
        axes.axhline(tick, color=theme.border, linewidth=0.7, zorder=0)
    for when in times_below(canvas, plot, results.start, results.end):
        axes.axvline(when, color=theme.border, linewidth=0.7, zorder=0)
    for look, colour, (lower, upper) in zip(looks, colours, edges, strict=True):
        own = {**panel.custom, **(look.custom or {})}
        dashed = (own.get("lineStyle") or {}).get("fill") == "dash"
        axes.plot(times, upper, color=colour, linewidth=1.1, linestyle=(0, (5, 4)) if dashed else "-")
        if opacity := own.get("fillOpacity", 0):
            axes.fill_between(times, lower, upper, color=colour, alpha=opacity / 100, linewidth=0, zorder=1)
    exemplars = ((when, (value - low) / (high - low)) for when, value in found.exemplars)
    for at in spread(exemplars, plot, results.start, results.end):
        canvas.diamond(at, theme.colour("blue"))
    if (panel.custom.get("thresholdsStyle") or {}).get("mode", "off") != "off":
        for least, name in panel.steps:
            if least is not None and low <= least <= high:
                axes.axhline(least, color=theme.colour(name), linewidth=1.1, linestyle=(0, (6, 5)))


def _edges(series: Sequence[Series], step: float, *, stacked: bool) -> tuple[list[float], list[tuple[Course, Course]]]:
    """Return all times that there are, and at those the lower and upper edge of each series' area."""
    courses = [dict(zip(*with_gaps(one, step), strict=True)) for one in series]
    times = sorted({when for course in courses for when in course})
    under = np.zeros(len(times))
    edges = []
    for course in courses:
        upper = np.array([course.get(when, math.nan) for when in times])
        if stacked:
            edges.append((under, upper + under))
            under = under + np.nan_to_num(upper)
        else:
            edges.append((np.zeros(len(times)), upper))
    return times, edges


def _bounds(panel: Panel, courses: Iterable[Course]) -> tuple[float, float]:
    """Return from where to where values are shown: what is said, and where nothing is, what there is."""
    there = [float(value) for course in courses for value in course if math.isfinite(value)] or [0.0]
    least, most = panel.defaults.get("min"), panel.defaults.get("max")
    low = min(there) if least is None else float(least)
    high = max(there) if most is None else float(most)
    if high <= low:
        high = low + (abs(low) or 1)
    return low, high if most is not None else high + (high - low) * 0.05
