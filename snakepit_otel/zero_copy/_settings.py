"""Settings of shared memory."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from snakepit_otel.common.validation import Milliseconds, Whole
from snakepit_otel.zero_copy._limits import Limits


class ZeroCopySettings(BaseModel):
    """Limits of shared memory, and the copy in place of it. Sizes are in bytes, times in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(
        default=Limits.enabled,
        description="Share memory. If not, the bytes are copied over gRPC, which `allow_fallback` may forbid.",
    )
    allow_fallback: bool = Field(
        default=Limits.allow_fallback,
        description="Copy over gRPC where memory cannot be shared; if not, `ZeroCopyUnavailable` is raised.",
    )
    max_bytes: Whole = Field(default=Limits.max_bytes, ge=1, description="The largest reference.")
    max_request_bytes: Whole = Field(
        default=Limits.max_request_bytes, ge=1, description="All references of one request together, of both sides."
    )
    max_host_bytes: Whole = Field(
        default=Limits.max_host_bytes, ge=1, description="All references that an authority holds at a time."
    )
    max_request_references: Whole = Field(
        default=Limits.max_request_references, ge=1, description="References of one request, of both sides."
    )
    max_host_references: Whole = Field(
        default=Limits.max_host_references,
        ge=1,
        description="References that an authority holds at a time; at most half of its process' file descriptors.",
    )
    inline_bytes: Whole = Field(
        default=Limits.inline_bytes,
        ge=0,
        le=1 << 20,
        description="Arrays and tables up to this size travel inside the message, which is quicker for them.",
    )
    unused_ttl: Milliseconds = Field(
        default=Limits.unused_ttl,
        ge=1,
        description="How long a reference may wait for its request, or a result for its caller.",
    )
    copy_timeout: Milliseconds = Field(
        default=Limits.copy_timeout,
        ge=1,
        description="How long a copy over gRPC may make no progress; all of it has a second more for every 64 KiB.",
    )

    @property
    def limits(self) -> Limits:
        return Limits(**self.model_dump())
