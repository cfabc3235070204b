"""Options of a Redis or Valkey that keeps sessions, as the settings give them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from snakepit_otel.errors import ConfigurationError

Durability = Literal["memory", "fsync", "replica"]


@dataclass(frozen=True)
class RedisOptions:
    """The address of a store and how it is used.

    `url` is `redis://`, `rediss://`, `redis+cluster://`, `rediss+cluster://` or `redis+sentinel://`, `timeout` is in
    seconds and for a whole operation, `connections` the most that are open at a time. `password` is the secret itself,
    and `password_file` has it, read for each connection; `ca`, `certificate` and `key` are paths. Raises
    `ConfigurationError` naming the setting.
    """

    url: str = field(repr=False)  # which may have a password
    namespace: str = "snakepit"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    durability: Durability = "memory"
    timeout: float = 1.0
    connections: int = 32
    shards: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.namespace):
            raise ConfigurationError(
                f"session_store.namespace is {self.namespace!r:.80}; it must be 1 to 64 letters, digits, "
                "'.', '_' or '-'"
            )
        if not 1 <= self.shards <= 1_024:
            raise ConfigurationError(f"session_store.shards is {self.shards}; it must be from 1 to 1024")
