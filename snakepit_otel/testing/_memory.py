"""Both sides of the references of a request that runs in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snakepit_otel.bridge.wire.references import can_be_shared
from snakepit_otel.zero_copy import Reference
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._descriptor import Description, Owner
from snakepit_otel.zero_copy._scope import Scope


class _WatchedScope(Scope):
    """A worker's scope that keeps what its tool still has views of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outlived: list[Description] = []

    def on_outlived(self, description: Description) -> None:
        super().on_outlived(description)
        self.outlived.append(description)


class RequestMemory:
    """The caller's and the worker's scope of a request; `outlived` is filled when the request ends."""

    def __init__(self, session_id: str | None, tool: str) -> None:
        self._session_id = session_id
        self._buffer_store = BufferStore()
        self.caller = self._buffer_store.request(session_id, tool)
        self.worker = _WatchedScope(
            Owner.PYTHON, self._buffer_store, request=self.caller.request, session_id=session_id, tool=tool
        )

    @property
    def outlived(self) -> list[Description]:
        """The references whose memory the tool still has views of."""
        return self.worker.outlived

    def join(self) -> Scope:
        """Return the authority's scope of one call-back."""
        return self._buffer_store.join(self.caller.request or "", self._session_id)

    def passed(self, value: Any) -> Any:
        """Return an argument as the tool gets it, only its arrays and tables encoded."""
        return _shared(value, lambda part: self.worker.receive(self.caller.send(part)))

    def returned(self, value: Any) -> Any:
        """Return a result as the caller gets it, only its arrays and tables encoded."""
        return _shared(value, lambda part: self.caller.take(self.worker.send(part)))

    def close(self) -> None:
        """End the request on both sides."""
        self.worker.close()
        self.caller.close()
        self._buffer_store.close()


def _shared(value: Any, cross: Callable[[Any], Any]) -> Any:
    if can_be_shared(value) or isinstance(value, Reference):
        return cross(value)
    if type(value) is dict:
        return {key: _shared(part, cross) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_shared(part, cross) for part in value)
    return value
