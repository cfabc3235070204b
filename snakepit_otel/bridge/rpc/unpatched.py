"""Channels and servers as gRPC makes them, whoever has put something in place of its functions.

OpenTelemetry's contrib instrumentation of gRPC replaces `grpc.aio.server` and its like by functions that add
its interceptors. On what is ours they would tell every call a second time, and often with another status.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import grpc

# Private modules, since contrib's functions do not say what they stand for; a test makes one of each kind.
from grpc import _server as _blocking
from grpc import aio
from grpc.aio import _channel, _server

from snakepit_otel.bridge.rpc.targets import channel_options, target_of

Options = Sequence[tuple[str, Any]]
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
    """Make an aio channel to `unix:PATH`, `HOST:PORT` or a target of gRPC's; secure if there are credentials."""
    # The types of grpc's private modules and of its public ones are told apart, though they are the same.
    made: Any = {"options": channel_options(target, options), "interceptors": interceptors}
    target = target_of(target)
    if credentials is None:
        return cast("aio.Channel", _channel.insecure_channel(target, **made))
    return cast("aio.Channel", _channel.secure_channel(target, credentials, **made))


def blocking_server(
    threads: ThreadPoolExecutor, *, interceptors: Sequence[grpc.ServerInterceptor] = (), options: Options = ()
) -> grpc.Server:
    """Make a blocking server."""
    server: grpc.Server = _blocking.create_server(threads, (), interceptors, options, None, None, False)
    return server


def blocking_channel(target: str, *, options: Options = ()) -> grpc.Channel:
    """Make a blocking channel; targets as above."""
    made = inspect.unwrap(grpc.insecure_channel)
    channel: grpc.Channel = made(target_of(target), channel_options(target, options))
    return channel


@contextmanager
def unduplicated() -> Iterator[None]:
    """Keep contrib's interceptors of a blocking channel from telling the calls made in the block."""
    if _CONTRIB not in sys.modules:
        yield
        return
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation():
        yield
