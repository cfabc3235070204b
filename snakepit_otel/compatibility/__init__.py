"""Compatibility with adapters for Snakepit's own worker, which import `snakepit_bridge`; off by default."""

from typing import TYPE_CHECKING

from snakepit_otel.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from snakepit_otel.compatibility.adapter_loading import (
        FLAG,
        VARIABLE,
        is_enabled,
        load,
        load_or_suggest_flag,
        require_own_messages,
    )
    from snakepit_otel.compatibility.context import BridgeContext
    from snakepit_otel.compatibility.events import connect
    from snakepit_otel.compatibility.module_finder import install, uninstall

__all__ = [
    "FLAG",
    "VARIABLE",
    "BridgeContext",
    "connect",
    "install",
    "is_enabled",
    "load",
    "load_or_suggest_flag",
    "require_own_messages",
    "uninstall",
]

# Loaded when used: the check of an adapter does without the bridge.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "FLAG": "adapter_loading",
        "VARIABLE": "adapter_loading",
        "BridgeContext": "context",
        "is_enabled": "adapter_loading",
        "connect": "events",
        "install": "module_finder",
        "load": "adapter_loading",
        "load_or_suggest_flag": "adapter_loading",
        "require_own_messages": "adapter_loading",
        "uninstall": "module_finder",
    },
)
