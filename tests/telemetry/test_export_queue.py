"""The queue on the way out: what goes in comes out, or is counted."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.export.export_queue import BatchResult, BatchSettings, ExportQueue
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.size_estimate import count_of
from snakepit_otel.telemetry.export.spans import SpanPipeline
from tests.telemetry.scripted import RESOURCE, ListeningPeer

LONG = 3_600.0
"""A delay that no test waits for: what is sent early is sent since somebody asked."""
ENOUGH = 20.0


class Aborted(Exception):
    """The send under way was cut off."""


class Peer:
    """Answers each send as it is told, and lets it wait until it is."""

    def __init__(self) -> None:
        self.answers: queue.Queue[str] = queue.Queue()
        self.sent: list[list[int]] = []
        self.delivered: list[int] = []
        self.failed: list[int] = []
        self.unencodable: list[int] = []
        self.asked = threading.Event()

    def send(self, batch: list[int]) -> BatchResult:
        self.sent.append(batch)
        self.asked.set()
        answer = self.answers.get(timeout=ENOUGH)
        if answer == "abort":
            self.answers.put("abort")
            raise Aborted
        if answer == "raise":
            self.failed += batch
            raise RuntimeError("no")
        refused, unencodable = {"accept": (0, 0), "refuse one": (1, 0), "refuse all": (len(batch), 0)}.get(
            answer, (0, 1)
        )
        self.failed += batch[:refused]
        self.unencodable += batch[refused : refused + unencodable]
        taken = batch[refused + unencodable :]
        self.delivered += taken
        return BatchResult(len(taken), refused, unencodable)

    def abort(self) -> None:
        self.answers.put("abort")


@contextmanager
def outbox(peer: Any, **batching: Any) -> Iterator[tuple[ExportQueue, Any]]:
    """An outbox and its account; at the end it is closed."""
    account = Ledger()["traces"]
    box = ExportQueue("test", peer.send, peer.abort, account, BatchSettings(**{"delay": LONG, **batching}))
    try:
        yield box, account
    finally:
        box.close(0)


def balanced(box: ExportQueue, account: Any) -> None:
    """Hold the account to what is there."""
    with box._progress:
        assert account.queued == box._waiting()
        assert account.ended == account.delivered + account.failed + sum(account.dropped.values()) + box._waiting()
        assert account.in_flight <= account.queued


@pytest.fixture
def quiet() -> Iterator[None]:
    """An export that raises is said each time."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 6)),
        st.tuples(st.just("answer"), st.sampled_from(["accept", "refuse one", "refuse all", "raise", "cannot encode"])),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=25,
)


@pytest.mark.usefixtures("quiet")
@given(
    steps=STEPS,
    queue_size=st.integers(1, 12),
    batch_size=st.integers(1, 5),
    in_peace=st.booleans(),
)
def test_every_item_is_accounted_for_once(
    steps: list[tuple[str, Any]], queue_size: int, batch_size: int, in_peace: bool
) -> None:
    """Whatever peers answer and whenever it is closed: ended = delivered + failed + dropped + queued, item by item."""
    peer = Peer()
    put = 0
    with outbox(peer, queue_size=queue_size, batch_size=min(batch_size, queue_size)) as (box, account):
        for step, value in steps:
            if step == "put":
                for _ in range(value):
                    box.put(put)
                    put += 1
            elif step == "answer":
                peer.answers.put(value)
            else:
                box.flush(0)
            balanced(box, account)
            assert account.ended == put
        if in_peace:
            for _ in range(put):
                peer.answers.put("accept")
            assert box.flush(ENOUGH)
            assert account.queued == 0
            assert box.close(ENOUGH)
        else:
            box.close(0)
        balanced(box, account)
        box.put(put)
        assert account.queued == account.in_flight == 0
    assert account.ended == put + 1
    assert account.dropped["shutdown"] >= 1
    counted = (account.delivered, account.failed, account.dropped["encode"])
    answered = (len(peer.delivered), len(peer.failed), len(peer.unencodable))
    if in_peace:
        assert account.dropped["shutdown"] == 1
        assert counted == answered
    # What is answered while it closes may come too late to be counted as anything but dropped.
    assert all(one <= other for one, other in zip(counted, answered, strict=True))
    arrived = [item for batch in peer.sent for item in batch]
    assert arrived == sorted(set(arrived)), "something was sent twice, or out of order"
    assert all(len(batch) <= batch_size for batch in peer.sent)


