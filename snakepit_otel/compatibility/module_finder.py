"""Finders of modules: a stand-in for `snakepit_bridge`, and this library's messages by upstream's names."""

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
MARK = "__snakepit_otel__"  # of each stand-in; the instrumentation of upstream's workers skips modules with it
INSTRUMENTATION = "opentelemetry.instrumentation.snakepit"
_OURS = Path(__file__).parent / PACKAGE


class PackageFinder(MetaPathFinder):
    """Finder of the stand-in for `snakepit_bridge`; the last finder, so that a real package comes before it.

    It finds the package alone, whose path has the modules: modules of the stand-in never mix with a real package.
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
    """Finder of this library's generated messages by upstream's module names, in any package; the first finder.

    protobuf registers each message once in a process, and the worker has done so: upstream's own file would fail, and
    with it the real `snakepit_bridge`, or a package with a copy.
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
        """Fill a module with the same classes, by upstream's name."""
        ours = vars(importlib.import_module(STUBS[module.__name__.rpartition(".")[2]]))
        setattr(module, MARK, True)
        vars(module).update({name: value for name, value in ours.items() if not name.startswith("__")})


def install() -> None:
    """Install both finders, once. The instrumentation of upstream's workers is removed."""
    # With a real package it would record the worker's own telemetry again.
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
    """Remove the finders, and the modules that they found; names imported from those stay."""
    ours = {name for name, module in sys.modules.items() if isinstance(_loader(module), StubFinder)}
    if is_ours(sys.modules.get(PACKAGE)):
        ours |= {name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")}
    for name in ours:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, (PackageFinder, StubFinder))]


def is_ours(module: ModuleType | None) -> bool:
    """Whether a module is the stand-in for `snakepit_bridge`."""
    return bool(getattr(module, MARK, False))


def _loader(module: ModuleType) -> object:
    return getattr(getattr(module, "__spec__", None), "loader", None)
