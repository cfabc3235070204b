"""The demo runs, and shows what it promises."""

from __future__ import annotations

import re

from tests.processes import run


async def test_demo_shows_the_whole_day() -> None:
    """Crash, replacement, expiry, leak, eviction, ledger, trace and metrics are all seen, and the sums are right."""
    code, output, complaints = await run("demo", environ={"COLUMNS": "160"})
    assert (code, complaints) == (0, "")
    answered = re.search(r"(\d+) answered in", output)
    failed = re.search(r": (\d+) requests failed with it", output)
    assert answered
    assert failed
    assert int(answered[1]) + int(failed[1]) == 420
    assert re.search(r"default-\d\.2 \(pid \d+\) took its place", output)
    assert "killed by SIGKILL while it ran 'read_digit'" in output
    assert "pruned by TTL: 10; live: 12" in output
    assert re.search(r"28 sessions, oldest 0 s, demo/workload.py:\d+ in open_tabs_and_forget_them, owner web", output)
    assert "quota_exceeded" in output
    assert re.search(r"evicted to make room, least recently used: customer-\d\d\n", output)
    assert "61 created - 0 deleted - 10 expired - 1 evicted = 50 live" in output
    assert re.search(r"rpc ExecuteElixirTool .* authority\s*\n.*update session", output)
    assert "snakepit.adapter.phase.duration" in output
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=" in output
