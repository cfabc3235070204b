"""Controls of the wire, which a whole process follows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from snakepit_otel.errors import ValueRefused
from snakepit_otel.telemetry import Level, _controls, names

_POINTS = tuple(point.name for point in names.POINTS)
_MOST_PATTERNS = 1_000
_LONGEST_PATTERN = 1_000
_MOST_CHARACTERS = 32_000
"""Characters of all patterns together: to compile a million takes seconds."""


class Recording:
    """Has this whole process obey the controls of the wire; `restore` brings back what was configured.

    The patterns of the wire are for events and for lifecycle points alike. One that matches no point says
    nothing of them: to allow `tool.*` picks events, and leaves the spans as they are.
    """

    def __init__(self) -> None:
        self._configured = _controls.current()
        self._enabled = True
        self._filtered = self._configured
        self._changed = False

    def toggle(self, enabled: bool) -> None:
        """Record nothing, or as the filter and the configured level have it."""
        self._enabled = enabled
        self._consider()

    def sample(self, rate: float, patterns: Collection[str] = ()) -> None:
        """Keep a share of the traces, if the patterns, where there are any, match a lifecycle point.

        Traces are kept or not as a whole, so that one point among many stands for all of them.
        """
        concerned = not patterns or of_points(patterns)
        _controls.set_sampling(rate if concerned else self._configured.sampling)
        self._changed = True

    def filter(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        """Give spans to the points that `allow` matches and `deny` does not, whatever the configured level.

        Where nothing is allowed by name, the configured level says which there are to deny from.
        """
        allowed, denied = of_points(allow), of_points(deny)
        self._filtered = self._configured._replace(
            level=Level.FULL if allowed else self._configured.level,
            allow=allowed or self._configured.allow,
            deny=(*self._configured.deny, *denied),
        )
        self._consider()

    def restore(self) -> None:
        """Record again as was configured at the start."""
        if self._changed:
            _controls.apply(self._configured)
        self._enabled, self._filtered, self._changed = True, self._configured, False

    def _consider(self) -> None:
        self._changed = True
        _controls.set_filter(self._filtered.allow, self._filtered.deny)
        # What was configured to be off has nothing set up that could record.
        on = self._enabled and self._configured.level is not Level.OFF
        _controls.set_level(self._filtered.level if on else Level.OFF)


def checked(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return patterns that a peer sent. Raises `ValueRefused` for too many, or for one that will not do."""
    sizes = [len(pattern) for pattern in patterns[: _MOST_PATTERNS + 1]]
    if len(sizes) > _MOST_PATTERNS or any(size > _LONGEST_PATTERN for size in sizes):
        raise ValueRefused(
            f"more than {_MOST_PATTERNS:,} patterns, or one of more than {_LONGEST_PATTERN:,} characters"
        )
    if sum(sizes) > _MOST_CHARACTERS:
        raise ValueRefused(f"patterns of {sum(sizes):,} characters; at most {_MOST_CHARACTERS:,} are allowed")
    return tuple(patterns)


def of_points(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return those of the patterns that match a lifecycle point."""
    return tuple(pattern for pattern in patterns if any(_controls.matches(name, [pattern]) for name in _POINTS))
