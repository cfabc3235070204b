"""Consumers who leave their streams early."""

from __future__ import annotations

import gc
from contextlib import aclosing
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from tests.adapters_for_tests import Useful
from tests.pool.proofs.figures import saying

STREAMS = 3_000
MOST = 1.0
"""KiB for each, several times of what is measured."""


def resident() -> int:
    """Return this process' resident memory in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@pytest.mark.matrix
async def test_leaving_a_stream_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """The caller's process keeps nothing of a stream that it has read in part."""
    async with Snakepit(Useful, workers=1) as pit:

        async def leave(times: int) -> None:
            for _ in range(times):
                async with aclosing(pit.stream("count_async", {"to": 1_000})) as stream:
                    assert await anext(stream) == {"number": 1}

        await leave(STREAMS // 2)
        gc.collect()
        before = resident()
        await leave(STREAMS)
        gc.collect()
        kept = (resident() - before) / STREAMS
    saying(capsys)(f"{STREAMS} streams left after their first chunk: {kept * 1024:.0f} bytes of memory kept of each")
    assert kept < MOST
