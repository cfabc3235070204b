"""An adapter for upstream's workers in the proof: everything that an adapter may do, and every phase fails at times.

It is loaded where `snakepit_bridge` is upstream's, its double, or our stand-in for it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from snakepit_bridge import telemetry
from snakepit_bridge.base_adapter import tool

from tests.instrumentation.adapters import Plain, ThreadSafe

_SECOND = 1_000_000_000
_SOME = 12
"""One adapter in so many fails in one of its phases."""
_ABOUT = {"tool": "predict", "session_id": "elixir"}
_FAILED = {**_ABOUT, "error_type": "KeyError"}
_EVENTS: tuple[tuple[str, dict[str, Any], dict[str, str]], ...] = (
    ("python.call.start", {"count": 1}, _ABOUT),
    ("python.call.stop", {"duration": _SECOND // 5}, _ABOUT),
    ("python.call.exception", {"duration": _SECOND // 9, "count": 1}, _FAILED),
    ("python.memory.sampled", {"rss_bytes": 1 << 26, "vms_bytes": 1 << 28}, {}),
    ("python.cpu.sampled", {"cpu_percent": 40.0}, {}),
    ("python.gc.completed", {"count": 1}, {}),
    ("python.error.occurred", {"count": 1}, _FAILED),
    ("python.coffee.brewed", {"count": 1}, {}),
    ("tool.result_size", {"bytes": "many"}, _ABOUT),
)
"""One of each kind, beside those of `emit`; one of none, and one that cannot be measured."""


class _Everyday:
    """What both kinds of adapters add to the tools of other tests."""

    _built = itertools.count(1)

    def __init__(self) -> None:
        # An adapter does not know its request before it is built, so it goes by their number.
        self._fails_to = {4: "be built", 8: "be initialized", 0: "be cleaned up"}.get(next(self._built) % _SOME)
        self._may_fail_to("be built")
        super().__init__()

    def initialize(self) -> None:
        super().initialize()  # type: ignore[misc]
        self._may_fail_to("be initialized")

    def cleanup(self) -> None:
        super().cleanup()  # type: ignore[misc]
        self._may_fail_to("be cleaned up")

    def _may_fail_to(self, what: str) -> None:
        if self._fails_to == what:
            raise OSError(f"this one cannot {what}")

    @tool(description="Take so many seconds.")
    def work(self, seconds: float, context: Any = None) -> float:
        time.sleep(seconds)
        return seconds

    @tool(description="Take so many seconds on the event loop.")
    async def rest(self, seconds: float, context: Any = None) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @tool(description="Tell Elixir all that it may be told.")
    def tell(self, context: Any = None) -> int:
        for name, measurements, metadata in _EVENTS:
            telemetry.emit(name, measurements, metadata, telemetry.get_correlation_id())
        return len(_EVENTS)

    @tool(description="Give a reference back.")
    def give_back(self, reference: Any, context: Any = None) -> Any:
        return reference


class Everyday(_Everyday, Plain):
    """For upstream's plain server."""


class ThreadedEveryday(_Everyday, ThreadSafe):
    """For upstream's threaded server."""
