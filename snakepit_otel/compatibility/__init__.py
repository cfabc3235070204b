"""Runs adapters written for Snakepit's own worker, which import `snakepit_bridge`: only where it is asked for."""

from typing import TYPE_CHECKING

from snakepit_otel.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from snakepit_otel.compatibility.context import BridgeContext
    from snakepit_otel.compatibility.events import connect
    from snakepit_otel.compatibility.finding import install, uninstall
    from snakepit_otel.compatibility.loading import (
        FLAG,
        VARIABLE,
        asked_for,
        load,
        load_or_advise,
        require_room_for_ours,
    )

__all__ = [
    "FLAG",
    "VARIABLE",
    "BridgeContext",
    "asked_for",
    "connect",
    "install",
    "load",
    "load_or_advise",
    "require_room_for_ours",
    "uninstall",
]

# Loaded when used: what runs requests needs the bridge, and what only checks an adapter does without.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "FLAG": "loading",
        "VARIABLE": "loading",
        "BridgeContext": "context",
        "asked_for": "loading",
        "connect": "events",
        "install": "finding",
        "load": "loading",
        "load_or_advise": "loading",
        "require_room_for_ours": "loading",
        "uninstall": "finding",
    },
)
