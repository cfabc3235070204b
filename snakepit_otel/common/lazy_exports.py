"""Imports of a package's public names on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package, given the modules that define its public names."""
    here = vars(sys.modules[package])

    def find(name: str) -> Any:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = here[name] = getattr(import_module(f"{package}.{module}"), name)
        return found

    return find, lambda: sorted({*here, *modules})
