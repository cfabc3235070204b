"""Figures of the proofs: counted and printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

Say = Callable[[str], None]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed; not a number where there is none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1]


def milliseconds(seconds: float) -> str:
    """Say a time."""
    return f"{seconds * 1e3:.0f} ms"


def spread(values: Sequence[float]) -> str:
    """Say how long things took."""
    middle, late, last = (milliseconds(percentile(values, share)) for share in (0.5, 0.99, 1.0))
    return f"p50 {middle}, p99 {late}, most {last}"


def saying(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return what prints a figure, whatever pytest does with output."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"    {text}", flush=True)

    return say
