"""Time that callers give the authority for a call, within the deadline of the call itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from snakepit_otel.bridge.wire.methods import TIMEOUT_HEADER
from snakepit_otel.errors import DeadlineExceeded
from snakepit_otel.rpc.transports.base import CallContext


def time_of(headers: Mapping[str, str], context: CallContext) -> float | None:
    """Return the seconds for a call: those that its caller's header gives, or those until its deadline if fewer."""
    left = context.time_remaining()
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return left
    try:
        given = float(text)
    except ValueError:
        return left
    if math.isnan(given):
        return left
    return max(given, 0.0) if left is None else max(min(given, left), 0.0)


@asynccontextmanager
async def in_time(headers: Mapping[str, str], context: CallContext) -> AsyncIterator[None]:
    """Run a block within the call's time. Raises `DeadlineExceeded`."""
    seconds = time_of(headers, context) if TIMEOUT_HEADER in headers else None
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            late = f"the session store did not answer within {seconds:.3g} s; the call may have had its effect"
            raise DeadlineExceeded(late) from None
        raise
