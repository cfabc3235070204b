"""Interceptors for channels: every call carries the trace context, and is observed to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import grpc
from grpc import aio

from snakepit_otel.rpc.client_call import ClientCall, Peer
from snakepit_otel.rpc.grpc_factories import unduplicated
from snakepit_otel.rpc.method import method_of
from snakepit_otel.telemetry import _switch, outgoing


def client_interceptors(target: str | None = None) -> list[aio.ClientInterceptor]:
    """Return what observes every call on an aio channel; `target` is what the channel is made for."""
    peer = None if target is None else Peer(target)
    return [_UnaryUnary(peer), _UnaryStream(peer), _StreamUnary(peer), _StreamStream(peer)]


class _Aio:
    def __init__(self, peer: Peer | None) -> None:
        self._peer = peer

    async def _observe(self, proceed: Callable[[Any, Any], Awaitable[Any]], details: Any, request: Any) -> Any:
        if not _switch.enabled:
            return await proceed(details, request)
        observed = ClientCall(method_of(details.method), self._peer)
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
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._observe(continuation, client_call_details, request)


class _UnaryStream(_Aio, aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._observe(continuation, client_call_details, request)


class _StreamUnary(_Aio, aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._observe(continuation, client_call_details, request_iterator)


class _StreamStream(_Aio, aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._observe(continuation, client_call_details, request_iterator)


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
    """Observes every call on a blocking channel; `target` is what the channel is made for."""

    def __init__(self, target: str | None = None) -> None:
        self._peer = None if target is None else Peer(target)

    def _observe(self, proceed: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        if not _switch.enabled:
            return proceed(details, request)
        observed = ClientCall(method_of(details.method), self._peer)
        try:
            with observed.current(), unduplicated():
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

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See `grpc.UnaryUnaryClientInterceptor`."""
        return self._observe(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See `grpc.UnaryStreamClientInterceptor`."""
        return self._observe(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See `grpc.StreamUnaryClientInterceptor`."""
        return self._observe(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See `grpc.StreamStreamClientInterceptor`."""
        return self._observe(continuation, client_call_details, request_iterator)


_BY_PLACE = ("timeout", "metadata", "credentials", "wait_for_ready", "compression")
"""What a blocking stub's methods take in this order, too."""


class ObservedCallable:
    """Stands for a unary method of somebody else's stub, blocking or aio, and observes the calls it makes.

    Whether to is asked of `enabled` for each of them.
    """

    def __init__(self, method: str, multicallable: Any, enabled: Callable[[], bool]) -> None:
        self._method = method
        self._multicallable = multicallable
        self._enabled = enabled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._multicallable, name)

    def __call__(self, request: Any, *by_place: Any, **given: Any) -> Any:
        """Make the call; see `grpc.UnaryUnaryMultiCallable` and its namesake in `grpc.aio`."""
        if not _switch.enabled or not self._enabled():
            return self._multicallable(request, *by_place, **given)
        given.update(zip(_BY_PLACE, by_place, strict=False))
        metadata = given.pop("metadata", None)
        observed = ClientCall(method_of(self._method))
        try:
            with observed.current(), unduplicated():
                call = self._multicallable(request, metadata=_passed_on(metadata), **given)
        except BaseException as error:
            observed.settle_raised(error)
            raise
        if isinstance(call, aio.Call):
            observed.follow_aio(call)
        else:
            # A blocking one's answer.
            observed.settle(grpc.StatusCode.OK)
        return call


def _passed_on(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Return metadata with our trace context in place of another: calls that pass on what came have their caller's."""
    ours = outgoing()
    keys = {key for key, _ in ours}
    return [*((key, value) for key, value in metadata or () if key not in keys), *ours]
