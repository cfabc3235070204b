"""The contrib instrumentation of gRPC, without the bridge's calls, which this one observes.

This one records their true status, for all four kinds. Contrib is suppressed for calls of this worker; on the server
its interceptors are installed before any servicer is added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.snakepit.patches import Patches
from opentelemetry.instrumentation.snakepit.program_calls import guarded

_BRIDGE = "/snakepit.bridge.BridgeService/"


def exclude_bridge_calls(patches: Patches, module: Any, interceptor: str) -> None:
    """Make an interceptor of contrib pass the bridge's calls on."""
    patches.wrap(module, f"{interceptor}.intercept_service", _skip_bridge_calls)


def _skip_bridge_calls(
    wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    call = guarded("reading a call", _bridge_call, *args, **kwargs)
    if call is None:
        return wrapped(*args, **kwargs)
    continuation, details = call
    return continuation(details)


def _bridge_call(continuation: Any, handler_call_details: Any) -> tuple[Any, Any] | None:
    """Return the continuation and its argument, if it is a call of the bridge."""
    return (continuation, handler_call_details) if handler_call_details.method.startswith(_BRIDGE) else None
