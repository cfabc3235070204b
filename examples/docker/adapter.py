"""Adapter of the example container."""

from __future__ import annotations

from snakepit_otel import BaseAdapter, tool


class Greeter(BaseAdapter):
    """Greets."""

    @tool
    def greet(self, name: str) -> str:
        """Greet somebody."""
        return f"Hello, {name}."