def test_a_full_queue_drops_the_newest() -> None:
    """What finds no place is counted as dropped; what is queued stays."""
    peer = Peer()
    with outbox(peer, queue_size=3, batch_size=3) as (box, account):
        for item in range(3):
            box.put(item)
        assert peer.asked.wait(ENOUGH)
        for item in range(3, 8):
            box.put(item)
        assert (account.queued, account.in_flight, account.dropped["queue_full"]) == (6, 3, 2)
        for _ in range(2):
            peer.answers.put("accept")
        assert box.close(ENOUGH)
    assert peer.delivered == [0, 1, 2, 3, 4, 5]
    assert account.lost() == {"queue_full": 2}


def test_batches_keep_to_their_bytes() -> None:
    """A request never grows beyond what servers take, but one item always goes."""
    peer = Peer()
    with outbox(peer, batch_size=100, batch_bytes=10) as (box, _):
        for item in (b"1234", b"5678", b"9", b"0", b"x" * 50, b"y"):
            box.put(item)
        for _ in range(6):
            peer.answers.put("accept")
        assert box.flush(ENOUGH)
    assert peer.sent == [[b"1234", b"5678", b"9", b"0"], [b"x" * 50], [b"y"]]


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    queue_size=st.integers(1, 40),
    batch_size=st.integers(1, 9),
)
def test_joined_items_are_counted_as_the_items_they_are(counts: list[int], queue_size: int, batch_size: int) -> None:
    """Items that were queued as one are taken whole or dropped whole, and each of them has its outcome."""
    batches: list[list[Any]] = []

    def send(batch: list[Any]) -> BatchResult:
        batches.append(batch)
        return BatchResult(count_of(batch) - 1, 1)

    account = Ledger()["traces"]
    settings = BatchSettings(delay=LONG, queue_size=queue_size, batch_size=min(batch_size, queue_size))
    box = ExportQueue("test", send, lambda: None, account, settings)
    for count in counts:
        box.put_joined(b"x" * count, count)
        balanced(box, account)
    assert box.close(ENOUGH)
    balanced(box, account)
    assert account.ended == sum(counts)
    assert (account.failed, account.queued) == (len(batches), 0)
    assert account.delivered + account.failed + account.dropped["queue_full"] == sum(counts)
    assert all(count_of(batch) <= settings.batch_size or len(batch) == 1 for batch in batches)
    assert sum(counts) > queue_size or not account.dropped["queue_full"]


def test_a_full_batch_goes_at_once() -> None:
    """Nobody waits for the delay once a batch is full."""
    peer = Peer()
    with outbox(peer, batch_size=2) as (box, _):
        box.put(1)
        box.put(2)
        assert peer.asked.wait(ENOUGH)
        assert peer.sent == [[1, 2]]


def test_what_is_dropped_meanwhile_does_not_end_a_flush() -> None:
    """A flush waits for what was queued when it began, and for nothing else."""
    peer = Peer()
    with outbox(peer, queue_size=2, batch_size=1) as (box, account):
        box.put(1)
        assert peer.asked.wait(ENOUGH)
        box.put(2)
        done: list[bool] = []
        flushing = threading.Thread(target=lambda: done.append(box.flush(ENOUGH)))
        flushing.start()
        for item in range(3, 10):
            box.put(item)
        flushing.join(0.2)
        assert done == []
        peer.answers.put("accept")
        peer.answers.put("accept")
        flushing.join(ENOUGH)
        assert done == [True]
        assert peer.delivered == [1, 2]
        assert account.queued == 1


@pytest.mark.parametrize("stop", [ExportQueue.flush, ExportQueue.close])
def test_deadlines_are_kept(stop: Callable[[ExportQueue, float], bool]) -> None:
    """A peer that does not answer, nor lets itself be cut off, holds nobody up."""
    never = threading.Event()

    class Deaf:
        def send(self, batch: list[int]) -> BatchResult:
            never.wait(ENOUGH)
            return BatchResult(len(batch))

        def abort(self) -> None:
            """Do not hear."""

    with outbox(Deaf()) as (box, account):
        for item in range(5):
            box.put(item)
        began = time.monotonic()
        assert not stop(box, 0.05)
        assert time.monotonic() - began < 5
        balanced(box, account)
        if stop is ExportQueue.close:
            assert account.lost() == {"shutdown": 5}
        never.set()
        box.close(ENOUGH)
        box._thread.join(ENOUGH)
    assert account.ended == account.delivered + account.failed + sum(account.dropped.values())


def test_an_export_cut_off_by_the_end_is_not_a_failure_of_the_peer() -> None:
    """What is aborted at shutdown counts as dropped by it."""
    peer = Peer()
    with outbox(peer, batch_size=2) as (box, account):
        for item in range(5):
            box.put(item)
        assert peer.asked.wait(ENOUGH)
        assert not box.close(0)
    assert account.lost() == {"shutdown": 5}


