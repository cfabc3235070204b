"""Heat maps: how a histogram's values lie over time."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dashboards.previews.axes import spread, times_below
from dashboards.previews.canvas import SMALL, Box, Canvas
from dashboards.previews.panels import Panel
from dashboards.previews.results import Found, Results
from dashboards.previews.units import written


def draw(canvas: Canvas, box: Box, panel: Panel, found: Found, results: Results) -> None:
    """Draw a panel of the type heatmap; each bucket is a row, however wide it is.

    Raises `ValueError` where a series has no label `le`, for then it is no bucket.
    """
    theme = canvas.theme
    unit = (panel.options.get("yAxis") or {}).get("unit") or panel.look("").unit
    bounds, cells = _cells(found, results)
    labels = [written(bound, unit) if math.isfinite(bound) else "+Inf" for bound in bounds]
    rest = box.without(bottom=26)
    plot = rest.without(left=max(canvas.measure(label, SMALL) for label in labels) + 8, top=6, right=10, bottom=22)
    axes = canvas.axes(plot)
    axes.set_xlim(results.start, results.end)
    axes.set_ylim(0, len(bounds))
    edges = [results.start + (at - 0.5) * results.step for at in range(cells.shape[1] + 1)]
    # What is next to nothing is not drawn.
    seen = np.where(cells > 1e-9, cells, math.nan)
    axes.pcolormesh(edges, range(len(bounds) + 1), seen, cmap=theme.heat, vmin=0, vmax=cells.max() or 1, zorder=1)
    every = math.ceil(len(bounds) * 15 / plot.height)
    for row, label in enumerate(labels):
        # A bucket's name is its upper bound.
        y = plot.bottom - (row + 1) / len(bounds) * plot.height
        if (len(bounds) - 1 - row) % every == 0:
            canvas.text((plot.x - 6, y + 2), label, SMALL, theme.faint, across="right")
        axes.axhline(row + 1, color=theme.border, linewidth=0.5, zorder=0)
    times_below(canvas, plot, results.start, results.end)
    exemplars = ((when, _height(value, bounds) / len(bounds)) for when, value in found.exemplars)
    for at in spread(exemplars, plot, results.start, results.end):
        canvas.diamond(at, theme.colour("blue"))
    _scale(canvas, Box(plot.x, box.bottom - 22, min(plot.width, 260), 14), float(cells.max()))


def _cells(found: Found, results: Results) -> tuple[list[float], npt.NDArray[np.float64]]:
    """Return the upper bounds of buckets, and how much is in each of them, by step."""
    if any("le" not in series.labels for series in found.series):
        raise ValueError("a heat map's series need the label le")
    bounds = sorted({float(series.labels["le"]) for series in found.series})
    up_to = np.zeros((len(bounds), math.ceil((results.end - results.start) / results.step) + 1))
    for series in found.series:
        row = bounds.index(float(series.labels["le"]))
        for when, value in zip(series.times, series.values, strict=True):
            up_to[row, round((when - results.start) / results.step)] += value if math.isfinite(value) else 0
    # Each bucket has all that is below it as well.
    return bounds, np.clip(np.diff(up_to, axis=0, prepend=0), 0, None)


def _height(value: float, bounds: list[float]) -> float:
    """Return where a value lies among rows of one height."""
    row = next((row for row, bound in enumerate(bounds) if value <= bound), len(bounds) - 1)
    low = bounds[row - 1] if row else 0.0
    high = bounds[row]
    return row + ((value - low) / (high - low) if math.isfinite(high) and high > low else 0.5)


def _scale(canvas: Canvas, box: Box, most: float) -> None:
    """Say what the shades stand for."""
    canvas.text((box.x, box.middle[1]), "0", SMALL, canvas.theme.faint)
    bar = box.without(left=14, right=80)
    axes = canvas.axes(bar.without(top=2, bottom=2))
    axes.imshow(np.linspace(0, 1, 64).reshape(1, 64), aspect="auto", cmap=canvas.theme.heat)
    canvas.text((bar.right + 6, box.middle[1]), written(most), SMALL, canvas.theme.faint)
