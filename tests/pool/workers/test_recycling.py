"""Replacement of workers that are well: by age, requests and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.recycling import ExitReason, recycle_reason, resident_bytes


def _due(settings: dict[str, Any], **about: Any) -> ExitReason | None:
    asked: dict[str, Any] = {"age": 0.0, "requests": 0, "memory": None, "ttl_jitter": 0.0, **about}
    return recycle_reason(**asked, settings=PoolSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "about", "reason"),
    [
        ({}, {"age": 1e9, "requests": 10**9, "memory": 10**15}, None),
        ({"worker_ttl": 60}, {"age": 59.9}, None),
        ({"worker_ttl": 60}, {"age": 60.0}, ExitReason.TTL),
        ({"worker_ttl": 60}, {"age": 54.0, "ttl_jitter": 1.0}, ExitReason.TTL),
        ({"worker_max_requests": 3}, {"requests": 2}, None),
        ({"worker_max_requests": 3}, {"requests": 3}, ExitReason.MAX_REQUESTS),
        ({"worker_max_memory_bytes": 100}, {"memory": 100}, None),
        ({"worker_max_memory_bytes": 100}, {"memory": 101}, ExitReason.MEMORY),
        ({"worker_max_memory_bytes": 100}, {"memory": None}, None),
        ({"worker_max_memory_bytes": 1, "worker_ttl": 1}, {"memory": 2, "age": 2.0}, ExitReason.MEMORY),
    ],
)
def test_a_worker_is_due_at_its_limits(settings: dict[str, Any], about: dict[str, Any], reason: ExitReason) -> None:
    """By default there is no limit; each that is set says so by its name, the most urgent first."""
    assert _due(settings, **about) is reason


@given(ttl=st.floats(1, 1e6), jitter=st.floats(0, 1), age=st.floats(0, 2e6))
def test_properties_of_a_life(ttl: float, jitter: float, age: float) -> None:
    """No worker lives for longer than its time, and none for less than nine tenths of it."""
    reason = _due({"worker_ttl": ttl}, age=age, ttl_jitter=jitter)
    if age >= ttl:
        assert reason is ExitReason.TTL
    if age < ttl * 0.9 * (1 - 1e-9):
        assert reason is None


def test_memory_is_what_is_resident() -> None:
    """Memory that a process touches is seen, in bytes."""
    before = resident_bytes(os.getpid())
    assert before is not None
    held = b"\x01" * (64 << 20)
    after = resident_bytes(os.getpid())
    assert after is not None
    assert after - before >= 60 << 20
    assert len(held) == 64 << 20


def test_a_process_that_is_gone_has_no_memory() -> None:
    """Neither does a process that is dead and has not been waited for, nor one that nobody remembers."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert resident_bytes(child.pid) is None
    assert resident_bytes(child.pid) is None
