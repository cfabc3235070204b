"""The bridge's own calls on its stubs, observed without interceptors, which cost an aio channel much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc

from snakepit_otel.errors import AuthorityUnavailable, BudgetExceeded, DeadlineExceeded, MessageTooLarge, SnakepitError
from snakepit_otel.rpc.client_call import ClientCall, Peer
from snakepit_otel.rpc.local_sockets import without_descriptors
from snakepit_otel.rpc.method import method_of
from snakepit_otel.telemetry import _switch, outgoing

_NO_ROOM = f"{BudgetExceeded.reason}: "


async def call(
    stub: Any,
    method: str,
    request: Any,
    timeout: float | None = None,
    headers: list[tuple[str, str]] | None = None,
    peer: Peer | None = None,
) -> Any:
    """Make a unary call on an aio stub; `method` is the full name. Raises `grpc.aio.AioRpcError`."""
    multicallable = getattr(stub, method.rpartition("/")[2])
    if not _switch.enabled:
        return await multicallable(request, timeout=timeout, metadata=headers)
    with ClientCall(method_of(method), peer):
        return await multicallable(request, timeout=timeout, metadata=outgoing(headers))


def call_blocking(
    stub: Any,
    method: str,
    request: Any,
    timeout: float | None = None,
    headers: list[tuple[str, str]] | None = None,
    peer: Peer | None = None,
) -> Any:
    """Make a unary call on a blocking stub. Raises `grpc.RpcError`."""
    multicallable = getattr(stub, method.rpartition("/")[2])
    if not _switch.enabled:
        return multicallable(request, timeout=timeout, metadata=headers)
    with ClientCall(method_of(method), peer):
        return multicallable(request, timeout=timeout, metadata=outgoing(headers))


async def pour(
    stub: Any,
    method: str,
    request: Any,
    take: Callable[[Any], Awaitable[None]],
    timeout: float | None = None,
    peer: Peer | None = None,
    headers: list[tuple[str, str]] | None = None,
) -> None:
    """Make a call that streams its answer, and hand each message to `take`, waiting for it.

    Whatever `take` raises cancels the call.
    """
    multicallable = getattr(stub, method.rpartition("/")[2])
    if not _switch.enabled:
        await _hand_on(multicallable(request, timeout=timeout, metadata=headers), take)
        return
    observed = ClientCall(method_of(method), peer)
    with observed:

        async def taking(message: Any) -> None:
            try:
                await take(message)
            except BaseException as error:
                # Not the call's failure: we cancel it, as whoever reads a stream no further.
                observed.note_cancelled(error)
                raise

        await _hand_on(multicallable(request, timeout=timeout, metadata=outgoing(headers)), taking)


async def push(stub: Any, method: str, messages: Iterable[Any], peer: Peer | None = None) -> Any:
    """Make a call that streams its request, and return the answer. Raises `grpc.aio.AioRpcError`."""
    multicallable = getattr(stub, method.rpartition("/")[2])

    async def each() -> AsyncIterator[Any]:
        for message in messages:
            yield message

    if not _switch.enabled:
        return await multicallable(each())
    with ClientCall(method_of(method), peer):
        return await multicallable(each(), metadata=outgoing())


async def _hand_on(stream: Any, take: Callable[[Any], Awaitable[None]]) -> None:
    """Hand on what a stream has; cancelled meanwhile, cancel the stream, and return once it knows.

    A read that is cancelled, rather than its stream, never gives back what gRPC has allocated for it: some
    kilobytes for each consumer who leaves early.
    """
    reading, left = True, False

    async def pump() -> None:
        nonlocal reading
        async for message in stream:
            if left:
                return
            reading = False
            await take(message)
            reading = True

    pumping = asyncio.ensure_future(pump())
    try:
        await asyncio.shield(pumping)
    except asyncio.CancelledError:
        left = True
        stream.cancel()
        if not reading:
            pumping.cancel()
        await asyncio.wait([pumping])
        if not pumping.cancelled():
            # Looked at, or it would be reported as never looked at.
            pumping.exception()
        raise
    finally:
        stream.cancel()


def translated(error: grpc.RpcError, what: str) -> SnakepitError:
    """Return our own error for a failed call; `what` names the peer."""
    code, details = error.code(), without_descriptors(error.details() or "")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{what} did not answer in time")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return MessageTooLarge(f"a message to or from {what} is over the limit: {details}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.startswith(_NO_ROOM):
        return BudgetExceeded(details.removeprefix(_NO_ROOM))
    return AuthorityUnavailable(f"{what} cannot be reached ({code.name}: {details})")
