"""The targets, which modules of this package register when they are imported."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def register_all() -> None:
    """Register every target there is."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
