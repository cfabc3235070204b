"""Switch of all lifecycle points."""

from __future__ import annotations

from collections.abc import Callable

on_change: list[Callable[[], None]] = []
enabled = True  # where false, every lifecycle point is a plain call; decorators read it on each call


def set_enabled(state: bool) -> None:
    global enabled
    enabled = state
    for call in on_change:
        call()
