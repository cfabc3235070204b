"""The settings of the tools that run in the authority."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from snakepit_otel.common.validation import Milliseconds, Whole


class AuthoritySettings(BaseModel):
    """How many of the authority's own tools run at a time, and for how long. Times are in milliseconds.

    They are about the tools of `authority_tools`; those for session state, which every adapter uses, are neither
    limited nor held up by them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool_threads: Annotated[Whole, Field(ge=1, le=1024)] = 16
    """Plain tools that run at a time."""

    tool_threads_each: Annotated[Whole, Field(ge=1, le=1024)] = 8
    """Threads that one of them may have, those included in which its calls go on after their time."""

    tool_threads_abandoned: Annotated[Whole, Field(ge=0, le=1024)] = 64
    """Threads beyond `tool_threads` that take the place of those in which calls go on after their time."""

    max_queue_size: Annotated[Whole, Field(ge=0)] = 1_000
    """Calls of one tool that may wait for a thread, or, of a coroutine function, run at a time; more are refused."""

    queue_timeout: Annotated[Milliseconds, Field(ge=0)] = 5_000
    """How long a call waits for a thread."""

    tool_timeout: Annotated[Milliseconds, Field(ge=1)] = 300_000
    """How long a call may take that has no deadline of its own, or a later one."""
