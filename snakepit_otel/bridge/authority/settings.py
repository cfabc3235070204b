"""Settings of the tools that run in the authority."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from snakepit_otel.common.validation import Milliseconds, Whole


class AuthoritySettings(BaseModel):
    """Limits of the tools of `authority_tools`. Times are in milliseconds.

    The tools for session state, which every adapter uses, have none of these limits and do not wait for the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool_threads: Whole = Field(default=16, ge=1, le=1024, description="Plain functions that run at a time.")
    tool_threads_each: Whole = Field(
        default=8,
        ge=1,
        le=1024,
        description="Threads of one tool, those of its calls that run on after their time limit included.",
    )
    tool_threads_abandoned: Whole = Field(
        default=64,
        ge=0,
        le=1024,
        description="Threads beyond `tool_threads`, in place of those in which calls run on after their time limit.",
    )
    max_queue_size: Whole = Field(
        default=1_000,
        ge=0,
        description="Calls of one tool that may wait for a thread, or run at a time as coroutines; more are refused.",
    )
    queue_timeout: Milliseconds = Field(default=5_000, ge=0, description="How long a call waits for a thread.")
    tool_timeout: Milliseconds = Field(
        default=300_000, ge=1, description="How long a call may take at most; an earlier deadline of its own counts."
    )