def test_threads_lose_no_item() -> None:
    """Items from many threads at once are all counted, and each is delivered once or counted as dropped."""
    each, threads = 4_000, 4
    peer = Peer()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with outbox(peer, queue_size=1_000, batch_size=100) as (box, account):
            for _ in range(each * threads):
                peer.answers.put("accept")

            def work(number: int) -> None:
                for step in range(each):
                    box.put(number * each + step)

            started = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
            for thread in started:
                thread.start()
            for thread in started:
                thread.join()
            assert box.close(ENOUGH)
    finally:
        sys.setswitchinterval(before)
    assert account.ended == each * threads
    assert account.delivered == len(peer.delivered) == len(set(peer.delivered))
    assert account.delivered + account.dropped["queue_full"] == each * threads
    assert account.queued == 0


def test_two_outboxes_share_an_account() -> None:
    """With two exporters each item counts for each, and neither takes the other's for its own."""
    account = Ledger()["traces"]
    slow, quick = Peer(), Peer()
    first, second = (
        ExportQueue("test", peer.send, peer.abort, account, BatchSettings(batch_size=1)) for peer in (slow, quick)
    )
    for item in range(3):
        first.put(item)
        second.put(item)
    for _ in range(3):
        quick.answers.put("accept")
    assert slow.asked.wait(ENOUGH)
    assert second.flush(ENOUGH)
    assert (account.ended, account.delivered, account.queued, account.in_flight) == (6, 3, 3, 1)
    assert not first.flush(0)
    assert second.close(ENOUGH)
    assert account.queued == 3
    assert not first.close(0)
    assert (account.delivered, account.dropped["shutdown"], account.in_flight) == (3, 3, 0)


def span(name: str) -> ReadableSpan:
    """A finished span."""
    return ReadableSpan(name, SpanContext(1, 1, False, TraceFlags(1)), resource=RESOURCE)


def test_a_span_that_cannot_be_encoded_costs_no_other() -> None:
    """One bad span among many is dropped and counted; the others are delivered."""
    account, peer = Ledger()["traces"], ListeningPeer()
    pipeline = SpanPipeline(peer, RESOURCE, account, BatchSettings())
    for number in range(9):
        pipeline.on_end(span("\ud800" if number == 4 else f"span {number}"))
    assert pipeline.force_flush(20_000)
    assert pipeline.queue.close(ENOUGH)
    assert (account.delivered, account.dropped["encode"]) == (8, 1)
    arrived = b"".join(peer.requests)
    assert all(arrived.count(f"span {number}".encode()) == 1 for number in range(9) if number != 4)


def test_an_unsampled_span_is_not_exported() -> None:
    """A span that is recorded for processors alone stays here."""
    account, peer = Ledger()["traces"], ListeningPeer()
    pipeline = SpanPipeline(peer, RESOURCE, account, BatchSettings())
    pipeline.on_end(ReadableSpan("recorded only", SpanContext(1, 1, False, TraceFlags(0)), resource=RESOURCE))
    pipeline.shutdown()
    assert account.ended == 0


@pytest.mark.parametrize(
    ("environ", "expected", "said"),
    [
        ({}, (32_768, 4_096, 1.0), []),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, (100, 100, 1.0), []),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}, (32_768, 10, 1.0), []),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "5", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}, (5, 5, 1.0), []),
        ({"OTEL_BSP_SCHEDULE_DELAY": " 250 "}, (32_768, 4_096, 0.25), []),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": ""}, (32_768, 4_096, 1.0), []),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, (32_768, 4_096, 1.0), ["OTEL_BSP_MAX_QUEUE_SIZE"]),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-5"}, (32_768, 4_096, 1.0), ["OTEL_BSP_MAX_QUEUE_SIZE"]),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "many"}, (32_768, 4_096, 1.0), ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]),
        ({"OTEL_BSP_SCHEDULE_DELAY": "0.5"}, (32_768, 4_096, 1.0), ["OTEL_BSP_SCHEDULE_DELAY"]),
        ({"OTEL_BSP_SCHEDULE_DELAY": "²"}, (32_768, 4_096, 1.0), ["OTEL_BSP_SCHEDULE_DELAY"]),
        ({"OTEL_BLRP_MAX_QUEUE_SIZE": "7"}, (32_768, 4_096, 1.0), []),
    ],
)
def test_batching_comes_from_the_environment(
    environ: dict[str, str], expected: tuple[int, int, float], said: list[str]
) -> None:
    """The specification's variables are obeyed; what makes no sense is said by name, and the default is used."""
    read = Environment(environ)
    batching = BatchSettings.from_environment("OTEL_BSP", read)
    assert (batching.queue_size, batching.batch_size, batching.delay) == expected
    assert [fault.variable for fault in read.faults] == said
