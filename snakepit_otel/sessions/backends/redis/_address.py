"""Addresses of stores: the URLs of a Redis or Valkey, alone, behind Sentinel or as a cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from snakepit_otel.errors import ConfigurationError

_PORT = 6379
_SENTINEL_PORT = 26379


class Kind(StrEnum):
    """The arrangement of the servers."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": (Kind.SINGLE, False),
    "rediss": (Kind.SINGLE, True),
    "redis+sentinel": (Kind.SENTINEL, False),
    "rediss+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False),
    "rediss+cluster": (Kind.CLUSTER, True),
}
SCHEMES = tuple(_SCHEMES)


class Address(NamedTuple):
    """A parsed URL: the servers, or Sentinels, to begin with; `master` is the name that Sentinels have for a master."""

    kind: Kind
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    master: str
    database: int
    username: str | None
    password: str | None

    def __str__(self) -> str:
        servers = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{servers} (master {self.master})" if self.master else servers


def parse_url(url: str) -> Address:
    """Return the address in a URL such as `redis://host:6379/0` or `redis+sentinel://a:26379,b:26379/mymaster`.

    Raises `ConfigurationError`, which shows nothing of the URL that could be a secret.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise _invalid(f"begins with none of {', '.join(f'{name}://' for name in SCHEMES)}")
    kind, tls = _SCHEMES[scheme.lower()]
    parts = urlsplit(f"//{rest}", allow_fragments=False)
    if parts.query:
        raise _invalid("has a query; options are settings of their own, such as session_store.timeout")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = (unquote(part) for part in credentials.partition(":"))
    path = [unquote(part) for part in parts.path.split("/") if part]
    master = ""
    if kind is Kind.SENTINEL:
        if not path:
            raise _invalid("names no master, as redis+sentinel://host:26379/mymaster does")
        master = path.pop(0)
    database = _database(path, kind)
    port = _SENTINEL_PORT if kind is Kind.SENTINEL else _PORT
    servers = tuple(_server(host, port) for host in hosts.split(","))
    if kind is Kind.SINGLE and len(servers) > 1:
        raise _invalid("names several hosts, which a single server is not: use redis+cluster or redis+sentinel")
    return Address(kind, tls, servers, master, database, username or None, password or None)


def _server(text: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _invalid("has a port that is no number from 1 to 65535") from None
    if not host:
        raise _invalid("names no host")
    return host, default if port is None else port


def _database(path: list[str], kind: Kind) -> int:
    if not path:
        return 0
    if len(path) > 1 or not path[0].isdecimal() or not path[0].isascii():
        raise _invalid("has a path that is no number of a database")
    if kind is Kind.CLUSTER and path[0] != "0":
        raise _invalid("names a database; a cluster has only number 0")
    return int(path[0])


def _invalid(reason: str) -> ConfigurationError:
    return ConfigurationError(f"the URL {reason}")
