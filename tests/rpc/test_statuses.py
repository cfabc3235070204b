"""Every status code, on every kind of call, on aio and on blocking ends, by abort and by `set_code`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel.testing import Capture
from tests.rpc.ends import (
    KINDS,
    AioEnding,
    BlockingEnding,
    Gate,
    Told,
    WritingEnding,
    aio_call,
    aio_ends,
    aio_finish,
    blocking_call,
    blocking_ends,
    blocking_finish,
    both,
    measured,
    until_in_thread,
)
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_is_left")

FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""The codes that the RPC conventions call errors of the server."""
CODES = [code.name for code in grpc.StatusCode]
ENDINGS = [
    # Abort with OK is no way to end a call.
    ("abort", [code for code in CODES if code != "OK"]),
    ("set", CODES),
]


def check(capture: Capture, kind: str, codes: list[str], found: tuple[list[Told], list[Told]]) -> None:
    """See that both ends tell every one of the codes, in spans and in durations."""
    clients, servers = ({told.status: told for told in end} for end in found)
    assert clients.keys() == servers.keys() == set(codes)
    for code in codes:
        client, server = clients[code], servers[code]
        error = None if code == "OK" else code
        assert (client.error, client.failed) == (error, error is not None)
        fault = code if code in FAULTS else None
        assert (server.error, server.failed) == (fault, fault is not None)
        if fault:
            assert client.message == server.message == "as asked"
        assert server.span.parent is not None
        assert server.span.parent.span_id == client.span.context.span_id
    counted = measured(capture, kind)
    assert counted["rpc.client.call.duration"] == {(code, None if code == "OK" else code): 1 for code in codes}
    assert counted["rpc.server.call.duration"] == {(code, code if code in FAULTS else None): 1 for code in codes}


@pytest.mark.parametrize(("way", "codes"), ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("service", [AioEnding, WritingEnding])
async def test_aio(capture: Capture, gate: Gate, service: Any, kind: str, way: str, codes: list[str]) -> None:
    """Coroutines, async generators and handlers that write tell the status that the client got."""
    async with aio_ends(service(gate)) as channel:
        for code in codes:
            assert await aio_finish(aio_call(channel, kind, f"{way}:{code}"), kind) is grpc.StatusCode[code]
        check(capture, kind, codes, await until(both(capture, kind, len(codes))))


@pytest.mark.parametrize(("way", "codes"), ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_blocking(capture: Capture, gate: Gate, kind: str, way: str, codes: list[str]) -> None:
    """So do functions and generators on a blocking server."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        for code in codes:
            assert blocking_finish(blocking_call(channel, kind, f"{way}:{code}"), kind) is grpc.StatusCode[code]
        check(capture, kind, codes, until_in_thread(both(capture, kind, len(codes))))


# gRPC itself may never answer a call whose generator aborts in a thread of an aio server.
@pytest.mark.parametrize(
    ("kind", "way", "codes"),
    [(kind, *ending) for kind in KINDS for ending in ENDINGS if kind.endswith("unary") or ending[0] != "abort"],
)
async def test_functions_on_an_aio_server(capture: Capture, gate: Gate, kind: str, way: str, codes: list[str]) -> None:
    """So do functions and generators that an aio server runs in its threads."""
    async with aio_ends(BlockingEnding(gate)) as channel:
        for code in codes:
            assert await aio_finish(aio_call(channel, kind, f"{way}:{code}"), kind) is grpc.StatusCode[code]
        check(capture, kind, codes, await until(both(capture, kind, len(codes))))


@pytest.mark.parametrize("make", [lambda call: call, lambda call: call.with_call])
@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
def test_blocking_calls_that_wait(capture: Capture, gate: Gate, kind: str, make: Any) -> None:
    """Calls that wait for their answer are told as those that are futures are."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        call = make(getattr(channel, kind)(f"/test.ProcessExit/{kind}"))
        for code in ("OK", "NOT_FOUND"):
            request: Any = f"set:{code}".encode()
            with nullcontext() if code == "OK" else pytest.raises(grpc.RpcError):
                call(request if kind == "unary_unary" else iter([request]))
        check(capture, kind, ["OK", "NOT_FOUND"], until_in_thread(both(capture, kind, 2)))


@pytest.mark.parametrize(("how", "code"), [("raise", "UNKNOWN"), ("set_raise:NOT_FOUND", "NOT_FOUND")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("service", [AioEnding, WritingEnding, BlockingEnding])
async def test_what_a_handler_raises_on_an_aio_server(
    capture: Capture, gate: Gate, service: Any, kind: str, how: str, code: str
) -> None:
    """An exception is UNKNOWN, or the code that was set before."""
    async with aio_ends(service(gate)) as channel:
        assert await aio_finish(aio_call(channel, kind, how), kind) is grpc.StatusCode[code]
        (client,), (server,) = await until(both(capture, kind))
    assert client.status == server.status == code
    if how == "raise":
        assert server.message == "ValueError: a fault of the server"
    assert list(server.span.events) == []


@pytest.mark.parametrize(("how", "code"), [("raise", "UNKNOWN"), ("set_raise:NOT_FOUND", "NOT_FOUND")])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_raises_on_a_blocking_server(
    capture: Capture, gate: Gate, kind: str, how: str, code: str
) -> None:
    """The same on a blocking server."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        assert blocking_finish(blocking_call(channel, kind, how), kind) is grpc.StatusCode[code]
        (client,), (server,) = until_in_thread(both(capture, kind))
    assert client.status == server.status == code


async def test_a_status_from_further_on(capture: Capture, gate: Gate) -> None:
    """A handler that lets another call's error through fails itself: its own status is UNKNOWN, as gRPC has it."""
    async with aio_ends(AioEnding(gate)) as channel:
        assert await aio_finish(aio_call(channel, "unary_unary", "raise_rpc"), "unary_unary") is (
            grpc.StatusCode.UNKNOWN
        )
        (client,), (server,) = await until(both(capture, "unary_unary"))
    assert client.status == server.status == "UNKNOWN"


@pytest.mark.parametrize("number", [5, 99])
async def test_codes_as_numbers(capture: Capture, number: int) -> None:
    """aio servers take numbers for codes; those that are none are UNKNOWN."""

    async def handle(_: bytes, context: aio.ServicerContext[bytes, bytes]) -> None:
        await context.abort(number, "")  # type: ignore[arg-type]

    class Service:
        unary_unary = unary_stream = stream_unary = stream_stream = staticmethod(handle)

    async with aio_ends(Service()) as channel:
        await aio_finish(aio_call(channel, "unary_unary", ""), "unary_unary")
        (client,), (server,) = await until(both(capture, "unary_unary"))
    assert client.status == server.status == {5: "NOT_FOUND", 99: "UNKNOWN"}[number]
