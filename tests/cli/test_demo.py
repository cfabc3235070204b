"""The demo runs, and shows what it promises."""

from __future__ import annotations

import re

import pytest

from tests.processes import run


@pytest.mark.timeout(300)
async def test_demo_shows_the_whole_day() -> None:
    """Crash, restart, expiry, leak, eviction, ledger, a batch by reference, traces, metrics: all seen and right."""
    code, output, complaints = await run("demo", environ={"COLUMNS": "160"}, timeout=240)
    assert (code, complaints) == (0, "")
    answered = re.search(r"(\d+) answered in", output)
    failed = re.search(r": (\d+) requests failed with it", output)
    assert answered
    assert failed
    assert int(answered[1]) + int(failed[1]) == 420
    assert re.search(r"default-\d\.2 \(pid \d+\) took its place", output)
    assert "killed by SIGKILL while it ran 'read_digit'" in output
    assert "2 workers were replaced, one after the other" in output
    assert re.search(
        r"[1-9]\d* requests were answered meanwhile, all that were made; [1-9]\d* of them had lost", output
    )
    assert "pruned by TTL: 10; live: 12" in output
    assert re.search(r"28 sessions, oldest 0 s, demo/workload.py:\d+ in leak_sessions, owner web", output)
    assert "quota_exceeded" in output
    assert re.search(r"evicted to make room, least recently used: customer-\d\d\n", output)
    assert "61 created - 0 deleted - 10 expired - 1 evicted = 50 live" in output
    assert re.search(r"rpc ExecuteElixirTool .* authority\s*\n.*update session", output)
    given, returned = 8_192 * 64 * 8, 8_192 * 10 * 8
    assert re.search(
        rf"{given:,} bytes of images there and {returned:,} bytes of scores back .* 9\d\.\d% of them", output
    )
    batch = output.partition("The trace of the batch")[2]
    assert re.search(r"── read a batch .* authority", batch)
    # Of both references: who made them, and that they ended with the request.
    for side, owner, size in (("authority", "elixir", given), ("worker", "python", returned)):
        assert re.search(
            rf"create reference .* {side}  owner={owner}  dtype=float64  shape=8192x\d+  size={size}", batch
        )
        assert re.search(rf"release reference .* {side}  owner={owner}  release_reason=request_end", batch)
    assert re.search(rf"the worker opened the images in .*: {given:,} bytes, transport shm", batch)
    assert re.search(rf"the caller opened the scores in .*: {returned:,} bytes, transport shm", batch)
    assert f"{given + returned:,} bytes were shared, 0 were copied over gRPC" in batch
    assert re.search(r"their description, \d{3} bytes of JSON", batch)
    assert "snakepit.adapter.phase.duration" in output
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=" in output
