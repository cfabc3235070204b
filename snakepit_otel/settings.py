"""One tree of settings: keyword arguments, then environment, then a TOML file, then defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from snakepit_otel.bridge.addresses import Tls
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.sessions.settings import SessionSettings
from snakepit_otel.validation import build
from snakepit_otel.zero_copy.settings import ZeroCopySettings


class TlsSettings(BaseModel):
    """PEM files for a TCP listener."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """The authority that signs clients' certificates; with it, clients must have one."""

    def files(self) -> Tls:
        """The same for the bridge."""
        return Tls(self.certificate, self.key, self.client_ca)


class ServerSettings(BaseModel):
    """Where the authority listens beside the Unix socket of its workers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str | None = None
    """`HOST:PORT` for callers on TCP; none by default."""

    socket: Path | None = None
    """The path of the Unix socket; by default a new private directory has it."""

    tls: TlsSettings | None = None

    insecure: bool = False
    """Listen beyond loopback without TLS: anybody who reaches the port may call."""

    trust_trace_context: bool | None = None
    """Whether callers' traces are continued, and their sampling obeyed; if not, ours begin anew and link to
    theirs. By default those of callers on the Unix socket, and of those with a certificate on TCP."""


class Settings(BaseSettings):
    """Everything that can be set; environment variables are `SNAKEPIT_OTEL_<GROUP>__<NAME>`."""

    model_config = SettingsConfigDict(
        extra="forbid", env_prefix="SNAKEPIT_OTEL_", env_nested_delimiter="__", frozen=True
    )

    adapter: str | None = None
    """The adapter class: `package.module:Class` or `path/to/file.py:Class`."""

    authority_tools: tuple[str, ...] = ()
    """Modules whose `@authority_tool` functions are registered."""

    session_store: SessionSettings = SessionSettings()
    pool: PoolSettings = PoolSettings()
    server: ServerSettings = ServerSettings()
    zero_copy: ZeroCopySettings = ZeroCopySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no files that are not named
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no files that are not named
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say which source wins: what the program or its command line says, then the environment."""
        return init_settings, env_settings


def load_settings(file: Path | None = None, values: dict[str, Any] | None = None) -> Settings:
    """Return the settings from `values`, the environment and `file`, in this order of precedence.

    Raises `ConfigurationError` for a file that cannot be read, an unknown key or a bad value.
    """
    from_file = _read(file) if file is not None else {}
    if from_file:
        build(_FileShape, from_file, f"{file}: ")
    from_environment = build(Settings, {}, "environment: ").model_dump(exclude_unset=True)
    merged = _merged(_merged(from_file, from_environment), values or {})
    return build(Settings, merged)


class _FileShape(BaseModel):
    """The same tree without the environment, so that a complaint about the file is about the file."""

    model_config = ConfigDict(extra="forbid")

    adapter: str | None = None
    authority_tools: tuple[str, ...] = ()
    session_store: SessionSettings = SessionSettings()
    pool: PoolSettings = PoolSettings()
    server: ServerSettings = ServerSettings()
    zero_copy: ZeroCopySettings = ZeroCopySettings()


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged
