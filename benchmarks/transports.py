"""Transport between the processes of a benchmark, `local` or `grpc`, and the environment of those that it starts."""

from __future__ import annotations

import os
from typing import get_args

from snakepit_otel.rpc.transports import LocalTransportName

_VARIABLE = "SNAKEPIT_OTEL_SERVER__LOCAL_TRANSPORT"
TRANSPORTS: tuple[LocalTransportName, ...] = get_args(LocalTransportName)


def choose(transport: str) -> None:
    """Have this process and all that it starts use it."""
    os.environ[_VARIABLE] = transport


def chosen() -> LocalTransportName:
    """Return the transport that was chosen, here or where this process was started; the local one if none was."""
    (transport,) = (name for name in TRANSPORTS if name == os.environ.get(_VARIABLE, TRANSPORTS[0]))
    return transport


def server_settings() -> dict[str, str]:
    """Return settings of a server with the transport that was chosen."""
    return {"local_transport": chosen()}


def environ_of(transport: str) -> dict[str, str]:
    """Return the environment that chooses a transport for one process."""
    return {_VARIABLE: transport}


def inherited() -> dict[str, str]:
    """Return the environment without what sets telemetry, and without settings but for the transport."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "SNAKEPIT_")) or name == _VARIABLE
    }
