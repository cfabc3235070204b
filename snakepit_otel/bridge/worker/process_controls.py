"""Telemetry controls of a StreamTelemetry listener, applied to the whole process."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from snakepit_otel.bridge.wire.telemetry_patterns import of_points
from snakepit_otel.telemetry import Level, _controls


class ProcessControls:
    """Applies a listener's controls to this process; patterns of events only, such as `tool.*`, leave spans alone."""

    def __init__(self) -> None:
        self._configured = _controls.current()
        self._enabled = True
        self._filtered = self._configured
        self._changed = False

    def toggle(self, enabled: bool) -> None:
        """Record nothing, or as the filter and the configured level have it."""
        self._enabled = enabled
        self._update()

    def sample(self, rate: float, patterns: Collection[str] = ()) -> None:
        """Keep a share of the traces, each as a whole, unless there are patterns and none matches a lifecycle point."""
        has_points = not patterns or of_points(patterns)
        _controls.set_sampling(rate if has_points else self._configured.sampling)
        self._changed = True

    def filter(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        """Give spans to points that `allow` matches and `deny` does not; without `allow`, at the configured level."""
        allowed, denied = of_points(allow), of_points(deny)
        self._filtered = self._configured._replace(
            level=Level.FULL if allowed else self._configured.level,
            allow=allowed or self._configured.allow,
            deny=(*self._configured.deny, *denied),
        )
        self._update()

    def restore(self) -> None:
        """Record again as was configured at the start."""
        if self._changed:
            _controls.apply(self._configured)
        self._enabled, self._filtered, self._changed = True, self._configured, False

    def _update(self) -> None:
        self._changed = True
        _controls.set_filter(self._filtered.allow, self._filtered.deny)
        # What was configured to be off has nothing set up that could record.
        on = self._enabled and self._configured.level is not Level.OFF
        _controls.set_level(self._filtered.level if on else Level.OFF)
