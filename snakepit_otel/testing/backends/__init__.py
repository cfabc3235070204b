"""Conformance suite of session backends, for those who write one: a class of tests to derive from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit_otel.testing.backends._suite import BackendTests

__all__ = ["BackendTests"]


# Loaded on first use, so that whoever lacks a package reads which one.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import_module("hypothesis")
        import pytest
    except ImportError as error:
        raise ImportError(f"{__name__} needs {error.name}: pip install 'snakepit-otel[testing]'") from None
    # Failures show the values that they compare.
    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_ASSERTIONS))
    return getattr(import_module(f"{__name__}._suite"), name)


_WITH_ASSERTIONS = (
    "_comparison",
    "_ledger_tests",
    "_machine",
    "_model",
    "_scenarios",
    "_session_tests",
    "_sharing_tests",
    "_state_rules",
    "_state_tests",
    "_suite",
)
