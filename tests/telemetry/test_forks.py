"""Adapters that fork while spans flow: nobody hangs or dies of it, and the worker's books stay right."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snakepit_otel.telemetry import names
from snakepit_otel.testing import OtlpSink
from tests.processes import children, program
from tests.telemetry.difficult_sink import DifficultSink
from tests.telemetry.lone_worker import QUICK, SPANS_OF_A_REQUEST, LoneWorker, lone_worker
from tests.waiting import until

FORKING = {
    "fork_and_exit": 7,
    "fork_and_leave": 7,
    "fork_on_the_loop": 7,
    "fork_and_return": 0,
    "fork_and_raise": 1,
    "fork_and_stream": 0,
    "fork_and_observe": 0,
    "multiprocess": 7,
}
"""The tools that fork, and the status that their children are to end with."""
SOME, ALL = 15, 100
TIMES = [
    *(pytest.param(tool, SOME, id=tool) for tool in FORKING),
    *(pytest.param(tool, ALL, id=f"{tool}-{ALL} times", marks=pytest.mark.matrix) for tool in FORKING),
]


@contextmanager
def traffic(worker: LoneWorker) -> Iterator[None]:
    """Make ordinary calls for the length of the block."""

    async def caller() -> None:
        while True:
            await worker.one_call()
            await asyncio.sleep(0.002)

    callers = [asyncio.ensure_future(caller()) for _ in range(4)]
    try:
        yield
        assert not any(caller.done() for caller in callers), "an ordinary call failed"
    finally:
        for caller in callers:
            caller.cancel()


@pytest.mark.parametrize(("tool", "times"), TIMES)
async def test_forks_harm_nothing(tool: str, times: int, short_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each child ends as it should, the worker goes on, and the collector gets every span once."""
    with DifficultSink() as sink, OtlpSink() as metrics:
        environ = {**sink.environ, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": metrics.endpoint}
        async with lone_worker(short_path, environ) as worker:
            with traffic(worker):
                for _ in range(times):
                    status = (await worker.stream(tool))[0] if tool == "fork_and_stream" else await worker.call(tool)
                    assert status == FORKING[tool]
            # The calls that were under way are cancelled, which a worker hears of in its own time.
            await until(lambda: worker.ledger["traces"].queued == 0)
            assert children(worker.worker.pid) == []
            before = worker.ledger["traces"].delivered
            await worker.traffic(20)
            assert (await worker.end(signal.SIGTERM))[0] == 0
            books = worker.ledger
    spans = books["traces"]
    assert spans.delivered >= before + 20 * SPANS_OF_A_REQUEST
    assert spans.ended >= worker.spans_before + worker.answered * SPANS_OF_A_REQUEST
    for account in books.accounts.values():
        assert account.lost() == {}
        assert account.delivered == account.ended
    assert len(sink.taken) == len(set(sink.taken)) == spans.delivered
    forks = [point.value for point in metrics.points if point.metric == names.METRIC_TELEMETRY_FORKS.name]
    assert forks == [times]
    said = capfd.readouterr().err
    assert said.count("this process was forked") == 1
    assert "fork_posix" not in said, "gRPC's own fork handlers are at work"


async def test_programs_that_are_run_are_no_forks(short_path: Path) -> None:
    """What subprocess does is neither counted nor complained of."""
    with OtlpSink() as sink:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        async with lone_worker(short_path, environ) as worker:
            assert await worker.call("run_program") == 7
            await worker.end(signal.SIGTERM)
    assert [point.value for point in sink.points if point.metric == names.METRIC_TELEMETRY_FORKS.name] == [0]


PROGRAM = """
import os, sys, time, threading
from opentelemetry import trace
from snakepit_otel import telemetry
ours = telemetry.setup("forking")
tracer = trace.get_tracer("program")
over = threading.Event()
made = 0

def flow():
    global made
    while not over.wait(0.001):
        tracer.start_span("flow").end()
        made += 1

thread = threading.Thread(target=flow)
thread.start()
hung = 0
for number in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        # To the end of the interpreter, by way of atexit and of every destructor.
        tracer.start_span("in the child").end()
        sys.exit(7)
    end = time.monotonic() + 10
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.001)
    if not ended[0]:
        os.kill(child, 9)
        os.waitpid(child, 0)
    hung += os.waitstatus_to_exitcode(ended[1]) != 7
over.set()
thread.join()
sent = ours.shutdown()
account = ours.ledger["traces"]
print(f"{hung=} {made=} {sent=} ended={account.ended} delivered={account.delivered}", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("times", "protocol"),
    [
        pytest.param(10, "grpc"),
        pytest.param(ALL, "grpc", marks=pytest.mark.matrix),
        pytest.param(ALL, "http/protobuf", marks=pytest.mark.matrix),
    ],
)
async def test_children_of_any_program_end_through_atexit(times: int, protocol: str) -> None:
    """Where no worker sees to it, a child ends by itself too, if gRPC was told in time to let forks alone."""
    with DifficultSink(protocol=protocol) as sink:
        environ = {**QUICK, **sink.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
        async with program("-c", PROGRAM, str(times), environ=environ) as running:
            figures = await running.says("hung=", timeout=100)
            assert await running.ends() == 0
    assert figures.startswith("hung=0 ")
    made = int(figures.split("made=")[1].split()[0])
    assert f"sent=True ended={made} delivered={made}" in figures
    assert len(sink.taken) == len(set(sink.taken)) == made
