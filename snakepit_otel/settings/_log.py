"""Settings of the log."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from snakepit_otel.telemetry.environment.kinds import InvalidValue, LogLevel


def _level(text: str) -> str:
    try:
        LogLevel().read(text.strip())
    except InvalidValue as error:
        raise ValueError(str(error)) from None
    return text.strip().lower()


Level = Annotated[str, AfterValidator(_level)]


class LogSettings(BaseModel):
    """Log on standard error of `serve` and its workers; see docs/logging.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level = Field(
        default="info", description="`debug`, `info`, `warning`, `error`, `critical`, a number, or `none`."
    )
    levels: dict[str, Level] = Field(default={}, description="Levels of single loggers, by name.")
