"""Channels and servers by gRPC's own functions, also where instrumentation has replaced them.

OpenTelemetry's contrib instrumentation of gRPC replaces them by functions that add its interceptors, which would
record every call of our channels and servers twice, often with another status.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import grpc

# Private modules, since contrib's functions do not keep the replaced ones; a test makes one of each kind.
from grpc import _server as _blocking
from grpc import aio
from grpc.aio import _channel, _server

from snakepit_otel.common.loopback import leads_here
from snakepit_otel.rpc.local_sockets import LocalSocket, with_checks
from snakepit_otel.rpc.targets import socket_of, target_of

Options = Sequence[tuple[str, Any]]
# Without it, gRPC sends even loopback addresses through the proxy of `http_proxy`.
_NO_PROXY = ("grpc.enable_http_proxy", 0)
_CONTRIB = "opentelemetry.instrumentation.grpc"


def aio_server(*, interceptors: Sequence[aio.ServerInterceptor] = (), options: Options = ()) -> aio.Server:
    """Make an aio server."""
    server: aio.Server = _server.server(interceptors=interceptors, options=options)
    return server


def aio_channel(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    interceptors: Sequence[aio.ClientInterceptor] = (),
    options: Options = (),
) -> aio.Channel:
    """Make an aio channel, secure with credentials. Raises `UnsafeSocket`, or `ConfigurationError` for the address."""
    socket = socket_of(target)
    # For mypy the types of grpc's private modules differ from its public ones.
    made: Any = {"options": _options(target, options, socket), "interceptors": interceptors}
    target = socket.target if socket is not None else target_of(target)
    if credentials is None:
        channel: Any = _channel.insecure_channel(target, **made)
    else:
        channel = _channel.secure_channel(target, credentials, **made)
    return cast("aio.Channel", channel if socket is None else with_checks(channel, socket))


def blocking_server(
    threads: ThreadPoolExecutor, *, interceptors: Sequence[grpc.ServerInterceptor] = (), options: Options = ()
) -> grpc.Server:
    """Make a blocking server."""
    server: grpc.Server = _blocking.create_server(threads, (), interceptors, options, None, None, False)
    return server


def blocking_channel(target: str, *, options: Options = ()) -> grpc.Channel:
    """Make a blocking channel; targets and errors as above."""
    made, socket = inspect.unwrap(grpc.insecure_channel), socket_of(target)
    connected = socket.target if socket is not None else target_of(target)
    channel: Any = made(connected, _options(target, options, socket))
    return cast("grpc.Channel", channel if socket is None else with_checks(channel, socket))


def _options(target: str, options: Options, socket: LocalSocket | None) -> list[tuple[str, Any]]:
    own = socket.options if socket is not None else []
    return [*options, *own, *([_NO_PROXY] if leads_here(target) else [])]


@contextmanager
def without_contrib_spans() -> Iterator[None]:
    """Suppress contrib's interceptors of a blocking channel for the calls made in the block."""
    if _CONTRIB not in sys.modules:
        yield
        return
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation():
        yield
