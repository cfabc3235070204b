"""The authority's tool registry: its own tools, and what foreign workers have registered."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from snakepit_otel.adapters import Retry, tool
from snakepit_otel.adapters._completion import run_isolated
from snakepit_otel.adapters._tool import MAX_NAME, Tool, checked_metadata, checked_name, make_tool
from snakepit_otel.adapters._tool_description import describe
from snakepit_otel.bridge.authority.tool_outcomes import ToolOutcomes
from snakepit_otel.bridge.authority.tool_threads import AuthorityThreads
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.status import ToolStatus
from snakepit_otel.bridge.wire.tool_listing import ListedTool
from snakepit_otel.bridge.wire.tool_specs import parameter_specs
from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import DeadlineExceeded, ToolNotFound, ToolRefused

if TYPE_CHECKING:
    from snakepit_otel.bridge.authority.settings import AuthoritySettings
    from snakepit_otel.sessions import SessionStore

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__snakepit_authority_tool__"
_JSON = "__snakepit_takes_json__"
_BUILT_IN = "__snakepit_built_in__"
_MAX_TOOLS_PER_SESSION = 1_000
_MAX_REGISTRATION_BYTES = 256 << 10
_MAX_PARAMETERS = 256
_REGISTRATION_BYTES = 256  # of a registered tool, of which only the name is kept


class _Foreign(NamedTuple):
    """The names of a session's tools, and their charges."""

    names: set[str]
    charges: list[ByteCharge]


@dataclass(frozen=True)
class AuthorityContext:
    """Context of a call of an authority's tool: the session, or None, and the store."""

    session_id: str | None
    sessions: SessionStore


@dataclass(frozen=True)
class AuthorityTool:
    """A tool that runs in the authority; `exposed` to adapters, or for its own callers only."""

    tool: Tool
    exposed: bool
    takes_references: bool = True  # else references stay in their JSON form
    built_in: bool = False  # quick coroutine functions of our own, which bypass the limits on users' tools

    @property
    def runs_in_thread(self) -> bool:
        """Whether it is a plain function of a user."""
        return not self.built_in and not self.tool.is_async


@overload
def authority_tool(function: F, /) -> F: ...
@overload
def authority_tool(
    description: str = "",
    *,
    name: str | None = None,
    exposed: bool = True,
    idempotent: bool = False,
    retry: Retry | None = None,
) -> Callable[[F], F]: ...
def authority_tool(
    description: Any = "",
    *,
    name: str | None = None,
    exposed: bool = True,
    idempotent: bool = False,
    retry: Retry | None = None,
) -> Any:
    """Mark a function `f(context, ...)` as a tool of the authority.

    Adapters call it with `call_elixir_tool` if it is `exposed`; callers with `execute` in any case. A plain
    function runs in a thread; see `AuthoritySettings` for how many of them do at a time, and for how long. A caller's
    request for a tool that is `idempotent` is run again after the errors of `retry`; an adapter's call is not.
    """
    if callable(description):
        return authority_tool()(description)

    def mark(function: F) -> F:
        setattr(function, _MARK, exposed)
        return tool(description, name=name, idempotent=idempotent, retry=retry)(function)

    return mark


def takes_json(function: F) -> F:
    """Mark a tool of the authority that gets references in their JSON form, to refuse them."""
    setattr(function, _JSON, True)
    return function


def built_in(function: F) -> F:
    """Mark a built-in tool, which is run at once, whatever users' tools do."""
    setattr(function, _BUILT_IN, True)
    return function


def authority_tools_in(namespace: Mapping[str, Any]) -> list[Callable[..., Any]]:
    """Return the functions in a module's namespace that are marked as tools of the authority."""
    return [value for value in namespace.values() if inspect.isfunction(value) and hasattr(value, _MARK)]


