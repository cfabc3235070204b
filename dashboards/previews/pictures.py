"""A page as a picture: panels where Grafana's grid has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from dashboards.previews import bands, courses, heat, numbers, tables, texts
from dashboards.previews.canvas import SMALL, Box, Canvas, Font
from dashboards.previews.colours import Theme
from dashboards.previews.panels import Panel
from dashboards.previews.results import Found, Results

WIDTH = 1600
NOTE = "Preview, drawn by matplotlib from real query results. This is not Grafana."
"""What every picture says of itself."""

_HEAD, _MARGIN, _GAP = 76, 12, 8
_COLUMN = (WIDTH - 2 * _MARGIN) / 24
_LINE = 36

Drawer = Callable[[Canvas, Box, Panel, Found, Results], None]

DRAWERS: Mapping[str, Drawer] = {
    "timeseries": courses.draw,
    "heatmap": heat.draw,
    "stat": numbers.draw_stat,
    "bargauge": numbers.draw_bars,
    "state-timeline": bands.draw,
    "table": tables.draw,
    "logs": texts.draw_logs,
    "text": texts.draw_markdown,
    "traces": texts.draw_traces,
}
"""How each type of panel is drawn."""

_WITHOUT_RESULTS = ("text", "traces")


def picture(dashboard: Mapping[str, Any], results: Results, theme: Theme) -> Canvas:
    """Return a page, drawn.

    Raises `ValueError` for a panel that cannot be drawn, or that the results do not have, and says which.
    """
    panels = [Panel(plain) for plain in dashboard.get("panels") or []]
    lines = max((y + height for _, y, _, height in (panel.grid for panel in panels)), default=2)
    canvas = Canvas(WIDTH, _HEAD + lines * _LINE + _MARGIN, theme)
    _head(canvas, dashboard, results)
    for panel in panels:
        try:
            _panel(canvas, panel, results)
        except ValueError as error:
            where = f"{dashboard['uid']}, panel {panel.number} {panel.title!r}"
            raise ValueError(f"{where}: {error}") from error
    return canvas


def _head(canvas: Canvas, dashboard: Mapping[str, Any], results: Results) -> None:
    theme = canvas.theme
    canvas.text((_MARGIN, 22), dashboard["title"], Font(19, bold=True))
    note = Font(13, bold=True)
    x = WIDTH - _MARGIN - canvas.measure(NOTE, note)
    canvas.rectangle(Box(x - 10, 10, WIDTH - _MARGIN - x + 10, 24), theme.panel, edge=theme.colour("orange"))
    canvas.text((x - 5, 22), NOTE, note, theme.colour("orange"))
    canvas.text((_MARGIN, 52), dashboard.get("description") or "", Font(12), theme.faint, within=WIDTH * 0.75)
    start, end = (datetime.fromtimestamp(when, UTC) for when in (results.start, results.end))
    during = f"{start:%H:%M:%S} to {end:%H:%M:%S} UTC"
    canvas.text((WIDTH - _MARGIN, 52), during, SMALL, theme.faint, across="right")


def _panel(canvas: Canvas, panel: Panel, results: Results) -> None:
    column, line, width, height = panel.grid
    place = Box(_MARGIN + column * _COLUMN, _HEAD + line * _LINE, width * _COLUMN, height * _LINE)
    place = place.without(left=_GAP / 2, right=_GAP / 2, bottom=_GAP)
    if panel.kind == "row":
        canvas.text((place.x, place.middle[1]), f"▾ {panel.title}", Font(15, bold=True))
        return
    if column + width > 24:
        raise ValueError(f"it ends in column {column + width}, and Grafana's grid has 24")
    if panel.kind not in DRAWERS:
        raise ValueError(f"previews cannot draw the type {panel.kind!r}; there are {', '.join(sorted(DRAWERS))}")
    found = results.panels.get(panel.number, Found())
    if panel.kind not in _WITHOUT_RESULTS and panel.number not in results.panels:
        raise ValueError("the results do not have it; they are of other dashboards than those that are built")
    canvas.rectangle(place, canvas.theme.panel, edge=canvas.theme.border, rounded=True)
    canvas.text((place.x + 10, place.y + 16), panel.title, Font(13, bold=True), within=place.width - 20)
    inside = place.without(left=12, top=32, right=10, bottom=8)
    if panel.kind not in _WITHOUT_RESULTS and not found.series and not found.lines:
        texts.draw_nothing(canvas, inside, panel.nothing, large=panel.kind == "stat")
    else:
        DRAWERS[panel.kind](canvas, inside, panel, found, results)
