"""The limits of shared memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from snakepit_otel.validation import Milliseconds, Whole


class ZeroCopySettings(BaseModel):
    """How much may be shared, and what becomes of what cannot be. Sizes are in bytes, times in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    """Share memory. If not, the bytes are copied over gRPC, which `allow_fallback` may forbid."""

    allow_fallback: bool = True
    """Copy over gRPC what cannot be shared; if not, it is refused with `ZeroCopyUnavailable`."""

    max_bytes: Annotated[Whole, Field(ge=1)] = 1 << 30
    """The largest reference."""

    max_request_bytes: Annotated[Whole, Field(ge=1)] = 4 << 30
    """All references of one request together, of both sides."""

    max_host_bytes: Annotated[Whole, Field(ge=1)] = 8 << 30
    """All references that an authority holds at a time."""

    max_request_references: Annotated[Whole, Field(ge=1)] = 256
    """References of one request, of both sides."""

    max_host_references: Annotated[Whole, Field(ge=1)] = 512
    """References that an authority holds at a time; at most half of the descriptors that its process may have."""

    inline_bytes: Annotated[Whole, Field(ge=0, le=1 << 20)] = 4 << 10
    """Arrays and tables up to this size travel inside the message, which is quicker for them."""

    unused_ttl: Annotated[Milliseconds, Field(ge=1)] = 60_000
    """How long a reference may wait for the request that it is for, or a result for the caller to take it."""
