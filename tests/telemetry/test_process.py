"""Attributes and metrics of a process as a process."""

from __future__ import annotations

import gc
import os
import threading

from snakepit_otel.telemetry import _process_metrics, names
from snakepit_otel.testing import Capture


def test_the_process_tells_its_memory_threads_and_processor_time(capture: Capture) -> None:
    """Resident memory, threads, and time in the program and in the kernel are those of this process, read now."""
    _process_metrics.register()
    stop = threading.Event()
    waiting = threading.Thread(target=stop.wait)
    (before,) = capture.points(names.METRIC_PROCESS_THREAD_COUNT.name)
    waiting.start()
    try:
        (after,) = capture.points(names.METRIC_PROCESS_THREAD_COUNT.name)
    finally:
        stop.set()
        waiting.join()
    assert after.value == before.value + 1
    (memory,) = capture.points(names.METRIC_PROCESS_MEMORY_USAGE.name)
    assert 1_000_000 < memory.value < 100_000_000_000
    capture.clear()
    begun = os.times().user
    while os.times().user - begun < 0.02:
        sum(range(10_000))
    spent = {point.attributes[names.CPU_MODE]: point.value for point in capture.points("process.cpu.time")}
    assert spent.keys() == {"user", "system"}
    assert spent["user"] >= 0.01


def test_garbage_collections_are_told_by_generation(capture: Capture) -> None:
    """A collection of the oldest generation counts there."""
    _process_metrics.register()

    def oldest() -> float:
        points = capture.points(names.METRIC_CPYTHON_GC_COLLECTIONS.name)
        return {point.attributes[names.CPYTHON_GC_GENERATION]: point.value for point in points}[
            2
        ]  # since the last look

    oldest()
    gc.collect()
    gc.collect()
    assert oldest() == 2


def test_the_process_is_counted_once(capture: Capture) -> None:
    """To ask for the report twice changes nothing."""
    _process_metrics.register()
    (once,) = capture.points(names.METRIC_PROCESS_THREAD_COUNT.name)
    _process_metrics.register()
    (twice,) = capture.points(names.METRIC_PROCESS_THREAD_COUNT.name)
    assert twice.value == once.value
