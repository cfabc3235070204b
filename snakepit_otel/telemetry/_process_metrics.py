"""Metrics of this process: memory, processor time, threads, garbage collections."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Metric
from snakepit_otel.telemetry._instruments import PROCESS, Reading, observe

_PAGE = os.sysconf("SC_PAGE_SIZE")


def register(enabled: Callable[[], bool] = lambda: True) -> None:
    """Read this process at every collection, from now on, while `enabled` returns true."""
    for metric, read in _READINGS.items():
        observe(PROCESS, metric, partial(_read, read, enabled))


def _read(read: Callable[[], Iterable[Reading]], enabled: Callable[[], bool], _: object) -> Iterable[Reading]:
    return read() if enabled() else ()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def _cpu_time() -> Iterable[Reading]:
    times = os.times()
    return [(times.user, {names.CPU_MODE: "user"}), (times.system, {names.CPU_MODE: "system"})]


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _collections() -> Iterable[Reading]:
    return [
        (counts["collections"], {names.CPYTHON_GC_GENERATION: generation})
        for generation, counts in enumerate(gc.get_stats())
    ]


_READINGS: dict[Metric, Callable[[], Iterable[Reading]]] = {
    names.METRIC_PROCESS_MEMORY_USAGE: lambda: [(_resident(), {})],
    names.METRIC_PROCESS_CPU_TIME: _cpu_time,
    names.METRIC_PROCESS_THREAD_COUNT: lambda: [(_threads(), {})],
    names.METRIC_CPYTHON_GC_COLLECTIONS: _collections,
}
