"""Upstream's workers for tests: which ones there are, and Elixirs to start them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.instrumentation.elixir import ElixirSnakepit
from tests.instrumentation.upstream import Upstream, find

Snakepit = Callable[..., ElixirSnakepit]


class Notes:
    """What the adapters of `tests.instrumentation.adapters` noted, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[str]:
        """The lines so far."""
        return self.path.read_text().splitlines() if self.path.exists() else []


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    """Upstream's workers, or the double's."""
    return find()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """What adapters noted, if they were started by `snakepit`."""
    return Notes(tmp_path / "notes")


@pytest.fixture
def snakepit(tmp_path: Path, notes: Notes, upstream: Upstream) -> Snakepit:
    """Make an Elixir with one worker: `async with snakepit("Plain") as elixir`.

    The adapter is one of `tests.instrumentation.adapters`, or any with a dot in its path. Without a `command`, it is
    upstream's script, or its threaded one. What else is given goes to ElixirSnakepit.
    """

    def make(
        adapter: str = "Plain",
        *,
        threaded: bool = False,
        command: Sequence[str | Path] | None = None,
        environ: dict[str, str] | None = None,
        **more: Any,
    ) -> ElixirSnakepit:
        if threaded:
            more.setdefault("adapter_args", ("--max-workers", "4"))
        return ElixirSnakepit(
            command or [sys.executable, upstream.server_script(threaded)],
            adapter if "." in adapter else f"tests.instrumentation.adapters.{adapter}",
            tmp_path / "elixir",
            environ={"ADAPTER_NOTES": str(notes.path), "SNAKEPIT_OTEL_CONSOLE": "false", **(environ or {})},
            upstream=upstream,
            **more,
        )

    return make
