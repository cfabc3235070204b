"""Readings of the project's source that several tests share."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "snakepit_otel"
INSTRUMENTATION = ROOT / "instrumentation" / "opentelemetry-instrumentation-snakepit" / "src"
GENERATED = ("_pb2.py", "_pb2_grpc.py", "telemetry/names.py")
BESIDE = ("benchmarks", "collector", "dashboards", "documentation", "examples", "semconv", "supply_chain")
PUBLIC = ("adapters", "errors", "settings", "sessions", "telemetry", "testing", "zero_copy")
"""Rooms and modules that users may import from, besides the package itself."""
PUBLIC_BELOW = ("sessions.backends", "testing.backends")
"""Modules inside of these rooms that are for those who write a session backend."""


def sources() -> list[Path]:
    """Return every hand-written source file of the package and of the instrumentation."""
    found = [*PACKAGE.rglob("*.py"), *INSTRUMENTATION.rglob("*.py")]
    return sorted(path for path in found if not str(path).endswith(GENERATED))


def product() -> list[Path]:
    """Return the sources, and those that stand beside the package: dashboards, benchmarks, examples."""
    return [*sources(), *(path for room in BESIDE for path in sorted((ROOT / room).rglob("*.py")))]


@cache
def tree(path: Path) -> ast.Module:
    """Return a file as parsed."""
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    """Return the dotted name of a module of the package."""
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Return the package's modules by name, the generated ones among them."""
    return {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> Iterator[str]:
    """Yield the full names that a file imports, wherever in it, for type checkers alone as well."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_imports() -> dict[str, set[str]]:
    """Return which modules of the package each of them imports."""
    known = modules()

    def resolved(name: str) -> str | None:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name or None

    return {
        module: {found for name in imports(path) if (found := resolved(name)) and found != module}
        for module, path in known.items()
    }
