"""Settings of middleware."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MiddlewareSettings(BaseModel):
    """The middleware of each side, in order, and their options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    authority: tuple[str, ...] = Field((), description="Classes, `package.module:Class` or `path/to/file.py:Class`.")
    worker: tuple[str, ...] = Field((), description="Classes for the workers; one may be listed on both sides.")
    options: dict[str, dict[str, Any]] = Field({}, description="Arguments of constructors, by the class as listed.")

    @model_validator(mode="after")
    def _options_are_of_listed_ones(self) -> Self:
        unknown = set(self.options) - {*self.authority, *self.worker}
        if unknown:
            raise ValueError(f"options are for {min(unknown)!r}, which neither authority nor worker lists")
        return self
