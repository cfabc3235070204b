"""Our worker, started by Elixir for adapters written for upstream's: with and without upstream's package there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snakepit_otel.cli.elixir import SCRIPT
from tests.instrumentation.elixir import ElixirSnakepit
from tests.instrumentation.upstream import PROJECT, Upstream, find

WITHOUT = Upstream(root=PROJECT, python_path=(), real=False)
"""Nothing of upstream's."""
KINDS = ("ours", "theirs")
"""Whose `snakepit_bridge` a worker of ours has: our stand-in, or upstream's own package, or its double."""


def elixir(
    adapter: str,
    directory: Path,
    kind: str = "ours",
    *,
    adapter_args: Sequence[str] = ("--snakepit-bridge",),
    environ: dict[str, str] | None = None,
    **more: Any,
) -> ElixirSnakepit:
    """Return an Elixir that starts our script with an adapter; `Plain` and the like are those for upstream's."""
    return ElixirSnakepit(
        [sys.executable, SCRIPT],
        adapter if "." in adapter else f"tests.instrumentation.adapters.{adapter}",
        directory / "elixir",
        adapter_args=adapter_args,
        environ={"ADAPTER_NOTES": str(directory / "notes"), "OTEL_SDK_DISABLED": "true", **(environ or {})},
        upstream=WITHOUT if kind == "ours" else find(),
        **more,
    )
