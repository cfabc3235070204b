"""Trust in callers' trace context."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc import aio

from snakepit_otel import Snakepit
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.methods import PING
from snakepit_otel.rpc.addresses import only_known_callers
from snakepit_otel.rpc.tls import Tls
from snakepit_otel.testing import Capture
from tests.adapters_for_tests import Useful

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def trace_of_a_call(capture: Capture, address: str) -> str:
    """Make a call from within a trace, and return the trace that the authority puts it in."""
    capture.clear()
    async with aio.insecure_channel(address) as channel:
        headers = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
        await BridgeServiceStub(channel).Ping(pb.PingRequest(), metadata=headers)
    (span,) = capture.spans(PING)
    return span.trace_id


@pytest.mark.parametrize(("setting", "continued"), [(None, False), (True, True), (False, False)])
async def test_callers_on_tcp(capture: Capture, setting: bool | None, continued: bool) -> None:
    """Callers on TCP who have not shown who they are begin traces of ours, unless a setting says otherwise.

    Those on the Unix socket, our workers among them, are always in theirs.
    """
    server = {"listen": "127.0.0.1:0", "trust_trace_context": setting}
    async with Snakepit(Useful, workers=1, server=server) as pit:
        assert pit.address is not None
        assert (await trace_of_a_call(capture, pit.address) == TRACE) is continued
        assert await trace_of_a_call(capture, pit.socket) == TRACE


def test_known_callers() -> None:
    """Whoever can open the private socket, or has a certificate that we asked for, is known."""
    tls = Tls(Path("chain.pem"), Path("key.pem"))
    assert only_known_callers("unix:/run/s.sock", None)
    assert only_known_callers("0.0.0.0:1", Tls(tls.certificate, tls.key, Path("clients.pem")))
    assert not only_known_callers("0.0.0.0:1", tls)
    assert not only_known_callers("127.0.0.1:1", None)
