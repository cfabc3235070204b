"""The context of a request, by the name that adapters import it by."""

from snakepit_otel.compatibility.context import BridgeContext as SessionContext

__snakepit_otel__ = True

__all__ = ["SessionContext"]
