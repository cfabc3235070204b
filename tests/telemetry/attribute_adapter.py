"""Adapter whose tools set attributes of their requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from snakepit_otel import AuthorityContext, BaseAdapter, authority_tool, telemetry, tool


class Attributed(BaseAdapter):
    @tool
    def plain(self, attributes: dict[str, Any], size: int = 0, fail: bool = False) -> str:
        """Set attributes and return a text of a size."""
        for key, value in attributes.items():
            telemetry.set_request_attribute(key, value)
        if fail:
            raise LookupError("no")
        return "x" * size

    @tool
    async def in_coroutine(self, attributes: dict[str, Any]) -> None:
        """Set attributes in a coroutine."""
        for key, value in attributes.items():
            telemetry.set_request_attribute(key, value)

    @tool
    def in_thread(self, attributes: dict[str, Any]) -> None:
        """Set attributes in a thread of the tool's own, which has no context: they are left out."""
        thread = threading.Thread(target=lambda: telemetry.set_request_attribute("own", attributes))
        thread.start()
        thread.join()

    @tool
    def stream(self, count: int, fail: bool = False, size: int = 1) -> Iterator[str]:
        """Set an attribute before each chunk, and one at the end."""
        for number in range(count):
            telemetry.set_request_attribute(f"chunk.{number}", number)
            yield "x" * size
        telemetry.set_request_attribute("last", True)
        if fail:
            raise LookupError("no")


@authority_tool
def of_authority(_context: AuthorityContext, tenant: str) -> str:
    """Set an attribute in the authority."""
    telemetry.set_request_attribute("tenant.id", tenant)
    return tenant
