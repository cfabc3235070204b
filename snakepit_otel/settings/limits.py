"""Limits to what callers can make the authority hold."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snakepit_otel.bridge.budget import ANONYMOUS_BYTES, ANONYMOUS_PEER_BYTES, KNOWN_BYTES, Budget
from snakepit_otel.bridge.guarding import AUTHORITY_TOOL_BYTES
from snakepit_otel.validation import Whole


class LimitSettings(BaseModel):
    """How much is held for callers: for those that have shown who they are, and for those that have not.

    Callers on the Unix socket, and those with a client's certificate, have; all others are anonymous.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    anonymous_bytes: Annotated[Whole, Field(ge=1 << 20)] = ANONYMOUS_BYTES
    """The most that is held for all anonymous callers together."""

    anonymous_peer_bytes: Annotated[Whole, Field(ge=1 << 20)] = ANONYMOUS_PEER_BYTES
    """The most that is held for anonymous callers of one machine."""

    known_bytes: Annotated[Whole, Field(ge=1 << 20)] = KNOWN_BYTES
    """The most that is held for all other callers together."""

    authority_tool_bytes: Annotated[Whole, Field(ge=1 << 10)] = AUTHORITY_TOOL_BYTES
    """Bytes of JSON that a tool of the authority takes in one call of another process."""

    @model_validator(mode="after")
    def _one_is_not_more_than_all(self) -> Self:
        if self.anonymous_peer_bytes > self.anonymous_bytes:
            raise ValueError("anonymous_peer_bytes is more than anonymous_bytes, which is for all of them")
        return self

    def budget(self) -> Budget:
        """Return a budget with these limits, of which nothing is taken."""
        return Budget(self.anonymous_bytes, self.anonymous_peer_bytes, self.known_bytes)
