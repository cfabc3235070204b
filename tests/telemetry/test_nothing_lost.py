"""However a worker ends and whatever its collector does, every item of telemetry is delivered or counted.

A worker's own books are held against what is known without them: six spans for each request answered, and
what the collector says it took.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path

import pytest

from snakepit_otel.bridge.authority.jobs import ConnectionLost
from snakepit_otel.telemetry import Ledger, names
from snakepit_otel.telemetry.export.ledger import SIGNALS
from snakepit_otel.testing import Capture
from tests.telemetry.difficult_sink import DifficultSink, Mood, flapping
from tests.telemetry.lone_worker import GRACE, SPANS_OF_A_REQUEST, LoneWorker, lone_worker
from tests.waiting import BUSY, until

CALLERS = 8


class End(StrEnum):
    """How a worker ends."""

    STOPPED = "stopped when idle"
    STOPPED_UNDER_LOAD = "stopped under load"
    LEFT = "os._exit in a tool"
    KILLED = "SIGKILL under load"


STOPS = (End.STOPPED, End.STOPPED_UNDER_LOAD)
FLAPPING = "flapping"
MOODS = [Mood.OK, Mood.REFUSED, Mood.MUTE, Mood.HOLD, Mood.SLOW, Mood.EXHAUSTED, Mood.UNAVAILABLE, FLAPPING]
# Each end and each mood at least once, HOLD by a pool; the rest takes minutes, and is for `make telemetry-proof`.
ALWAYS = {
    (End.STOPPED, Mood.OK),
    (End.STOPPED, FLAPPING),
    (End.STOPPED_UNDER_LOAD, Mood.MUTE),
    (End.STOPPED_UNDER_LOAD, Mood.UNAVAILABLE),
    (End.LEFT, Mood.SLOW),
    (End.LEFT, Mood.REFUSED),
    (End.KILLED, Mood.OK),
    (End.KILLED, Mood.EXHAUSTED),
}
CELLS = [
    pytest.param(end, mood, id=f"{end}-{mood}", marks=() if (end, mood) in ALWAYS else pytest.mark.matrix)
    for end in End
    for mood in MOODS
]
OVER_HTTP = [
    (End.STOPPED, Mood.OK),
    (End.STOPPED, FLAPPING),
    (End.STOPPED_UNDER_LOAD, Mood.HOLD),
    (End.STOPPED_UNDER_LOAD, Mood.UNAVAILABLE),
    (End.LEFT, Mood.SLOW),
    (End.KILLED, Mood.REFUSED),
    (End.KILLED, Mood.OK),
]


@pytest.mark.parametrize(("end", "mood"), CELLS)
async def test_books_are_right(end: End, mood: str, short_path: Path, capture: Capture) -> None:
    """Over OTLP/gRPC."""
    await prove(end, mood, "grpc", short_path, capture)


@pytest.mark.parametrize(
    ("end", "mood"),
    [
        pytest.param(end, mood, id=f"{end}-{mood}", marks=() if number < 1 else pytest.mark.matrix)
        for number, (end, mood) in enumerate(OVER_HTTP)
    ],
)
async def test_books_are_right_over_http(end: End, mood: str, short_path: Path, capture: Capture) -> None:
    """Over OTLP/HTTP."""
    await prove(end, mood, "http/protobuf", short_path, capture)


async def prove(end: End, mood: str, protocol: str, directory: Path, capture: Capture) -> None:
    """Run a worker to its end, and look at the books."""
    first = Mood.OK if mood == FLAPPING else Mood(mood)
    with DifficultSink(first, protocol=protocol) as sink, ExitStack() as meanwhile:
        async with lone_worker(directory, sink.environ) as worker:
            if mood == FLAPPING:
                meanwhile.enter_context(flapping(sink))
            for part in range(4):
                await worker.traffic(100, CALLERS)
                if mood == FLAPPING:
                    await until(lambda part=part: sink.moods > part + 1)
            # So that exports are under way, and have been tried again, when it ends.
            await exports_have_been_tried(worker)
            status, took = await bring_to_its_end(worker, end)
            books = worker.ledger
            capture.clear()
            worker.worker._record_lost_telemetry()
            said = losses(capture)
            assert worker.worker._ledger is None
        meanwhile.close()
    print(f"\n{protocol} | {end} | {mood} | exit {status} after {took:.2f} s | {worker.answered} answered")
    for signal_name in SIGNALS:
        account = books[signal_name]
        print(f"    {signal_name}: {account}, in flight {account.in_flight}; sink took {sink.accepted[signal_name]}")
    look(books, worker, end)
    compare(books, sink, end, mood)
    assert said == {name: books[name].ended - books[name].delivered for name in SIGNALS if books[name].lost()}
    if end in STOPS:
        assert status == 0
        assert took < GRACE + 3 + BUSY
    else:
        assert status == {End.LEFT: 3, End.KILLED: -signal.SIGKILL}[end]


async def exports_have_been_tried(worker: LoneWorker) -> None:
    """Wait until an export of each signal is under way, or was."""

    def tried(signal_name: str) -> bool:
        account = worker.ledger[signal_name]
        return account.in_flight + account.failed + account.delivered > 0

    await until(lambda: all(tried(name) for name in SIGNALS))


async def bring_to_its_end(worker: LoneWorker, end: End) -> tuple[int, float]:
    """End the worker, and return its exit status and how long that took."""
    if end is End.STOPPED:
        return await worker.end(signal.SIGTERM)
    if end is End.LEFT:
        leaving = asyncio.ensure_future(worker.call("leave"))
        ended = await worker.end()
        with pytest.raises(ConnectionLost):
            await leaving
        return ended
    async with worker.under_load(CALLERS):
        return await worker.end(signal.SIGTERM if end is End.STOPPED_UNDER_LOAD else signal.SIGKILL)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_what_the_collector_refuses_is_not_delivered(protocol: str, short_path: Path) -> None:
    """Of each request it takes, this collector refuses one item, and says so."""
    with DifficultSink(Mood.PARTIAL, protocol=protocol) as sink:
        async with lone_worker(short_path, sink.environ) as worker:
            await worker.traffic(100, CALLERS)
            await worker.end(signal.SIGTERM)
            books = worker.ledger
    for name, account in books.accounts.items():
        assert account.failed == sink.requests[name] > 0
        assert account.delivered == sink.accepted[name] == account.ended - account.failed


async def test_full_queue_is_counted(short_path: Path) -> None:
    """What finds no place in the queue is counted when that happens, and once."""
    with DifficultSink(Mood.HOLD) as sink:
        environ = {**sink.environ, "OTEL_BSP_MAX_QUEUE_SIZE": "500"}
        async with lone_worker(short_path, environ) as worker:
            await until(lambda: worker.ledger["traces"].in_flight == worker.spans_before == 1)
            await worker.traffic(400, CALLERS)
            spans = worker.ledger["traces"]
            assert spans.ended == 1 + 400 * SPANS_OF_A_REQUEST
            assert spans.dropped["queue_full"] == 400 * SPANS_OF_A_REQUEST - 500
            sink.be(Mood.OK)
            await until(lambda: worker.ledger["traces"].queued == 0)
            status, _ = await worker.end(signal.SIGTERM)
            assert status == 0
            spans = worker.ledger["traces"]
            assert spans.delivered == sink.accepted["traces"] == 501
            assert spans.lost() == {"queue_full": 400 * SPANS_OF_A_REQUEST - 500}


async def test_delivery_resumes_when_the_collector_is_back(short_path: Path) -> None:
    """A batch that was under way is tried again, and nothing is missing in the end."""
    with DifficultSink() as sink:
        async with lone_worker(short_path, sink.environ) as worker:
            await worker.traffic(50)
            await until(lambda: worker.ledger["traces"].queued == 0)
            sink.be(Mood.REFUSED)
            await worker.traffic(50)
            await until(lambda: worker.ledger["traces"].in_flight > 0)
            sink.be(Mood.OK)
            await until(lambda: worker.ledger["traces"].queued == 0)
            await worker.end(signal.SIGTERM)
            assert worker.ledger["traces"].lost() == {}
            assert len(set(sink.taken)) == worker.ledger["traces"].ended


def look(books: Ledger, worker: LoneWorker, end: End) -> None:
    """Hold the books against the answers."""
    least_spans = worker.spans_before + SPANS_OF_A_REQUEST * worker.answered
    most_spans, least_logs, most_logs = least_spans, worker.raised, worker.raised
    if end is End.KILLED:
        # A request's spans come into the books with its end, so those of one that has none never do.
        most_spans, most_logs = most_spans + SPANS_OF_A_REQUEST * CALLERS, most_logs + CALLERS
    assert least_spans <= books["traces"].ended <= most_spans
    assert least_logs <= books["logs"].ended <= most_logs
    assert books["metrics"].ended > 0
    for account in books.accounts.values():
        assert account.ended == account.delivered + account.failed + sum(account.dropped.values()) + account.queued
        assert 0 <= account.in_flight <= account.queued
        assert sum(account.lost().values()) == account.ended - account.delivered
        assert account.dropped["encode"] == 0
        if end in STOPS:
            assert account.queued == 0


def compare(books: Ledger, sink: DifficultSink, end: End, mood: str) -> None:
    """Hold the books against what the collector says it took."""
    for name, account in books.accounts.items():
        # What is sent again, as its answer was lost, is taken twice.
        accepted = len(set(sink.taken)) if name == "traces" else sink.accepted[name]
        if mood == FLAPPING:
            most = account.ended if name == "traces" else accepted
        elif end in STOPS:
            # What was on its way when the time was over counts as lost, but may have arrived.
            most = account.delivered + min(account.dropped["shutdown"], sink.largest[name])
        else:
            most = account.delivered + account.in_flight
        assert account.delivered <= accepted <= most
        if mood in (Mood.OK, Mood.SLOW):
            assert end not in STOPS or account.delivered == account.ended
        elif mood != FLAPPING:
            assert account.delivered == accepted == 0
            # Nothing had been tried for long enough to be given up; what ended was the time.
            assert end not in STOPS or account.dropped["shutdown"] == account.ended


def losses(capture: Capture) -> dict[str, float]:
    """Return what the authority counted as lost, by signal."""
    counted: Counter[str] = Counter()
    for point in capture.points(names.METRIC_WORKER_TELEMETRY_LOST.name):
        counted[point.attributes[names.SNAKEPIT_TELEMETRY_SIGNAL]] += int(point.value)
    return {name: count for name, count in counted.items() if count}


async def test_connection_that_died_without_a_word_is_given_up(short_path: Path) -> None:
    """As with what a load balancer forgets: the connection stands, and nothing comes through. A new one does."""
    with DifficultSink() as sink:
        async with relay(sink.port) as way, lone_worker(short_path, {**sink.environ, **way.environ}) as worker:
            await worker.traffic(50)
            await until(lambda: worker.ledger["traces"].queued == 0)
            way.forget_connections()
            await worker.traffic(50)
            await until(lambda: worker.ledger["traces"].failed > 0)
            await worker.traffic(50)
            await until(lambda: worker.ledger["traces"].queued == 0)
            await worker.end(signal.SIGTERM)
            spans = worker.ledger["traces"]
    assert spans.delivered == len(set(sink.taken)) == spans.ended - spans.failed
    assert 0 < spans.failed <= 50 * SPANS_OF_A_REQUEST


async def test_two_exporters_of_a_signal_are_both_accounted_for(short_path: Path) -> None:
    """Each item counts once for each of them, and one that hangs does not change the other's books."""
    with DifficultSink(Mood.HOLD) as sink:
        environ = {**sink.environ, "OTEL_TRACES_EXPORTER": "otlp,console"}
        async with lone_worker(short_path, environ) as worker:
            await worker.traffic(50)
            await worker.end(signal.SIGTERM)
            spans = worker.ledger["traces"]
    recorded = 1 + 50 * SPANS_OF_A_REQUEST
    assert spans.ended == 2 * recorded
    assert spans.delivered == recorded, "what the console got"
    assert spans.lost() == {"shutdown": recorded}


class Relay:
    """Stands between a worker and its collector."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoch = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.environ: dict[str, str] = {}

    def forget_connections(self) -> None:
        """Let nothing through any more on the connections that there are, and leave them standing."""
        self._epoch += 1

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay a new connection."""
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._pass_on(source, target, self._epoch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, epoch: int) -> None:
        with suppress(ConnectionError):
            while part := await source.read(1 << 16):
                if epoch == self._epoch:
                    target.write(part)
        target.close()

    async def close(self) -> None:
        """End all that is relayed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """Run a relay; exports over it have a second, not ten."""
    found = Relay(port)
    server = await asyncio.start_server(found.take, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    found.environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    async with server:
        try:
            yield found
        finally:
            await found.close()
