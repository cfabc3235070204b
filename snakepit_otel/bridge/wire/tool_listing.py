"""Tools that callers of an authority may call, with their pools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from snakepit_otel.adapters._tool_description import ANY_NAME, ToolDescription
from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb
from snakepit_otel.common.attempt import attempt

_MAX_MESSAGE_BYTES = 16 << 20  # of a listing


@dataclass(frozen=True, kw_only=True)
class ListedTool:
    """One tool; the name is `*` for all that an adapter's `execute_tool` takes."""

    name: str
    pool: str | None  # None for a tool of the authority
    adapter: str | None = None
    description: str = ""
    signature: str = ""  # as Python writes it
    input_schema: dict[str, Any] | None = None  # JSON Schema of the arguments; None where there is none
    streams: bool = False
    idempotent: bool = False

    @classmethod
    def of(cls, described: ToolDescription, pool: str | None = None, adapter: str | None = None) -> Self:
        """Return a described tool of a pool, or of the authority."""
        return cls(
            name=described.name,
            pool=pool,
            adapter=adapter,
            description=described.description,
            signature=described.signature,
            input_schema=json.loads(described.schema) if described.schema else None,
            streams=described.streams,
            idempotent=described.idempotent,
        )

    @classmethod
    def of_message(cls, message: pb.ToolInfo) -> Self:
        """Return the tool of a message."""
        schema = attempt(json.loads, message.schema).value
        return cls(
            name=message.name,
            pool=message.pool or None,
            adapter=message.adapter or None,
            description=message.description,
            signature=message.signature,
            input_schema=schema if isinstance(schema, dict) else None,
            streams=message.streams,
            idempotent=message.idempotent,
        )

    def to_message(self) -> pb.ToolInfo:
        """Return this as the wire has it."""
        return pb.ToolInfo(
            name=self.name,
            pool=self.pool or "",
            adapter=self.adapter or "",
            description=self.description,
            signature=self.signature,
            schema=b"" if self.input_schema is None else json.dumps(self.input_schema).encode(),
            streams=self.streams,
            idempotent=self.idempotent,
        )

    @property
    def takes_any_name(self) -> bool:
        """Whether this stands for all names that an adapter's `execute_tool` takes."""
        return self.name == ANY_NAME

    def as_dict(self) -> dict[str, Any]:
        """Return this for JSON, with the keys of the Model Context Protocol."""
        return {
            "name": self.name,
            "pool": self.pool,
            "description": self.description,
            "inputSchema": {"type": "object"} if self.input_schema is None else self.input_schema,
            "streams": self.streams,
            "idempotent": self.idempotent,
            "signature": self.signature,
            "adapter": self.adapter,
        }


def to_listing(tools: Iterable[ListedTool]) -> pb.ListToolsResponse:
    """Return a listing of at most 16 MiB."""
    listing, size = pb.ListToolsResponse(), 0
    for one in tools:
        message = one.to_message()
        size += message.ByteSize()
        if size > _MAX_MESSAGE_BYTES:
            break
        listing.tools.append(message)
    return listing
