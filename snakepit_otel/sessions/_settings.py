"""The settings of a session store, with the guide's names, units and defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from snakepit_otel.common.validation import Milliseconds, Number, Whole
from snakepit_otel.sessions._quota import Limits, Overflow, checked_quota
from snakepit_otel.sessions._session import checked_ttl
from snakepit_otel.sessions._store_url import Durability, check_store, checked_url

MEMORY = "memory"


def _backend(value: str) -> str:
    if value != MEMORY and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value):
        raise ValueError('backend must be "memory" or "package.module:Class"')
    return value


class SessionSettings(BaseModel):
    """Settings of a session store; the first four as in the guide's configuration table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)

    default_ttl: Annotated[
        Number,
        AfterValidator(lambda ttl: checked_ttl(ttl, "default_ttl")),
        Field(description="Seconds a session lives after its last access, unless created with a TTL of its own."),
    ] = 3600.0
    max_ttl: Annotated[
        Number,
        AfterValidator(lambda ttl: checked_ttl(ttl, "max_ttl")),
        Field(description="The longest TTL in seconds that a session may be created with; at most ten years."),
    ] = 31 * 86_400.0
    max_sessions: Annotated[
        Number, AfterValidator(checked_quota), Field(description="The quota of live sessions; `inf` for none.")
    ] = 10_000.0
    max_sessions_per_owner: Annotated[
        Number,
        AfterValidator(lambda quota: checked_quota(quota, "max_sessions_per_owner")),
        Field(
            description="The quota of live sessions with the same owner, beyond which further ones are refused; "
            "`inf` for none. Sessions without an owner have no such quota."
        ),
    ] = float("inf")
    cleanup_interval: Annotated[
        Whole,
        Field(
            ge=1,
            le=86_400_000,
            description="Milliseconds between two sweeps, and the shortest time between two warnings of one kind.",
        ),
    ] = 60_000
    strict_mode: Annotated[
        bool, Field(description="Warn loudly when sessions accumulate, and name their creators.")
    ] = False
    create_on_request: Annotated[
        bool,
        Field(
            description="Whether a request creates the session that it names if it is not live; if not, it is refused "
            "with `SessionNotFound`."
        ),
    ] = True
    overflow: Annotated[
        Overflow, Field(description="At the quota: `reject` the new session, or `evict` the least recently used one.")
    ] = Overflow.REJECT
    accumulation_threshold: Annotated[
        Number, Field(gt=0, le=1, description="The share of the quota from which the watchdog warns.")
    ] = 0.8
    max_session_bytes: Annotated[
        Whole, Field(ge=256, description="Bytes of id, metadata and JSON state that one session may have.")
    ] = 1 << 20
    max_total_bytes: Annotated[
        Whole,
        Field(
            ge=1 << 16,
            description="Bytes of memory that all sessions together may take: their content, and about 1 KiB a "
            "session and 512 bytes a key of state. At the limit, `overflow` decides.",
        ),
    ] = 1 << 30
    table_name: Annotated[str, Field(description="The store's name in events and metrics.")] = "sessions"
    backend: Annotated[
        str,
        AfterValidator(_backend),
        Field(description="The session backend: `memory`, or `package.module:Class` of another one."),
    ] = MEMORY
    backend_options: Annotated[dict[str, Any], Field(description="Keyword arguments of another backend's class.")] = {}

    url: Annotated[
        str | None,
        AfterValidator(checked_url),
        Field(
            description="Where sessions are kept: none for the memory of this process, `sqlite:///FILE`, "
            "`redis://HOST:PORT`, or `rediss`, `redis+sentinel`, `redis+cluster` for TLS, Sentinel and clusters."
        ),
    ] = None
    namespace: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9._-]{1,64}$",
            description="The first part of all keys in a Redis or Valkey; stores of different names share nothing.",
        ),
    ] = "snakepit"
    username: Annotated[str | None, Field(description="The user of the Redis or Valkey.")] = None
    password_file: Annotated[
        Path | None, Field(description="A file with that user's password, read for each connection.")
    ] = None
    ca: Annotated[
        Path | None, Field(description="PEM file of the authority that signed the server's certificate, for `rediss`.")
    ] = None
    certificate: Annotated[Path | None, Field(description="PEM file, for mutual TLS; with `key`.")] = None
    key: Annotated[Path | None, Field(description="PEM file, for mutual TLS; with `certificate`.")] = None
    durability: Annotated[
        Durability,
        Field(
            description="What an acknowledged write survives: `memory` the end of this process, `fsync` that of the "
            "machine, `replica` that of the Redis server."
        ),
    ] = Durability.MEMORY
    timeout: Annotated[
        Milliseconds, Field(ge=10, description="Milliseconds that an operation may take in a store by URL.")
    ] = 1_000
    connections: Annotated[
        Whole, Field(ge=1, le=1_000, description="Connections to one Redis or Valkey server, at most.")
    ] = 32
    shards: Annotated[
        Whole,
        Field(
            ge=1,
            le=1_024,
            description="Parts into which sessions in Redis are divided; each has its share of the quota to itself.",
        ),
    ] = 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}
        check_store(self.url, self.backend, given)
        if self.default_ttl > self.max_ttl:
            raise ValueError(f"default_ttl is {self.default_ttl:g} seconds, and max_ttl only {self.max_ttl:g}")
        if self.backend == MEMORY and self.backend_options:
            raise ValueError("backend_options are for another backend than `memory`, which has none")
        return self

    @property
    def limits(self) -> Limits:
        return Limits(
            self.max_sessions,
            self.overflow,
            self.max_session_bytes,
            self.max_total_bytes,
            self.max_sessions_per_owner,
        )
