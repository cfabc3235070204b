"""Tables: a row for each set of labels, and a column for each query."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dashboards.previews.canvas import SMALL, Box, Canvas, Font
from dashboards.previews.panels import Panel
from dashboards.previews.results import Found, Results

_ROW = 26
_HEAD = Font(11, bold=True)

Cell = str | float
Rows = list[dict[str, Cell]]


def draw(canvas: Canvas, box: Box, panel: Panel, found: Found, _results: Results) -> None:
    """Draw a panel of the type table."""
    theme = canvas.theme
    columns, rows = arranged(panel, found)
    looks = {column: panel.look(column) for column in columns}
    each = box.width / max(len(columns), 1)
    room = max(1, int(box.height // _ROW) - 1)
    shown = rows if len(rows) <= room else rows[: room - 1]
    for number, column in enumerate(columns):
        numeric = any(isinstance(row.get(column), float) for row in rows)
        edge = box.x + (number + 1) * each - 10 if numeric else box.x + number * each
        across = "right" if numeric else "left"
        canvas.text(
            (edge, box.y + _ROW / 2),
            looks[column].name,
            _HEAD,
            theme.colour("blue"),
            across=across,
            within=each - 14,
        )
        for line, row in enumerate(shown, 1):
            cell = row.get(column)
            words = "" if cell is None else looks[column].written(cell) if isinstance(cell, float) else cell
            canvas.text((edge, box.y + (line + 0.5) * _ROW), words, SMALL, across=across, within=each - 14)
    for line in range(1, len(shown) + 1):
        canvas.line((box.x, box.y + line * _ROW), (box.right, box.y + line * _ROW), theme.border)
    if len(shown) < len(rows):
        y = box.y + (len(shown) + 1.5) * _ROW
        canvas.text((box.x, y), f"… and {len(rows) - len(shown)} more", SMALL, theme.faint)


def arranged(panel: Panel, found: Found) -> tuple[list[str], Rows]:
    """Return columns and rows as the panel's transformations make them of the results.

    Raises `ValueError` for a transformation that is not known here.
    """
    refs = [str(target["refId"]) for target in panel.plain.get("targets") or []]
    rows: Rows = []
    merged = any(one["id"] == "merge" for one in panel.transformations)
    of: dict[tuple[tuple[str, str], ...], dict[str, Cell]] = {}
    for series in found.series:
        labels = tuple(sorted(series.labels.items()))
        if not merged or labels not in of:
            of[labels] = {"Time": "", **series.labels}
            rows.append(of[labels])
        of[labels]["Value" if len(refs) == 1 else f"Value #{series.ref}"] = series.last
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for transformation in panel.transformations:
        options = transformation.get("options") or {}
        match transformation["id"]:
            case "merge":
                pass
            case "organize":
                columns, rows = _organized(options, columns, rows)
            case "sortBy":
                for sort in reversed(options["sort"]):
                    rows = _sorted(rows, sort["field"], falling=bool(sort.get("desc")))
            case "limit":
                rows = rows[: int(options["limitField"])]
            case name:
                raise ValueError(f"previews know no transformation {name!r}")
    for sort in reversed(panel.options.get("sortBy") or []):
        rows = _sorted(rows, sort["displayName"], falling=bool(sort.get("desc")))
    return columns, rows


def _organized(options: Mapping[str, Any], columns: list[str], rows: Rows) -> tuple[list[str], Rows]:
    hidden = {name for name, out in (options.get("excludeByName") or {}).items() if out}
    order = options.get("indexByName") or {}
    names = options.get("renameByName") or {}
    kept = sorted((column for column in columns if column not in hidden), key=lambda one: order.get(one, math.inf))
    renamed = {column: names.get(column) or column for column in kept}
    return list(renamed.values()), [{renamed[name]: row[name] for name in row.keys() & renamed.keys()} for row in rows]


def _sorted(rows: Rows, column: str, *, falling: bool) -> Rows:
    there = [row for row in rows if column in row]
    return sorted(there, key=lambda row: row[column], reverse=falling) + [row for row in rows if column not in row]
