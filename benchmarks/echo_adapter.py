"""Echo adapter that imports nothing but this package: what a worker has with it is not an adapter's own."""

from __future__ import annotations

from snakepit_otel import BaseAdapter, tool


class Echo(BaseAdapter):
    __thread_safe__ = True

    @tool
    async def echo(self, value: object) -> object:
        return value
