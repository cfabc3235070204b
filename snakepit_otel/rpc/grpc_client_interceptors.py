"""Interceptors for channels: a client span for every call, to its end, and its trace context in the metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from grpc import aio

from snakepit_otel.rpc.client_call import Peer
from snakepit_otel.rpc.grpc_client_call import GrpcClientCall
from snakepit_otel.rpc.grpc_factories import without_contrib_spans
from snakepit_otel.rpc.method import OK, method_of
from snakepit_otel.telemetry import _switch, outgoing


def client_interceptors(target: str | None = None) -> list[aio.ClientInterceptor]:
    """Return interceptors for an aio channel to `target`."""
    peer = None if target is None else Peer(target)
    return [_UnaryUnary(peer), _UnaryStream(peer), _StreamUnary(peer), _StreamStream(peer)]


class _Aio:
    def __init__(self, peer: Peer | None) -> None:
        self._peer = peer

    async def _observe(self, proceed: Any, details: Any, request: Any) -> Any:
        if not _switch.enabled:
            return await proceed(details, request)
        observed = GrpcClientCall(method_of(details.method), self._peer)
        try:
            with observed.current():
                metadata = outgoing(details.metadata)
            call = await proceed(details._replace(metadata=aio.Metadata(*metadata)), request)
        except BaseException as error:
            observed.settle_raised(error)
            raise
        observed.follow_aio(call)
        return call


# gRPC sorts interceptors by their class, so there is one for each kind of call.
class _UnaryUnary(_Aio, aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary: Any = _Aio._observe


class _UnaryStream(_Aio, aio.UnaryStreamClientInterceptor):
    intercept_unary_stream: Any = _Aio._observe


class _StreamUnary(_Aio, aio.StreamUnaryClientInterceptor):
    intercept_stream_unary: Any = _Aio._observe


class _StreamStream(_Aio, aio.StreamStreamClientInterceptor):
    intercept_stream_stream: Any = _Aio._observe


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class BlockingClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Makes a client span for every call on a blocking channel to `target`."""

    def __init__(self, target: str | None = None) -> None:
        self._peer = None if target is None else Peer(target)

    def _observe(self, proceed: Any, details: Any, request: Any) -> Any:
        if not _switch.enabled:
            return proceed(details, request)
        observed = GrpcClientCall(method_of(details.method), self._peer)
        try:
            with observed.current(), without_contrib_spans():
                call = proceed(
                    _Details(
                        details.method,
                        details.timeout,
                        outgoing(details.metadata),
                        details.credentials,
                        details.wait_for_ready,
                        details.compression,
                    ),
                    request,
                )
        except BaseException as error:
            observed.settle_raised(error)
            raise
        observed.follow(call)
        return call

    # One for all kinds of calls.
    intercept_unary_unary: Any = _observe
    intercept_unary_stream: Any = _observe
    intercept_stream_unary: Any = _observe
    intercept_stream_stream: Any = _observe


# Parameters of a blocking stub's methods after the request, in order.
_POSITIONAL = ("timeout", "metadata", "credentials", "wait_for_ready", "compression")


class ObservedCallable:
    """Unary method of another package's stub, blocking or aio, with a client span for each call while `enabled`."""

    def __init__(self, method: str, multicallable: Any, enabled: Callable[[], bool]) -> None:
        self._method = method
        self._multicallable = multicallable
        self._enabled = enabled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._multicallable, name)

    def __call__(self, request: Any, *positional: Any, **given: Any) -> Any:
        """Make the call; see `grpc.UnaryUnaryMultiCallable` and its namesake in `grpc.aio`."""
        if not _switch.enabled or not self._enabled():
            return self._multicallable(request, *positional, **given)
        given.update(zip(_POSITIONAL, positional, strict=False))
        metadata = given.pop("metadata", None)
        observed = GrpcClientCall(method_of(self._method))
        try:
            with observed.current(), without_contrib_spans():
                call = self._multicallable(request, metadata=_passed_on(metadata), **given)
        except BaseException as error:
            observed.settle_raised(error)
            raise
        if isinstance(call, aio.Call):
            observed.follow_aio(call)
        else:
            # The answer of a blocking stub.
            observed.settle(OK)
        return call


def _passed_on(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Return metadata with the current trace context: calls that pass metadata on have their caller's context there."""
    current = outgoing()
    keys = {key for key, _ in current}
    return [*((key, value) for key, value in metadata or () if key not in keys), *current]