class ToolRegistry:
    """Tools by name. Refuses bad names and duplicates, as the wire page has it. Runs the authority's own."""

    def __init__(self, functions: Iterable[Callable[..., Any]] = (), settings: AuthoritySettings | None = None) -> None:
        # Not with the rest: workers import this file, and none of the libraries that settings need.
        from snakepit_otel.bridge.authority.settings import AuthoritySettings

        self.threads = AuthorityThreads(settings or AuthoritySettings())
        self.outcomes = ToolOutcomes("")
        self._own: dict[str, AuthorityTool] = {}
        self._foreign: dict[str, _Foreign] = {}
        for function in functions:
            self.add(function)

    def add(self, function: Callable[..., Any], *, exposed: bool | None = None) -> AuthorityTool:
        """Register a function of the authority; raise `ToolRefused` for a duplicate."""
        made = make_tool(function)
        if made.name in self._own:
            raise ToolRefused(f"duplicate_tool: the authority has a tool {made.name!r} already")
        exposure = getattr(function, _MARK, True) if exposed is None else exposed
        self._own[made.name] = registered = AuthorityTool(
            made, exposure, takes_references=not hasattr(function, _JSON), built_in=hasattr(function, _BUILT_IN)
        )
        return registered

    async def run(
        self,
        own: AuthorityTool,
        context: AuthorityContext,
        arguments: Mapping[str, Any],
        deadline: float | None = None,
        on_started: Callable[[], None] = lambda: None,
    ) -> Any:
        """Check the arguments and run one of the authority's tools; `deadline` is on the monotonic clock.

        `on_started` is called when the tool begins, perhaps in its thread. Raises `InvalidArguments`,
        `DeadlineExceeded`, what the tool raises; and `PoolSaturated` or `QueueTimeout` if it did not run.
        """
        name, checked = own.tool.name, own.tool.check(arguments)
        if not own.runs_in_thread:
            on_started()
        if own.built_in:
            return await _in_time(run_isolated(own.tool.function(context, **checked)), deadline, name)
        if own.tool.is_async:
            return await self.threads.run_coroutine(name, own.tool.function(context, **checked), deadline)
        return await self.threads.run(name, partial(_begun, on_started, own.tool.function, context, checked), deadline)

    def find(self, name: str) -> AuthorityTool | None:
        """Return the authority's tool of that name."""
        return self._own.get(name)

    def statuses(self) -> tuple[ToolStatus, ...]:
        """Return what became of the calls of users' tools."""
        return self.outcomes.statuses(name for name, own in self._own.items() if not own.built_in)

    def exposed(self, name: str) -> AuthorityTool:
        """Return the tool if adapters may call it; raise `ToolNotFound` otherwise."""
        found = self._own.get(name)
        if found is None:
            known = ", ".join(sorted(name for name, own in self._own.items() if own.exposed))
            raise ToolNotFound(f"the authority has no tool {name!r:.100}; adapters may call {known}")
        if not found.exposed:
            raise ToolNotFound(
                f"the authority's tool {name!r:.100} is not exposed to adapters; mark it with exposed=True"
            )
        return found

    def listed(self) -> list[ListedTool]:
        """Return the tools that users have written, for people and their programs."""
        return [ListedTool.of(describe(own.tool)) for own in self._own.values() if not own.built_in]

    def specs(self, *, exposed_only: bool) -> list[pb.ToolSpec]:
        """Return the authority's tools as the wire describes them."""
        return [
            pb.ToolSpec(
                name=own.tool.name,
                description=own.tool.description,
                parameters=parameter_specs(own.tool),
                metadata=own.tool.metadata,
                supports_streaming=own.tool.supports_streaming,
            )
            for own in self._own.values()
            if own.exposed or not exposed_only
        ]

    def register_foreign(
        self, session_id: str, tools: Sequence[pb.ToolRegistration], charge: ByteCharge | None = None
    ) -> dict[str, str]:
        """Register a worker's tools for a session, all or none, and return their ids by name.

        Only their names are kept, and charged to `charge`, until the session ends. Raises `ToolRefused`; its message
        holds `duplicate_tool` for one that is there already. Raises `BudgetExceeded` where the `charge` does.
        """
        registered = self._foreign.get(session_id) or _Foreign(set(), [])
        if len(registered.names) + len(tools) > _MAX_TOOLS_PER_SESSION:
            raise ToolRefused(f"session {session_id!r} would have more than {_MAX_TOOLS_PER_SESSION} tools")
        # In the order that they came in, for the answer.
        new: dict[str, None] = {}
        for registration in tools:
            name = _checked_registration(registration)
            if name in registered.names or name in new:
                raise ToolRefused(f"duplicate_tool: session {session_id!r} has a tool {name!r} already")
            new[name] = None
        if charge is not None and new:
            charge.resize(_REGISTRATION_BYTES * len(new))
            registered.charges.append(charge)
        if new:
            registered.names.update(new)
            self._foreign[session_id] = registered
        return {name: f"{session_id}:{name}" for name in new}

    def foreign_count(self, session_id: str) -> int:
        """Return how many tools workers have registered for the session."""
        found = self._foreign.get(session_id)
        return 0 if found is None else len(found.names)

    def forget(self, session_id: str) -> None:
        """Forget what workers registered for a session that has ended."""
        found = self._foreign.pop(session_id, None)
        for charge in () if found is None else found.charges:
            charge.resize(0)


def _checked_registration(registration: pb.ToolRegistration) -> str:
    """Return the name of a tool that a worker brings. Raises `ToolRefused`."""
    size = registration.ByteSize()
    if size > _MAX_REGISTRATION_BYTES:
        raise ToolRefused(
            f"tool '{printable(registration.name, MAX_NAME)}' is registered with {size} bytes; at most "
            f"{_MAX_REGISTRATION_BYTES} are allowed for its description, parameters and metadata"
        )
    name = checked_name(registration.name.strip())
    checked_metadata(name, registration.metadata)
    if len(registration.parameters) > _MAX_PARAMETERS:
        raise ToolRefused(
            f"tool {name!r} has {len(registration.parameters)} parameters; at most {_MAX_PARAMETERS} are allowed"
        )
    return name


def _begun(
    on_started: Callable[[], None],
    function: Callable[..., Any],
    context: AuthorityContext,
    arguments: Mapping[str, Any],
) -> Any:
    on_started()
    return function(context, **arguments)


async def _in_time(work: Awaitable[Any], deadline: float | None, tool: str) -> Any:
    if deadline is None:
        return await work
    try:
        async with asyncio.timeout(deadline - time.monotonic()) as limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise DeadlineExceeded(f"the authority's tool {tool!r} did not end in time", tool=tool) from None
        raise
