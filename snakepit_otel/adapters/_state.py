"""Session state as a mapping, by calling back to the authority."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Protocol, TypeVar

from snakepit_otel.errors import BlockingCall, NoSession, StateConflict
from snakepit_otel.sessions._state import Versioned, encode

T = TypeVar("T")
_ATTEMPTS = 100


class StateCaller(Protocol):
    """A request whose session's state the authority keeps; implemented by `SessionContext`."""

    session_id: str | None
    state_id: str | None

    def call_elixir_tool(self, tool_name: str, /, **parameters: Any) -> Any:
        """Call a tool of the authority and wait for its result."""

    async def acall_elixir_tool(self, tool_name: str, /, **parameters: Any) -> Any:
        """Call a tool of the authority."""


class SessionState(MutableMapping[str, Any]):
    """The state of the request's session; every use is one call to the authority.

    Values are JSON. A read and a later write are two steps that another request of the session may come
    between: use `change` to make them one. In coroutines use the methods that begin with `a`.

    Raises `NoSession` if the request belongs to none, `StateRefused` for what is not JSON.
    """

    def __init__(self, caller: StateCaller) -> None:
        self._caller = caller

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_caller":
            raise AttributeError(_not_an_attribute(name, f"state[{name!r}] = …", f"await state.aset({name!r}, …)"))
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(_not_an_attribute(name, f"state[{name!r}]", f"await state.aget({name!r})"))

    def __getitem__(self, key: str) -> Any:
        value, version = self._versioned(key, f"await state.aget({key!r:.60})")
        if version == 0:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return one value, or the default."""
        value, version = self._versioned(key, f"await state.aget({key!r:.60})")
        return default if version == 0 else value

    def __setitem__(self, key: str, value: Any) -> None:
        checked = self._checked(key, value)
        self._call(f"await state.aset({key!r:.60}, …)", "set_session_state", key=key, value=checked)

    def __delitem__(self, key: str) -> None:
        if not self._call(f"await state.adelete({key!r:.60})", "delete_session_state", key=key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._call("await state.akeys()", "list_session_state"))

    def __len__(self) -> int:
        return len(self._call("await state.akeys()", "list_session_state"))

    def versioned(self, key: str) -> Versioned:
        """Return one value with its version, for `compare_and_set`."""
        return self._versioned(key, f"await state.aversioned({key!r:.60})")

    def compare_and_set(self, key: str, value: Any, version: int) -> int:
        """Set one value if it is still at `version`, and return the new one; else raise `StateConflict`."""
        return self._compare_and_set(key, value, version, f"await state.acompare_and_set({key!r:.60}, …)")

    def change(self, key: str, change: Callable[[Any], T], default: Any = None) -> T:
        """Set one value to what `change` makes of it, and return that; no other write comes between.

        `change` may be called again when another request wrote first.
        """
        instead = f"await state.achange({key!r:.60}, …)"
        for _ in range(_ATTEMPTS):
            value, version = self._versioned(key, instead)
            changed = change(default if version == 0 else value)
            try:
                self._compare_and_set(key, changed, version, instead)
            except StateConflict as conflict:
                lost = conflict
                continue
            return changed
        raise lost

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return one value, or the default."""
        value, version = await self.aversioned(key)
        return default if version == 0 else value

    async def aset(self, key: str, value: Any) -> None:
        """Set one value."""
        await self._acall("set_session_state", key=key, value=self._checked(key, value))

    async def adelete(self, key: str) -> bool:
        """Remove one value; False if it was not there."""
        return bool(await self._acall("delete_session_state", key=key))

    async def akeys(self) -> list[str]:
        """Return the keys."""
        return list(await self._acall("list_session_state"))

    async def aversioned(self, key: str) -> Versioned:
        """Return one value with its version."""
        found = await self._acall("get_session_state", key=key, with_version=True)
        return Versioned(found["value"], found["version"])

    async def acompare_and_set(self, key: str, value: Any, version: int) -> int:
        """Set one value if it is still at `version`; see `compare_and_set`."""
        checked = self._checked(key, value)
        return int(await self._acall("compare_and_set_session_state", key=key, value=checked, version=version))

    async def achange(self, key: str, change: Callable[[Any], T], default: Any = None) -> T:
        """Set one value to what `change` makes of it; see `change`."""
        for _ in range(_ATTEMPTS):
            value, version = await self.aversioned(key)
            changed = change(default if version == 0 else value)
            try:
                await self.acompare_and_set(key, changed, version)
            except StateConflict as conflict:
                lost = conflict
                continue
            return changed
        raise lost

    def _versioned(self, key: str, instead: str) -> Versioned:
        found = self._call(instead, "get_session_state", key=key, with_version=True)
        return Versioned(found["value"], found["version"])

    def _compare_and_set(self, key: str, value: Any, version: int, instead: str) -> int:
        checked = self._checked(key, value)
        return int(self._call(instead, "compare_and_set_session_state", key=key, value=checked, version=version))

    def _call(self, instead: str, tool: str, /, **parameters: Any) -> Any:
        """Call a tool of the authority; `instead` is what to write in a coroutine, where this would block."""
        self._require_session()
        try:
            return self._caller.call_elixir_tool(tool, **parameters, **self._state_id())
        except BlockingCall:
            raise BlockingCall(
                f"this is a coroutine, whose event loop all requests share, and state is the authority's: write "
                f"'{instead}'"
            ) from None

    async def _acall(self, tool: str, **parameters: Any) -> Any:
        self._require_session()
        return await self._caller.acall_elixir_tool(tool, **parameters, **self._state_id())

    def _state_id(self) -> dict[str, str]:
        """Return the parameter that names the caller's session, where the request's own is the worker's."""
        state_id = self._caller.state_id
        return {} if state_id is None else {"session_id": state_id}

    def _require_session(self) -> None:
        if self._caller.session_id is None:
            raise NoSession("this request belongs to no session and has no state; call it with a session_id")

    def _checked(self, key: str, value: Any) -> Any:
        # Refused here, where the mistake is, rather than by the authority.
        encode(key, value)
        return value


def _not_an_attribute(name: str, plain: str, in_coroutine: str) -> str:
    return f"state has no attribute {name!r}: its values are its items, {plain}, and in coroutines {in_coroutine}"
