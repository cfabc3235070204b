"""Bands of states: for each series a band, by what its value says."""

from __future__ import annotations

from collections.abc import Iterator

from dashboards.previews.axes import names_below, times_below
from dashboards.previews.canvas import SMALL, Box, Canvas, Font
from dashboards.previews.panels import Panel
from dashboards.previews.results import Found, Results, Series


def draw(canvas: Canvas, box: Box, panel: Panel, found: Found, results: Results) -> None:
    """Draw a panel of the type state-timeline."""
    theme = canvas.theme
    if (panel.options.get("legend") or {}).get("showLegend", True):
        said = {}
        for series in found.series:
            for value in series.values:
                mapped = panel.mapped(value)
                said[mapped[0] if mapped else panel.look("").written(value)] = panel.shade(
                    theme, value, panel.look(series.name, series.ref)
                )
        box = names_below(canvas, box, sorted(said.items()))
    # The rest is on other pages, in Grafana.
    shown = found.series[: int(panel.options.get("perPage") or 20)]
    looks = [panel.look(series.name, series.ref) for series in shown]
    font = Font(min(SMALL.size, max(7, (box.height - 22) / len(shown) - 1)))
    names = min(max(canvas.measure(look.name, font) for look in looks) + 10, box.width * 0.4)
    plot = box.without(left=names, right=10, bottom=22)
    each = plot.height / len(shown)
    scale = plot.width / (results.end - results.start)
    for row, (series, look) in enumerate(zip(shown, looks, strict=True)):
        line = Box(plot.x, plot.y + row * each, plot.width, each)
        canvas.text((plot.x - 8, line.middle[1]), look.name, font, theme.faint, across="right", within=names - 10)
        for begin, end, value in _held(series, results):
            x = plot.x + max(0.0, begin - results.start) * scale
            band = Box(x, line.y, min(plot.right, plot.x + (end - results.start) * scale) - x, each)
            thin = each * 0.05
            canvas.rectangle(
                band.without(top=thin, bottom=thin), panel.shade(theme, value, look), alpha=_opacity(panel)
            )
            mapped = panel.mapped(value)
            words = mapped[0] if mapped else look.written(value)
            if panel.options.get("showValue", "auto") != "never" and canvas.measure(words, SMALL) < band.width - 6:
                canvas.text((band.x + 4, band.middle[1]), words, SMALL)
    times_below(canvas, plot, results.start, results.end)
    if len(shown) < len(found.series):
        more = f"… and {len(found.series) - len(shown)} more"
        canvas.text((plot.x - 8, plot.bottom + 11), more, SMALL, theme.faint, across="right")


def _opacity(panel: Panel) -> float:
    return float(panel.custom.get("fillOpacity", 70)) / 100


def _held(series: Series, results: Results) -> Iterator[tuple[float, float, float]]:
    """Yield from when to when the series had which value; one value over many steps is one band."""
    begin = end = series.times[0]
    held = series.values[0]
    for when, value in zip(series.times, series.values, strict=True):
        if value != held or when - end > 1.5 * results.step:
            yield begin, (when if when - end <= 1.5 * results.step else end + results.step), held
            begin, held = when, value
        end = when
    yield begin, min(end + results.step, results.end), held
