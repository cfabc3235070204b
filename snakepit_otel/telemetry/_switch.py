"""Whether lifecycle points do anything at all."""

from __future__ import annotations

on = True
"""False makes every lifecycle point a plain call. Read by the decorators on each call."""


def turn(state: bool) -> None:
    """Turn all lifecycle points on or off, from now on."""
    global on  # noqa: PLW0603 - one switch per process is the point
    on = state
