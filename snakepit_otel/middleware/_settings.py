"""Settings of middleware, and what a program gives in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snakepit_otel.adapters._adapter_loading import located
from snakepit_otel.common.validation import build
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.middleware._base import Middleware
from snakepit_otel.middleware._loading import Spec, load_middleware


class MiddlewareSettings(BaseModel):
    """The middleware of each side, in order, and their options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    authority: tuple[str, ...] = Field(
        default=(), description="Classes, `package.module:Class` or `path/to/file.py:Class`."
    )
    worker: tuple[str, ...] = Field(default=(), description="Classes for the workers; one may be listed on both sides.")
    options: dict[str, dict[str, Any]] = Field(
        default={}, description="Arguments of constructors, by the class as listed."
    )

    @model_validator(mode="after")
    def _options_are_of_listed_ones(self) -> Self:
        unknown = set(self.options) - {*self.authority, *self.worker}
        if unknown:
            raise ValueError(f"options are for {min(unknown)!r}, which neither authority nor worker lists")
        return self


def middleware_of(
    given: Sequence[Middleware | str] | MiddlewareSettings | Mapping[str, Any],
) -> tuple[list[Middleware], tuple[Spec, ...]]:
    """Return the authority's middleware, and the names and options of the workers'.

    A sequence is for the authority, and may mix instances and names; so may `authority` of a mapping. Names that are
    files have their whole path, for other processes. Raises `ConfigurationError`.
    """
    if isinstance(given, MiddlewareSettings):
        settings, authority = given, list[Middleware | str](given.authority)
    else:
        values = dict(given) if isinstance(given, Mapping) else {"authority": given}
        authority = list(values.get("authority", ()))
        for one in authority:
            if not isinstance(one, Middleware | str):
                raise ConfigurationError(
                    f"middleware.authority has {one!r:.100}; it takes instances of Middleware, and names of classes"
                )
        values["authority"] = [one for one in authority if isinstance(one, str)]
        settings = build(MiddlewareSettings, values, "middleware.")
    options = settings.options
    made = [one if isinstance(one, Middleware) else load_middleware(one, options.get(one, {})) for one in authority]
    return made, worker_specs(settings)


def worker_specs(settings: MiddlewareSettings) -> tuple[Spec, ...]:
    """Return the names and options of the workers' middleware."""
    return tuple((located(spec), settings.options.get(spec, {})) for spec in settings.worker)
