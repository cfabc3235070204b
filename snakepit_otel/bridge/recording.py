"""What a process records: as it was configured at its start, and as somebody has it now."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.errors import ConfigurationError, ValueRefused
from snakepit_otel.telemetry import Level, controls, names
from snakepit_otel.validation import Number, build

_WHERE = "telemetry."
_POINTS = tuple(point.name for point in names.POINTS)
_INSIDE = tuple(point.name for point in names.POINTS if not point.essential)
_MOST_PATTERNS = 1_000
_LONGEST_PATTERN = 1_000
_EVERYTHING = ("*",)

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=100)]


class Controls(BaseModel):
    """What may be changed while processes run.

    `allow` and `deny` are patterns for the names of lifecycle points, as `controls.set_filter` takes them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level = Level.FULL
    """`off`, `essential` or `full`."""

    sampling: Annotated[Number, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """The share of traces kept, of those that the configured sampler keeps."""

    allow: Patterns = ()
    """Only points that one of these matches have spans, if there are any."""

    deny: Patterns = ()
    """Points that one of these matches have none."""

    @field_validator("allow", "deny")
    @classmethod
    def _names_something(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not _of_points([pattern]):
                known = ", ".join(sorted(_POINTS))
                raise ValueError(f"the pattern {pattern!r} matches no lifecycle point; there are {known}")
        return patterns

    @classmethod
    def in_force(cls) -> Controls:
        """Return what this process records now."""
        return cls.model_construct(
            level=controls.level, sampling=controls.sampling_rate, allow=controls.allowed, deny=controls.denied
        )

    def changed(self, **changes: Any) -> Controls:
        """Return these with what is not None changed. Raises `ConfigurationError` naming what cannot be."""
        given = {key: value for key, value in changes.items() if value is not None}
        return build(Controls, {**self.model_dump(), **given}, _WHERE)

    def apply(self) -> None:
        """Have this process record so, from now on."""
        controls.set_filter(self.allow, self.deny)
        controls.set_sampling(self.sampling)
        controls.set_level(self.level)

    def messages(self) -> tuple[pb.TelemetryControl, ...]:
        """Return the same as a worker of ours understands it, whatever level it was configured for.

        The wire has no word for a level. Off is the toggle; essential is to deny, name by name, the points
        that are not; and a filter that allows at all is obeyed in place of the worker's own level.
        """
        inside = _INSIDE if self.level is Level.ESSENTIAL else ()
        filters = pb.TelemetryEventFilter(allow=self.allow or _EVERYTHING, deny=(*self.deny, *inside))
        return (
            pb.TelemetryControl(filter=filters),
            pb.TelemetryControl(sampling=pb.TelemetrySamplingUpdate(sampling_rate=self.sampling)),
            pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=self.level is not Level.OFF)),
        )


class Recording:
    """Has this whole process obey the controls of the wire; `restore` brings back what was configured.

    The patterns of the wire are for events and for lifecycle points alike. One that matches no point says
    nothing of them: to allow `tool.*` picks events, and leaves the spans as they are.
    """

    def __init__(self) -> None:
        self._configured = Controls.in_force()
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
        concerned = not patterns or _of_points(patterns)
        controls.set_sampling(rate if concerned else self._configured.sampling)
        self._changed = True

    def filter(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        """Give spans to the points that `allow` matches and `deny` does not, whatever the configured level.

        Where nothing is allowed by name, the configured level says which there are to deny from.
        """
        allowed, denied = _of_points(allow), _of_points(deny)
        self._filtered = self._configured.model_copy(
            update={
                "level": Level.FULL if allowed else self._configured.level,
                "allow": allowed or self._configured.allow,
                "deny": (*self._configured.deny, *denied),
            }
        )
        self._consider()

    def restore(self) -> None:
        """Record again as was configured at the start."""
        if self._changed:
            self._configured.apply()
        self._enabled, self._filtered, self._changed = True, self._configured, False

    def _consider(self) -> None:
        self._changed = True
        controls.set_filter(self._filtered.allow, self._filtered.deny)
        # What was configured to be off has nothing set up that could record.
        on = self._enabled and self._configured.level is not Level.OFF
        controls.set_level(self._filtered.level if on else Level.OFF)


def checked(patterns: Collection[str]) -> tuple[str, ...]:
    """Return patterns that a peer sent. Raises `ValueRefused` for too many, or for one that will not do."""
    if len(patterns) > _MOST_PATTERNS or any(len(pattern) > _LONGEST_PATTERN for pattern in patterns):
        raise ValueRefused(
            f"more than {_MOST_PATTERNS:,} patterns, or one of more than {_LONGEST_PATTERN:,} characters"
        )
    return tuple(patterns)


def refuse_if_off(configured: Controls, wanted: Controls) -> None:
    """Raise `ConfigurationError` if a process that was started off is to be turned up."""
    if configured.level is Level.OFF and wanted.level is not Level.OFF:
        raise ConfigurationError(
            f"{_WHERE}level: telemetry was off when this process started, so that nothing is set up to export it; "
            "start it with SNAKEPIT_TELEMETRY_LEVEL=essential or full"
        )


def _of_points(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return those of the patterns that match a lifecycle point."""
    return tuple(pattern for pattern in patterns if any(controls.matches(name, [pattern]) for name in _POINTS))
