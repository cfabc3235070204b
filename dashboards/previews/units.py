"""Numbers with their units, as Grafana writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SI = ["", " K", " Mil", " Bil", " Tri", " Quadr"]
_IEC = [" B", " KiB", " MiB", " GiB", " TiB", " PiB"]
_DECIMAL = [" B", " kB", " MB", " GB", " TB", " PB"]

_SCALED: dict[str, tuple[float, list[str]]] = {
    "short": (1000, _SI),
    "bytes": (1024, _IEC),
    "decbytes": (1000, _DECIMAL),
    "binBps": (1024, [f"{suffix}/s" for suffix in _IEC]),
    "Bps": (1000, [f"{suffix}/s" for suffix in _DECIMAL]),
    **{
        unit: (1000, [f"{scale} {word}" for scale in ("", "K", "M", "B", "T")])
        for unit, word in {"ops": "ops/s", "reqps": "req/s", "cps": "c/s", "eps": "evt/s", "mps": "msg/s"}.items()
    },
}
_SECONDS: list[tuple[float, float, str]] = [
    (1e-6, 1e9, " ns"),
    (1e-3, 1e6, " µs"),
    (1, 1e3, " ms"),
    (60, 1, " s"),
    (3600, 1 / 60, " min"),
    (86400, 1 / 3600, " hour"),
    (604800, 1 / 86400, " day"),
    (31536000, 1 / 604800, " week"),
    (math.inf, 1 / 31536000, " year"),
]
"""Below which size, times what, and the word; of minutes on, more than one are written with an s."""

_PLAIN: dict[str, tuple[float, str]] = {"none": (1, ""), "percent": (1, "%"), "percentunit": (100, "%")}


def written(value: float, unit: str = "short", decimals: int | None = None) -> str:
    """Return a number with its unit; with three digits that count where `decimals` does not say otherwise.

    Raises `ValueError` for a unit that is not known here.
    """
    scaled, suffix = _scaled(value, unit)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}∞"
    if decimals is None:
        decimals = _decimals(scaled)
    text = f"{scaled:.{decimals}f}"
    if suffix in (" min", " hour", " day", " week", " year") and abs(scaled) != 1:
        suffix += "s"
    return text + suffix


def along_an_axis(ticks: Sequence[float], unit: str) -> list[str]:
    """Return the labels of ticks, each with as many decimals as it has."""
    return [written(tick, unit, _exact(_scaled(tick, unit)[0])) for tick in ticks]


def base_of(unit: str) -> float:
    """Return 1024 for units that count in powers of two, else 10: what round numbers are in this unit."""
    return 1024 if _SCALED.get(unit, (10, []))[0] == 1024 else 10


def _scaled(value: float, unit: str) -> tuple[float, str]:
    if unit == "s":
        size = abs(value)
        if size == 0 or not math.isfinite(size):
            return value, " s"
        _, factor, suffix = next(step for step in _SECONDS if size < step[0])
        return value * factor, suffix
    if unit in _PLAIN:
        factor, suffix = _PLAIN[unit]
        return value * factor, suffix
    if unit.startswith("suffix:"):
        return value, f" {unit.removeprefix('suffix:')}"
    if unit not in _SCALED:
        raise ValueError(f"previews cannot write the unit {unit!r}; say how in {__file__}")
    base, suffixes = _SCALED[unit]
    step = 0
    while math.isfinite(value) and abs(value) >= base and step < len(suffixes) - 1:
        value /= base
        step += 1
    return value, suffixes[step]


def _exact(value: float) -> int:
    """Return how many decimals a round number has."""
    return next((count for count in range(6) if math.isclose(round(value, count), value, rel_tol=1e-6)), 6)


def _decimals(value: float) -> int:
    if value == round(value):
        return 0
    # No more than Grafana shows of a number that is next to nothing.
    return min(max(0, 2 - math.floor(math.log10(abs(value)))), 6)
