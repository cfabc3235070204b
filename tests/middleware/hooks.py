"""Middleware for tests, which records its hooks."""

from __future__ import annotations

from typing import Any

from snakepit_otel import Middleware, MiddlewareRequest, MiddlewareResult


class Recorder(Middleware):
    """Records each hook with its name in a list that several may share."""

    def __init__(self, name: str, calls: list[str], raises: dict[str, BaseException] | None = None) -> None:
        self._name = name
        self._calls = calls
        self._raises = raises or {}

    def _record(self, hook: str, detail: str = "") -> None:
        self._calls.append(f"{self._name}.{hook}{detail}")
        if hook in self._raises:
            raise self._raises[hook]

    def before(self, request: MiddlewareRequest) -> Any:
        self._record("before")

    def after(self, request: MiddlewareRequest, result: MiddlewareResult) -> Any:
        self._record("after")

    def on_error(self, request: MiddlewareRequest, error: BaseException) -> Any:
        self._record("on_error", f"({type(error).__name__})")
