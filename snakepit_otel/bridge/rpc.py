"""Calls over gRPC, both ends: trace context in metadata, a span and a duration for each, the true status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from snakepit_otel.errors import AuthorityUnavailable, DeadlineExceeded, MessageTooLarge, SnakepitError
from snakepit_otel.telemetry import Observation, incoming, names, outgoing, switch

# Codes that are the server's own fault, by the RPC conventions.
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def _attributes(method: str) -> dict[str, Any]:
    return {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: method}


def _note(observation: Observation, code: grpc.StatusCode) -> None:
    observation.set({names.RPC_RESPONSE_STATUS_CODE: code.name})
    if code is not grpc.StatusCode.OK:
        observation.fail(code.name)


async def call(
    stub: Any,
    method: str,
    request: Any,
    timeout: float | None = None,
    headers: list[tuple[str, str]] | None = None,
) -> Any:
    """Make a unary call on an aio stub; `method` is the full name. Raises `grpc.aio.AioRpcError`."""
    multicallable = getattr(stub, method.rpartition("/")[2])
    if not switch.on:
        return await multicallable(request, timeout=timeout, metadata=headers)
    with Observation(names.RPC_CLIENT, _attributes(method), span_name=method) as observation:
        rpc = multicallable(request, timeout=timeout, metadata=outgoing(headers))
        try:
            response = await rpc
        except aio.AioRpcError as error:
            _note(observation, error.code())
            raise
        except asyncio.CancelledError:
            _note(observation, grpc.StatusCode.CANCELLED)
            raise
        _note(observation, grpc.StatusCode.OK)
        return response


def call_blocking(stub: Any, method: str, request: Any, timeout: float | None = None) -> Any:
    """Make a unary call on a blocking stub. Raises `grpc.RpcError`."""
    multicallable = getattr(stub, method.rpartition("/")[2])
    if not switch.on:
        return multicallable(request, timeout=timeout)
    with Observation(names.RPC_CLIENT, _attributes(method), span_name=method) as observation:
        try:
            response = multicallable(request, timeout=timeout, metadata=outgoing())
        except grpc.RpcError as error:
            _note(observation, error.code())
            raise
        _note(observation, grpc.StatusCode.OK)
        return response


async def pour(
    stub: Any, method: str, request: Any, take: Callable[[Any], Awaitable[None]], timeout: float | None = None
) -> None:
    """Make a call that streams its answer, and hand each message to `take`, waiting for it."""
    multicallable = getattr(stub, method.rpartition("/")[2])
    if not switch.on:
        await _hand_on(multicallable(request, timeout=timeout), take)
        return
    with Observation(names.RPC_CLIENT, _attributes(method), span_name=method) as observation:
        try:
            await _hand_on(multicallable(request, timeout=timeout, metadata=outgoing()), take)
        except aio.AioRpcError as error:
            _note(observation, error.code())
            raise
        except asyncio.CancelledError:
            _note(observation, grpc.StatusCode.CANCELLED)
            raise
        _note(observation, grpc.StatusCode.OK)


async def _hand_on(stream: Any, take: Callable[[Any], Awaitable[None]]) -> None:
    try:
        async for message in stream:
            await take(message)
    finally:
        stream.cancel()


def translated(error: grpc.RpcError, what: str) -> SnakepitError:
    """Return our own error for a failed call; `what` names the peer."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{what} did not answer in time")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return MessageTooLarge(f"a message to or from {what} is over the limit: {details}")
    return AuthorityUnavailable(f"{what} cannot be reached ({code.name}: {details})")


class ObservingInterceptor(aio.ServerInterceptor):
    """Continues the caller's trace and observes every call that a server takes.

    Handlers must be coroutines; those that stream use `context.write`, so that no context is held across
    a `yield`.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler; see grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if not switch.on or handler is None:
            return handler
        method = handler_call_details.method.lstrip("/")
        parent = incoming(handler_call_details.invocation_metadata)

        def observed(behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def handle(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
                response: Any = None
                raised: BaseException | None = None
                with Observation(names.RPC_SERVER, _attributes(method), span_name=method, parent=parent) as observation:
                    try:
                        response = await behaviour(request, context)
                    except BaseException as error:  # noqa: BLE001 - kept from the span, which goes by the status
                        raised = error
                    _note_served(observation, context, raised)
                if raised is not None:
                    raise raised
                return response

            return handle

        return _rewrapped(handler, observed)


def _note_served(observation: Observation, context: Any, raised: BaseException | None) -> None:
    if isinstance(raised, asyncio.CancelledError):
        name = grpc.StatusCode.CANCELLED.name
    elif raised is not None and not isinstance(raised, aio.AbortError):
        name = grpc.StatusCode.UNKNOWN.name
    else:
        code = context.code()
        name = code.name if isinstance(code, grpc.StatusCode) else grpc.StatusCode.OK.name
        if isinstance(code, int) and code:
            name = next(known.name for known in grpc.StatusCode if known.value[0] == code)
    observation.set({names.RPC_RESPONSE_STATUS_CODE: name})
    if name in _SERVER_FAULTS:
        observation.fail(name)


def _rewrapped(handler: Any, wrap: Callable[[Any], Any]) -> Any:
    kinds = {
        (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
        (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
        (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
        (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
    }
    attribute, build = kinds[handler.request_streaming, handler.response_streaming]
    return build(
        wrap(getattr(handler, attribute)),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
