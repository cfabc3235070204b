"""Stubs of others, observed: they take what they took before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.rpc import ObservedCallable
from snakepit_otel.testing import Capture


def test_a_blocking_stub_takes_arguments_by_place(capture: Capture) -> None:
    """What a blocking method takes by place it takes by place when it is observed, metadata among it."""
    seen: list[tuple[str, str | bytes]] = []

    def answer(_request: pb.PingRequest, context: grpc.ServicerContext) -> pb.PingResponse:
        seen.extend(context.invocation_metadata())
        return pb.PingResponse(message="here")

    handler = grpc.unary_unary_rpc_method_handler(answer, pb.PingRequest.FromString, pb.PingResponse.SerializeToString)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("snakepit.bridge.BridgeService", {"Ping": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = BridgeServiceStub(channel)
            ping = ObservedCallable("snakepit.bridge.BridgeService/Ping", stub.Ping, lambda: True)
            assert ping(pb.PingRequest(), 30.0, [("key", "value"), ("traceparent", "another's")]).message == "here"
    finally:
        server.stop(None).wait()
    assert ("key", "value") in seen
    [span] = capture.spans("snakepit.bridge.BridgeService/Ping")
    [sent] = [value for key, value in seen if key == "traceparent"]
    assert span.span_id in str(sent)
