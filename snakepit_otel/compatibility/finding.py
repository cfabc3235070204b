"""Makes `snakepit_bridge` importable where there is none, and its generated messages where ours are loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = "snakepit_bridge"
STUBS = {
    f"{PACKAGE}_pb2": "snakepit_otel.bridge.proto.snakepit_bridge_pb2",
    f"{PACKAGE}_pb2_grpc": "snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc",
}
MARK = "__snakepit_otel__"
"""What each module of ours has; the instrumentation of upstream's workers leaves those alone."""
INSTRUMENTATION = "opentelemetry.instrumentation.snakepit"
_OURS = Path(__file__).parent / PACKAGE


class PackageFinder(MetaPathFinder):
    """Finds our package by the name `snakepit_bridge`. To be asked last: a real one is to be found before it.

    It knows the package alone, whose modules are found by the package's path. So of a real package that lacks a
    module nothing is made up, and none of ours is mixed with it.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if fullname != PACKAGE:
            return None
        return spec_from_file_location(fullname, _OURS / "__init__.py", submodule_search_locations=[str(_OURS)])


class StubFinder(MetaPathFinder, Loader):
    """Finds our generated messages by the names of upstream's, at the top or in a package. To be asked first.

    protobuf takes each message once per process, and a worker of ours has them already: upstream's own file could
    only fail, and with it the real `snakepit_bridge` that imports it, or a package with a copy of its own.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        ours = STUBS.get(fullname.rpartition(".")[2])
        return ModuleSpec(fullname, self, origin=ours) if ours not in (None, fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module with what ours has: the same classes, by another name."""
        ours = vars(importlib.import_module(STUBS[module.__name__.rpartition(".")[2]]))
        setattr(module, MARK, True)
        vars(module).update({name: value for name, value in ours.items() if not name.startswith("__")})


def install() -> None:
    """Install both finders; a second time does nothing. The instrumentation of upstream's workers is to give way."""
    # With a real package it would tell again of what our worker tells by itself.
    instrumentation = sys.modules.get(INSTRUMENTATION)
    if instrumentation is not None:
        instrumentor = instrumentation.SnakepitInstrumentor()
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
    if not any(isinstance(finder, StubFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, StubFinder())
    if not any(isinstance(finder, PackageFinder) for finder in sys.meta_path):
        sys.meta_path.append(PackageFinder())


def uninstall() -> None:
    """Remove the finders, and what they have found; what was imported from it stays as it is."""
    ours = {name for name, module in sys.modules.items() if isinstance(_loader(module), StubFinder)}
    if is_ours(sys.modules.get(PACKAGE)):
        ours |= {name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")}
    for name in ours:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, (PackageFinder, StubFinder))]


def is_ours(module: ModuleType | None) -> bool:
    """Say whether a module is our stand-in for `snakepit_bridge`."""
    return bool(getattr(module, MARK, False))


def _loader(module: ModuleType) -> object:
    return getattr(getattr(module, "__spec__", None), "loader", None)
