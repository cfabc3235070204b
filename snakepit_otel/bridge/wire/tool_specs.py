"""Specifications of tools, as an authority lists them and a worker registers them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from snakepit_otel.adapters._tool import Tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.codec import encode_parameters
from snakepit_otel.bridge.wire.values import to_json
from snakepit_otel.errors import SnakepitError


def parameter_specs(made: Tool) -> list[pb.ParameterSpec]:
    """Return a tool's parameters as the wire describes them."""
    specs = []
    for parameter in made.parameters:
        spec = pb.ParameterSpec(name=parameter.name, type=parameter.type, required=parameter.required)
        if not parameter.required:
            # A default that cannot be sent is left out of the specification.
            with suppress(SnakepitError):
                encoded, _ = encode_parameters({"default": parameter.default})
                if "default" in encoded:
                    spec.default_value.CopyFrom(encoded["default"])
                    spec.validation_json = to_json({"default": parameter.default}).decode()
        specs.append(spec)
    return specs


def registrations(tools: Iterable[Tool]) -> list[pb.ToolRegistration]:
    """Return an adapter's tools as a worker registers them."""
    return [
        pb.ToolRegistration(
            name=made.name,
            description=made.description,
            parameters=parameter_specs(made),
            metadata=made.metadata,
            supports_streaming=made.supports_streaming,
        )
        for made in tools
    ]
