"""The contrib instrumentation of gRPC, kept from telling the bridge's calls a second time.

Ours tell them with the status they had, for all four kinds. Where this worker is the caller, contrib is suppressed
for the call; where it serves, contrib's interceptors are in the server before anybody knows what it will serve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.snakepit.patches import Patches
from opentelemetry.instrumentation.snakepit.seam import quietly

_BRIDGE = "/snakepit.bridge.BridgeService/"


def let_pass(patches: Patches, module: Any, interceptor: str) -> None:
    """Have a server's interceptor of contrib let the bridge's calls pass."""
    patches.wrap(module, f"{interceptor}.intercept_service", _intercepting)


def _intercepting(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    asked = quietly("reading a call", _asked, *args, **kwargs)
    if asked is None:
        return wrapped(*args, **kwargs)
    continuation, details = asked
    return continuation(details)


def _asked(continuation: Any, handler_call_details: Any) -> tuple[Any, Any] | None:
    """Return what is to be called with what, if it is a call of the bridge's."""
    return (continuation, handler_call_details) if handler_call_details.method.startswith(_BRIDGE) else None
