"""Addresses that lead to the machine they are used on."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

_HOSTS = Path("/etc/hosts")
_LOCAL_SOCKETS = frozenset({"unix", "unix-abstract"})


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone, without a name lookup on the network."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def leads_here(target: str) -> bool:
    """Return whether a gRPC target is this machine alone: sockets, loopback addresses, and names of them.

    Names are looked up in /etc/hosts only: a lookup on the network takes time.
    """
    scheme, colon, rest = target.partition(":")
    scheme = scheme.lower()
    if colon and scheme in _LOCAL_SOCKETS:
        return True
    places = [target]
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        # A resolver may be named in between: dns://resolver/host:port.
        places = unquote(rest).rpartition("/")[2].split(",")
    return all(_is_here(_host(place)) for place in places)


def _is_here(host: str) -> bool:
    if is_loopback(host):
        return True
    address = _address(host)
    # A connection to the unspecified address goes to the machine itself.
    return address.is_unspecified if address is not None else _is_named_here(host)


def _host(place: str) -> str:
    if place.startswith("["):
        return place[1:].partition("]")[0]
    # With more than one colon it is an IPv6 address, and has no port.
    return place.partition(":")[0] if place.count(":") == 1 else place


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # As the resolver takes them, too: 127.1, 0x7f000001.
        with suppress(OSError, ValueError):
            if host[:1].isdigit() and not any(char.isspace() for char in host):
                return ipaddress.IPv4Address(socket.inet_aton(host))
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_named_here(host: str) -> bool:
    name = host.rstrip(".").lower()
    try:
        lines = _HOSTS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    entries = [fields for line in lines if len(fields := line.partition("#")[0].lower().split()) > 1]
    addresses = [_address(address) for address, *names in entries if name in names]
    return bool(addresses) and all(address is not None and address.is_loopback for address in addresses)
