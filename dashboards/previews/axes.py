"""What courses and heat maps have around them: times below, values on the left, names at the bottom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from dashboards.previews.canvas import SMALL, Box, Canvas
from dashboards.previews.units import base_of

_SPANS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_NEAREST = 64
"""Pixels from one time to the next, at least."""
_LINE = 18
"""Pixels from one line of names to the next."""
_CROWD = 14
"""Pixels from one point to the next, roughly."""


def times_below(canvas: Canvas, box: Box, start: float, end: float) -> list[float]:
    """Write times below a box, in UTC, and return those that are written."""
    least = (end - start) * _NEAREST / max(box.width, 1)
    span = next((one for one in _SPANS if one >= least), _SPANS[-1])
    shown = [span * number for number in range(math.ceil(start / span), math.floor(end / span) + 1)]
    for when in shown:
        said = datetime.fromtimestamp(when, UTC).strftime("%H:%M" if span >= 60 else "%H:%M:%S")
        x = box.x + (when - start) / (end - start) * box.width
        half = canvas.measure(said, SMALL) / 2
        if box.x <= x - half and x + half <= box.right + 6:
            canvas.text((x, box.bottom + 11), said, SMALL, canvas.theme.faint, across="center")
    return [float(when) for when in shown]


def round_numbers(low: float, high: float, most: int, unit: str) -> list[float]:
    """Return at most so many numbers from low to high, which are round in the unit."""
    least = (high - low) / max(most - 1, 1)
    if base_of(unit) == 1024:
        step = 2.0 ** math.ceil(math.log2(least))
    else:
        power = 10.0 ** math.floor(math.log10(least))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def spread(points: Iterable[tuple[float, float]], box: Box, start: float, end: float) -> list[tuple[float, float]]:
    """Return the pixels of points, times and heights from 0 to 1, that are in a box; of a crowd of them, one.

    Grafana thins exemplars out as well: what matters is that there are some to go by.
    """
    shown: dict[tuple[int, int], tuple[float, float]] = {}
    for when, height in points:
        x, y = box.x + (when - start) / (end - start) * box.width, box.bottom - height * box.height
        if box.x <= x <= box.right and box.y <= y <= box.bottom:
            shown.setdefault((int(x // _CROWD), int(y // _CROWD)), (x, y))
    return list(shown.values())


def names_below(canvas: Canvas, box: Box, names: Sequence[tuple[str, str]], share: float = 0.36) -> Box:
    """Write names with their colours at the bottom of a box, as many as a share of it takes; return what is left."""
    lines: list[list[tuple[str, str]]] = [[]]
    taken = 0.0
    for name, colour in names:
        shown = canvas.cut(name, SMALL, box.width - 40)
        width = canvas.measure(shown, SMALL) + 34
        if lines[-1] and taken + width > box.width:
            lines.append([])
            taken = 0
        lines[-1].append((shown, colour))
        taken += width
    room = max(1, int(box.height * share // _LINE))
    left_out = sum(map(len, lines[room - 1 :])) if len(lines) > room else 0
    if left_out:
        lines[room - 1 :] = [[]]
    rest = box.without(bottom=_LINE * len(lines) + 4)
    for number, line in enumerate(lines):
        y = rest.bottom + 4 + _LINE * (number + 0.5)
        x = box.x
        for name, colour in line:
            canvas.line((x + 2, y), (x + 16, y), colour, 3)
            x += canvas.text((x + 22, y), name, SMALL) + 34
    if left_out:
        canvas.text((box.x + 2, rest.bottom + 4 + _LINE * (len(lines) - 0.5)), f"… and {left_out} more", SMALL)
    return rest
