"""The authority's built-in tools, by which adapters reach session state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, authority_tool, built_in, takes_json
from snakepit_otel.errors import NoSession


def _session(context: AuthorityContext) -> str:
    if context.session_id is None:
        raise NoSession("the call belongs to no session; session state needs one")
    return context.session_id


@built_in
@authority_tool
async def get_session_state(
    context: AuthorityContext, key: str, default: Any = None, with_version: bool = False
) -> Any:
    """Return one value of the session's state, or the default; with its version on request."""
    value, version = await context.sessions.get_versioned(_session(context), key)
    if version == 0:
        value = default
    return {"value": value, "version": version} if with_version else value


@takes_json
@built_in
@authority_tool
async def set_session_state(context: AuthorityContext, key: str, value: Any) -> int:
    """Set one value of the session's state and return its version."""
    return await context.sessions.set_state(_session(context), key, value, is_json=True)


@built_in
@authority_tool
async def delete_session_state(context: AuthorityContext, key: str) -> bool:
    """Remove one value of the session's state; false if it was not there."""
    return await context.sessions.delete_state(_session(context), key)


@takes_json
@built_in
@authority_tool
async def compare_and_set_session_state(context: AuthorityContext, key: str, value: Any, version: int) -> int:
    """Set one value if it is still at the version given (0: not there) and return the new version."""
    return await context.sessions.compare_and_set(_session(context), key, value, version, is_json=True)


@built_in
@authority_tool
async def list_session_state(context: AuthorityContext) -> dict[str, int]:
    """Return the keys of the session's state with their versions."""
    return await context.sessions.list_state(_session(context))


STATE_TOOLS: tuple[Callable[..., Any], ...] = (
    get_session_state,
    set_session_state,
    delete_session_state,
    compare_and_set_session_state,
    list_session_state,
)
