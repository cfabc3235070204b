"""The settings of shared memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from snakepit_otel.common.validation import Milliseconds, Whole
from snakepit_otel.zero_copy._limits import Limits


class ZeroCopySettings(BaseModel):
    """How much may be shared, and what becomes of what cannot be. Sizes are in bytes, times in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Limits.enabled
    """Share memory. If not, the bytes are copied over gRPC, which `allow_fallback` may forbid."""

    allow_fallback: bool = Limits.allow_fallback
    """Copy over gRPC what cannot be shared; if not, it is refused with `ZeroCopyUnavailable`."""

    max_bytes: Annotated[Whole, Field(ge=1)] = Limits.max_bytes
    """The largest reference."""

    max_request_bytes: Annotated[Whole, Field(ge=1)] = Limits.max_request_bytes
    """All references of one request together, of both sides."""

    max_host_bytes: Annotated[Whole, Field(ge=1)] = Limits.max_host_bytes
    """All references that an authority holds at a time."""

    max_request_references: Annotated[Whole, Field(ge=1)] = Limits.max_request_references
    """References of one request, of both sides."""

    max_host_references: Annotated[Whole, Field(ge=1)] = Limits.max_host_references
    """References that an authority holds at a time; at most half of the descriptors that its process may have."""

    inline_bytes: Annotated[Whole, Field(ge=0, le=1 << 20)] = Limits.inline_bytes
    """Arrays and tables up to this size travel inside the message, which is quicker for them."""

    unused_ttl: Annotated[Milliseconds, Field(ge=1)] = Limits.unused_ttl
    """How long a reference may wait for the request that it is for, or a result for the caller to take it."""

    copy_timeout: Annotated[Milliseconds, Field(ge=1)] = Limits.copy_timeout
    """How long a copy over gRPC may make no progress; and the whole of it that long, and a second for every 64 KiB."""

    @property
    def limits(self) -> Limits:
        """The same, for those who enforce them."""
        return Limits(**self.model_dump())
