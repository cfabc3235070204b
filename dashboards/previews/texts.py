"""Words: log lines, Markdown, and what is said of traces."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from dashboards.previews.canvas import Box, Canvas, Font
from dashboards.previews.panels import Panel
from dashboards.previews.results import Found, Results

_MONO = Font(11, mono=True)
_LINE = 17
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKS = re.compile(r"\*\*|__|`|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)")


def draw_logs(canvas: Canvas, box: Box, panel: Panel, found: Found, _results: Results) -> None:
    """Draw a panel of the type logs, as many lines as it has room for."""
    falling = panel.options.get("sortOrder", "Descending") == "Descending"
    y = box.y + _LINE / 2
    for when, text in sorted(found.lines, reverse=falling):
        said = datetime.fromtimestamp(when, UTC).strftime("%H:%M:%S.%f")[:-3] + "  "
        indent = canvas.measure(said, _MONO)
        for number, line in enumerate(canvas.wrapped(" ".join(text.split()), _MONO, box.width - indent)):
            if y + _LINE / 2 > box.bottom:
                return
            if number == 0:
                canvas.text((box.x, y), said, _MONO, canvas.theme.faint)
            canvas.text((box.x + indent, y), line, _MONO)
            y += _LINE


def draw_markdown(canvas: Canvas, box: Box, panel: Panel, _found: Found, _results: Results) -> None:
    """Draw a panel of the type text: headings are bold, and marks are left out."""
    y = box.y + _LINE / 2
    for paragraph in str(panel.options.get("content") or "").splitlines():
        words = _LINK.sub(r"\1", paragraph)
        heading = words.startswith("#")
        words = _MARKS.sub("", words.lstrip("#").strip() if heading else re.sub(r"^(\s*)[-*] ", r"\1• ", words))
        font = Font(14, bold=True) if heading else Font(12)
        for line in canvas.wrapped(words, font, box.width):
            if y + _LINE / 2 > box.bottom:
                return
            canvas.text((box.x, y), line, font)
            y += _LINE + 2


def draw_traces(canvas: Canvas, box: Box, panel: Panel, _found: Found, _results: Results) -> None:
    """Say that traces are not drawn, and what is asked for."""
    x, y = box.middle
    canvas.text((x, y - 12), "Traces: needs Tempo. Not drawn from data.", Font(13), across="center", within=box.width)
    asked = "; ".join(str(target.get("query") or "") for target in panel.plain.get("targets") or [])
    canvas.text((x, y + 12), asked, _MONO, canvas.theme.faint, across="center", within=box.width)


def draw_nothing(canvas: Canvas, box: Box, words: str, *, large: bool) -> None:
    """Say what an empty panel says."""
    font = Font(32, bold=True) if large and canvas.measure(words, Font(32, bold=True)) < box.width else Font(15)
    canvas.text(box.middle, words, font, canvas.theme.text if large else canvas.theme.faint, across="center")
