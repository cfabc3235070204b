"""Hooks of the worker: what they get, where they run, and what becomes of their failures."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any, ClassVar

import pytest

from snakepit_otel import BaseAdapter, WorkerContext, tool
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.adapters._worker_hooks import WorkerHooks
from snakepit_otel.errors import AdapterNotLoaded, WorkerStartFailed
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture

WORKER = WorkerContext("gpu-2.1", "gpu", 1, 1, {"CUDA_VISIBLE_DEVICES": "1"})


def hooks_of(adapter: type, **more: Any) -> WorkerHooks:
    """Return the hooks of an adapter, with threads of their own."""
    return WorkerHooks(adapter, ToolThreads(), **more)


class Base(BaseAdapter):
    """Keeps what its hooks were given."""

    calls: ClassVar[list[Any]]

    @tool
    def thread(self) -> int:
        """Return the thread that plain tools run in."""
        return threading.get_ident()


async def test_hooks_take_the_worker_or_nothing_plain_or_async() -> None:
    """All four forms are called once, a static method among them, and what is awaited has ended when start returns."""

    class Plain(Base):
        calls: ClassVar[list[Any]] = []

        @classmethod
        def on_worker_start(cls, worker: WorkerContext) -> None:
            cls.calls.append((worker.slot, worker.environment["CUDA_VISIBLE_DEVICES"]))

        @staticmethod
        def on_worker_stop() -> None:
            Plain.calls.append("stop")

    class Awaited:
        calls: ClassVar[list[Any]] = []

        @classmethod
        async def on_worker_start(cls) -> None:
            await asyncio.sleep(0)
            cls.calls.append("start")

        @classmethod
        async def on_worker_stop(cls, worker: WorkerContext) -> None:
            await asyncio.sleep(0)
            cls.calls.append(worker.worker_id)

    for adapter, calls in ((Plain, [(1, "1"), "stop"]), (Awaited, ["start", "gpu-2.1"])):
        hooks = hooks_of(adapter)
        assert hooks.has_stop_hook
        await hooks.start(WORKER)
        await hooks.stop(WORKER, 1.0)
        await hooks.stop(WORKER, 1.0)
        assert adapter.calls == calls


async def test_plain_hooks_run_where_plain_tools_do() -> None:
    """What belongs to a thread, such as a connection of sqlite3, can be used by tools; coroutines have the loop's."""

    class Both(Base):
        calls: ClassVar[list[Any]] = []

        @classmethod
        def on_worker_start(cls) -> None:
            cls.calls.append(threading.get_ident())

        @classmethod
        async def on_worker_stop(cls) -> None:
            cls.calls.append(threading.get_ident())

    threads = ToolThreads()
    host = AdapterHost(Both, threads)
    await host.worker_hooks.start(WORKER)
    await host.worker_hooks.stop(WORKER, 1.0)
    assert Both.calls == [await threads.run(threading.get_ident), threading.get_ident()]
    sensitive = AdapterHost(Both, threads, [Both.__module__])
    await sensitive.worker_hooks.start(WORKER)
    assert Both.calls[-1] == threading.get_ident()


async def test_adapters_without_hooks_have_no_telemetry_of_them(capture: Capture) -> None:
    """What `BaseAdapter` inherits to them is no hook."""
    hooks = hooks_of(Base)
    await hooks.start(WORKER)
    await hooks.stop(WORKER, 1.0)
    assert not hooks.has_stop_hook
    assert not capture.spans("run worker hook")


async def test_a_failure_names_hook_error_and_line(capture: Capture) -> None:
    """The start fails with the user's traceback, without frames of ours; the stop hook does not run."""

    class Broken(Base):
        calls: ClassVar[list[Any]] = []

        @classmethod
        def on_worker_start(cls) -> None:
            raise SystemExit("no weights")

        @classmethod
        def on_worker_stop(cls) -> None:
            cls.calls.append("stop")

    hooks = hooks_of(Broken)
    with pytest.raises(WorkerStartFailed) as caught:
        await hooks.start(WORKER)
    first, second, *frames = str(caught.value).splitlines()
    assert first.startswith("worker gpu-2.1 could not start: on_worker_start of adapter ")
    assert first.endswith("Broken raised SystemExit: no weights")
    assert second == "Traceback (most recent call last):"
    assert "test_worker_hooks.py" in frames[0]
    await hooks.stop(WORKER, 1.0)
    assert Broken.calls == []
    (span,) = capture.spans("run worker hook")
    assert span.attributes[names.ERROR_TYPE] == "SystemExit"
    assert span.attributes[names.SNAKEPIT_WORKER_HOOK_NAME] == "on_worker_start"
    (point,) = capture.points(names.METRIC_WORKER_HOOK_DURATION.name)
    assert point.count == 1


async def test_a_hook_that_does_not_end_is_shown_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Plain or async, the error has the lines that it is in; a stop hook is left, with the same in the log."""
    release = threading.Event()

    class Plain(Base):
        @classmethod
        def on_worker_start(cls) -> None:
            release.wait()  # stuck here

    class Awaited(Base):
        @classmethod
        async def connect(cls) -> None:
            await asyncio.Event().wait()  # stuck there

        @classmethod
        async def on_worker_start(cls) -> None:
            await cls.connect()

    class Slow(Base):
        @classmethod
        async def on_worker_stop(cls) -> None:
            await Awaited.connect()

    with pytest.raises(WorkerStartFailed, match=r"(?s)had not ended after 0.05 s; it was here:.*# stuck here"):
        await hooks_of(Plain).start(WORKER, 0.05)
    release.set()
    with pytest.raises(WorkerStartFailed, match=r"(?s)cls.connect\(\).*# stuck there"):
        await hooks_of(Awaited).start(WORKER, 0.05)
    slow = hooks_of(Slow)
    await slow.start(WORKER)
    began = time.monotonic()
    with caplog.at_level(logging.ERROR):
        await slow.stop(WORKER, 0.05)
    assert time.monotonic() - began < 5
    assert "Slow is left, as it had not ended after 0.05 s" in caplog.text
    assert "stuck there" in caplog.text


async def test_what_a_stop_hook_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The worker stops all the same."""

    class Failing(Base):
        @classmethod
        def on_worker_stop(cls) -> None:
            raise OSError("the pool is gone")

    hooks = hooks_of(Failing)
    await hooks.start(WORKER)
    await hooks.stop(WORKER, 1.0)
    assert "Failing failed; the worker stops all the same" in caplog.text
    assert "OSError: the pool is gone" in caplog.text


def _instance_method(self: Any) -> None: ...
def _two(cls: type, worker: Any, more: Any) -> None: ...
def _generator(cls: type) -> Any:
    yield


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (_instance_method, "on_worker_start is no class method; write @classmethod above it"),
        (classmethod(_two), r"on_worker_start takes \(worker: 'Any', more: 'Any'\) -> 'None'; it is called with"),
        (classmethod(_generator), "on_worker_start is a generator"),
    ],
)
def test_what_cannot_be_a_hook_is_refused_at_load(hook: Any, words: str) -> None:
    """The error says what a hook is."""
    adapter = type("Wrong", (Base,), {"on_worker_start": hook})
    with pytest.raises(AdapterNotLoaded, match=words):
        AdapterHost(adapter, ToolThreads())
