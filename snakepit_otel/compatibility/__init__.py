"""Runs adapters written for Snakepit's own worker, which import `snakepit_bridge`: only where it is asked for."""

from snakepit_otel.compatibility.context import BridgeContext
from snakepit_otel.compatibility.events import connect
from snakepit_otel.compatibility.finding import install, uninstall
from snakepit_otel.compatibility.loading import FLAG, VARIABLE, asked_for, load, load_or_advise

__all__ = [
    "FLAG",
    "VARIABLE",
    "BridgeContext",
    "asked_for",
    "connect",
    "install",
    "load",
    "load_or_advise",
    "uninstall",
]
