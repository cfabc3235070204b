"""Context of a request for adapters of Snakepit's own worker, with upstream's errors and methods."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, cast

from snakepit_otel.adapters import SessionContext
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.compatibility import correlation
from snakepit_otel.errors import SnakepitError, ToolNotFound

if TYPE_CHECKING:
    from snakepit_otel.bridge.worker.authority_client import AuthorityClient

_log = logging.getLogger("snakepit_otel.compatibility")


class BridgeContext(SessionContext):
    """Session context with upstream's errors, stub, `with` statement and clean-up.

    Calls block, on the event loop too, as in upstream's worker; `acall_elixir_tool` does not.
    """

    def __init__(self, *given: Any, may_block: bool = False, **named: Any) -> None:
        super().__init__(*given, may_block=True, **named)
        self._listed: Mapping[str, Mapping[str, Any]] | None = None
        self._stub: Any = None
        correlation.begin(self.request_metadata)

    @property
    def _client(self) -> AuthorityClient:
        return cast("AuthorityClient", self._authority)

    @property
    def stub(self) -> Any:
        """The authority's blocking stub; the first access makes sure of the session."""
        if self._stub is None:
            self._stub = self._client.stub_in(self.session_id)
        return self._stub

    @property
    def elixir_tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The authority's tools that adapters may call, by name; none if the authority does not answer. Cached."""
        if self._listed is None:
            try:
                self._listed = super().elixir_tools
            except SnakepitError as error:
                _log.warning("Elixir's tools could not be listed: %s", printable_error(error))
                return {}
        return self._listed

    def call_elixir_tool(self, tool_name: str, **parameters: Any) -> Any:  # type: ignore[override]
        """Call a tool of the authority and return its result.

        Raises `RuntimeError` for whatever fails, and `ValueError` if there is no such tool.
        """
        try:
            return super().call_elixir_tool(tool_name, **parameters)
        except ToolNotFound as error:
            raise ValueError(str(error)) from error
        except Exception as error:
            listed = self.elixir_tools
            if listed and tool_name not in listed:
                raise ValueError(f"Elixir has no tool {tool_name!r}; it has {', '.join(listed)}") from error
            raise RuntimeError(f"Elixir's tool {tool_name!r} failed: {error}") from error

    def cleanup(self) -> None:
        """End the session in the authority, if it answers; else the session ends after its TTL."""
        try:
            self._client.end_session(self.session_id, timeout=5.0)
        except Exception as error:  # noqa: BLE001 - upstream's never raises
            _log.debug("session %s was not cleaned up: %s", printable(self.session_id), printable_error(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"<context of session {self.session_id!r}>"
