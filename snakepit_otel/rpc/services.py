"""Services as transports carry them: methods with their messages' parsers and serializers, and handlers of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

Parse = Callable[[bytes], Any]
Serialize = Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class RpcMethod:
    """One method of a service; `name` is `package.Service/Method`."""

    name: str
    read_request: Parse
    write_request: Serialize
    read_response: Parse
    write_response: Serialize
    client_streams: bool
    server_streams: bool


Methods = Mapping[str, RpcMethod]
"""Methods by their name within the service."""


@dataclass(frozen=True, slots=True)
class Handler:
    """What serves the calls of one method.

    `serve` is a coroutine function, called with the request, or an async iterator of requests where the client streams,
    and a `CallContext`. It returns the response; a method that streams its responses writes them to the context.
    """

    method: RpcMethod
    serve: Callable[[Any, Any], Any]


def methods_of(service: ServiceDescriptor, **changed: Mapping[str, Any]) -> dict[str, RpcMethod]:
    """Return the methods of a service; `changed` has fields of single ones, by name."""
    found = {}
    for method in service.methods:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        made = RpcMethod(
            f"{service.full_name}/{method.name}",
            request.FromString,
            request.SerializeToString,
            response.FromString,
            response.SerializeToString,
            bool(method.client_streaming),
            bool(method.server_streaming),
        )
        found[method.name] = replace(made, **changed.get(method.name, {}))
    return found


def handlers_of(methods: Methods, service: object) -> list[Handler]:
    """Return handlers for the methods that `service` has; others are not served."""
    served = ((method, getattr(service, name, None)) for name, method in methods.items())
    return [Handler(method, serve) for method, serve in served if serve is not None]
