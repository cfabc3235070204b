"""Telemetry controls of a process: what it records, as configured at its start or changed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, field_validator

from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as pb
from snakepit_otel.bridge.wire.telemetry_patterns import of_points
from snakepit_otel.common.validation import Number, build
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.telemetry import Level, _controls, names

_WHERE = "telemetry."

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=100)]


class TelemetryChanges(TypedDict, total=False):
    """Changes of `set_telemetry`; a control that is not given, or None, stays as it is.

    `level` is `off`, `essential` (all metrics and events, and the spans of requests and calls) or `full`. `sampling` is
    the share of traces to keep, 0 to 1, of those that the configured sampler keeps. `allow` and `deny` are patterns, as
    in file names, for the names of lifecycle points, such as `snakepit.adapter.*`: only points that are allowed, if any
    are, and not denied have spans.
    """

    level: Level | str | None
    sampling: float | None
    allow: Sequence[str] | None
    deny: Sequence[str] | None


class Controls(BaseModel):
    """Telemetry controls that may be changed while processes run.

    `allow` and `deny` are patterns for the names of lifecycle points, as `_controls.set_filter` takes them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level = Level.FULL  # `off`, `essential` or `full`

    # The share of traces kept, of those that the configured sampler keeps.
    sampling: Annotated[Number, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0

    allow: Patterns = ()  # only points that one of these matches have spans, if there are any

    deny: Patterns = ()  # points that one of these matches have none

    strict_mode: bool = False  # whether references that are made for nothing are reported

    @field_validator("allow", "deny")
    @classmethod
    def _names_something(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not of_points([pattern]):
                known = ", ".join(sorted(point.name for point in names.POINTS))
                raise ValueError(f"the pattern {pattern!r} matches no lifecycle point; there are {known}")
        return patterns

    @classmethod
    def in_force(cls) -> Controls:
        """Return what this process records now."""
        return cls.model_construct(**_controls.current()._asdict())

    def changed(self, **changes: Any) -> Controls:
        """Return these with what is not None changed. Raises `ConfigurationError` naming what cannot be."""
        given = {key: value for key, value in changes.items() if value is not None}
        return build(Controls, {**self.model_dump(), **given}, _WHERE)

    def apply(self) -> None:
        """Have this process record so, from now on."""
        _controls.apply(_controls.ControlState(self.level, self.sampling, self.allow, self.deny))

    def to_message(self) -> pb.SetTelemetryRequest:
        """Return these for a worker of the pool."""
        return pb.SetTelemetryRequest(
            level=self.level,
            sampling=self.sampling,
            allow=self.allow,
            deny=self.deny,
            strict_mode=self.strict_mode,
        )


def refuse_if_off(configured: Controls, wanted: Controls) -> None:
    """Raise `ConfigurationError` if a process that was started off is to be turned up."""
    if configured.level is Level.OFF and wanted.level is not Level.OFF:
        raise ConfigurationError(
            f"{_WHERE}level: telemetry was off when this process started, so that nothing is set up to export it; "
            "start it with SNAKEPIT_TELEMETRY_LEVEL=essential or full"
        )
