"""Components that installed packages provide to OpenTelemetry, by entry-point name."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points


def provided(group: str, name: str) -> EntryPoint | None:
    """Return the entry point of a component; None if no installed package has one of that name."""
    return next(iter(entry_points(group=group, name=name)), None)
