"""Where the commands find a running authority."""

from __future__ import annotations

import os
from pathlib import Path


def default_socket() -> Path:
    """The socket of `serve`, unless told otherwise: one for each user of the machine."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and len(base) < 60:
        return Path(base) / "snakepit-otel" / "authority.sock"
    return Path(f"/tmp/snakepit-otel-{os.getuid()}/authority.sock")  # noqa: S108 - its mode and owner are checked


def resolved(address: str | None) -> str:
    """The address to call: the one given, or that of `serve` on this machine."""
    address = address or os.environ.get("SNAKEPIT_OTEL_ADDRESS")
    if not address:
        return f"unix:{default_socket()}"
    return f"unix:{address}" if address.startswith("/") else address
