"""URLs of session stores, and checks of the settings that depend on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from snakepit_otel.sessions.backends.redis._address import SCHEMES, Address, parse_url

_SQLITE = "sqlite:///"
_OF_REDIS = ("namespace", "username", "password_file", "ca", "certificate", "key", "connections", "shards")
_OF_TLS = ("ca", "certificate", "key")
_OF_STORES = ("durability", "timeout")


class Durability(StrEnum):
    """The loss that an acknowledged write survives: of the process, of the machine, or of the store's server."""

    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICA = "replica"


def checked_url(url: str | None) -> str | None:
    """Return the URL of a store. Raises `ValueError`, which shows none of its secrets."""
    if not url:
        return None
    if url.startswith("sqlite:"):
        if not url.startswith(_SQLITE) or len(url) == len(_SQLITE) or "?" in url:
            raise ValueError("the URL of a SQLite file is sqlite:///FILE, or sqlite:////PATH/FILE")
    elif url.partition("://")[0].lower() not in SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"the URL begins with none of sqlite:///, {schemes}")
    else:
        parse_url(url)
    return url


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL, None for another one."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def check_store(url: str | None, backend: str, given: Mapping[str, object]) -> None:
    """Check that the settings that are given fit the store's URL. Raises `ValueError` that begins with the setting."""
    if not url:
        _refuse(given, (*_OF_REDIS, *_OF_STORES), "is for a store with a url, and there is no session_store.url")
    elif backend != "memory":
        raise ValueError("url is for the stores of this package, and session_store.backend names another one")
    elif sqlite_path(url) is not None:
        _refuse(given, _OF_REDIS, "is for a Redis or Valkey, and session_store.url names a SQLite file")
        if given.get("durability") is Durability.REPLICA:
            raise ValueError('durability is "replica", which a SQLite file has not; use "memory" or "fsync"')
    else:
        _check_redis(given, parse_url(url))


def _refuse(given: Mapping[str, object], names: Iterable[str], reason: str) -> None:
    for name in names:
        if name in given:
            raise ValueError(f"{name} {reason}")


def _check_redis(given: Mapping[str, object], address: Address) -> None:
    if ("certificate" in given) != ("key" in given):
        raise ValueError("certificate and session_store.key belong together, and one is missing")
    if not address.tls:
        _refuse(given, _OF_TLS, "is for TLS; the url begins with rediss:// then")
    if address.password is not None:
        _refuse(given, ("password_file",), "is given, and the url has a password, too; leave it out there")
    if address.username is not None:
        _refuse(given, ("username",), "is given, and the url has a user, too; leave it out there")
