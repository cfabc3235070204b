"""Identifiers that peers send, checked before anything keeps or records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import REFERENCES
from snakepit_otel.bridge.wire.raw_messages import ToolRequest
from snakepit_otel.bridge.wire.reference_list import MAX_LIST_CHARACTERS
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ToolNotFound, ValueRefused
from snakepit_otel.sessions._session import checked_id

MAX_TOOL_NAME = 256  # more than a registered name may have, for adapters that take any name
MAX_METADATA_ENTRIES = 4_096
MAX_METADATA_BYTES = 64 << 10  # of keys and values together
_SHOWN = 256  # characters of an identifier that an error repeats


def check_request(request: ToolRequest) -> None:
    """Raise `InvalidSession`, `ToolNotFound` or `ValueRefused` for a request that cannot be what it is called."""
    if request.session_id:
        checked_id(request.session_id)
    check_tool(request.tool_name)
    check_metadata(request.metadata)


def check_call_back(request: pb.ExecuteElixirToolRequest) -> None:
    """Raise as `check_request` does."""
    if request.session_id:
        checked_id(request.session_id)
    check_tool(request.tool_name)
    check_metadata(request.metadata)


def check_tool(name: str) -> None:
    """Raise `ToolNotFound` for a name that no tool can have."""
    if len(name) > MAX_TOOL_NAME:
        raise ToolNotFound(
            f"there is no tool '{printable(name, 64)}': its name has {len(name)} characters, and a tool's at most "
            f"{MAX_TOOL_NAME}"
        )


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise `ValueRefused` for more metadata than a request may have, besides the list of its references."""
    if len(metadata) > MAX_METADATA_ENTRIES:
        raise ValueRefused(f"a request has {len(metadata)} entries of metadata; at most {MAX_METADATA_ENTRIES}")
    size = 0
    for key, value in metadata.items():
        size += len(key) + len(value)
    if size > MAX_METADATA_BYTES:
        size -= min(len(metadata.get(REFERENCES, "")), MAX_LIST_CHARACTERS)
    if size > MAX_METADATA_BYTES:
        raise ValueRefused(f"a request's metadata has {size} characters; at most {MAX_METADATA_BYTES}")


def where(tool: str, session_id: str, **more: str) -> dict[str, Any]:
    """Return the context of an error: the identifiers of its request, cut to a readable length."""
    return {"tool_name": tool[:_SHOWN], "session_id": session_id[:_SHOWN], **more}
