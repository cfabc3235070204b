"""Services of the bridge, with their messages."""

from __future__ import annotations

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as buffers
from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as supervision
from snakepit_otel.bridge.wire.raw_messages import read_chunk, read_response, serialized
from snakepit_otel.rpc.services import methods_of

BRIDGE = methods_of(pb.DESCRIPTOR.services_by_name["BridgeService"])
BUFFERS = methods_of(buffers.DESCRIPTOR.services_by_name["BufferService"])
SUPERVISION = methods_of(supervision.DESCRIPTOR.services_by_name["SupervisionService"])

# The bridge of a worker as its authority calls it: large requests and results are passed on as they came.
WORKER = methods_of(
    pb.DESCRIPTOR.services_by_name["BridgeService"],
    ExecuteTool={"write_request": serialized, "read_response": read_response},
    ExecuteStreamingTool={"write_request": serialized, "read_response": read_chunk},
)
