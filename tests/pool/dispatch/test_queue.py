"""The queue of requests that wait for a slot."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.errors import DeadlineExceeded, PoolSaturated, QueueTimeout, SessionWorkerUnavailable
from snakepit_otel.pool.dispatch.queue import RequestQueue
from tests.pool.virtual_time import VirtualTimeLoop, run, settle

LIMIT = 4
WORKERS = ["a", "b"]


class Slot:
    """A slot on a worker."""


class Rig:
    """A queue, and the slots that it has released."""

    def __init__(self, loop: VirtualTimeLoop, limit: int = LIMIT) -> None:
        self.loop = loop
        self.returned: list[Slot] = []
        self.queue: RequestQueue[Slot] = RequestQueue(limit, loop.time, self.returned.append)

    def enter(self, **more: Any) -> asyncio.Task[Slot]:
        arguments = {"tool": "add", "service_time": 0.0, "timeout": 5.0, "capacity": 2, "busy_for": 0.0, **more}
        return self.loop.create_task(self.queue.enter(**arguments))


def test_a_slot_goes_to_the_first_whom_it_suits() -> None:
    """First in, first out, but for requests that wait for another worker."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        for_b, for_any, for_a = rig.enter(worker="b"), rig.enter(), rig.enter(worker="a")
        await settle()
        assert len(rig.queue) == 3
        slots = [Slot(), Slot(), Slot()]
        assert rig.queue.assign("a", lambda: slots[0])
        assert rig.queue.assign("a", lambda: slots[1])
        assert rig.queue.assign("b", lambda: slots[2])
        assert await asyncio.gather(for_any, for_a, for_b) == slots
        assert len(rig.queue) == 0

    run(work)


def test_a_slot_without_a_taker_is_not_made() -> None:
    """`assign` without a matching request makes no slot."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        request = rig.enter(worker="b")
        await settle()
        made: list[Slot] = []

        def make() -> Slot:
            made.append(Slot())
            return made[-1]

        assert not rig.queue.assign("a", make)
        assert made == []
        request.cancel()

    run(work)


def test_a_slot_that_cannot_be_made_leaves_the_order() -> None:
    """An error in making a slot reaches the caller of `assign`, and the first request stays first."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        request = rig.enter()
        await settle()

        def fail() -> Slot:
            raise RuntimeError("no slot")

        with pytest.raises(RuntimeError, match="no slot"):
            rig.queue.assign("a", fail)
        slot = Slot()
        assert rig.queue.assign("a", lambda: slot)
        assert await request is slot

    run(work)


def test_a_full_queue_refuses_at_once_with_figures() -> None:
    """The message has the length, the limit, the expected wait and the time that was left."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop, limit=2)
        tasks = [rig.enter(service_time=3.0), rig.enter(service_time=1.0)]
        await settle()
        with pytest.raises(PoolSaturated) as refused:
            await rig.enter(tool="mul", busy_for=0.5, deadline=loop.now + 60)
        assert str(refused.value) == (
            "2 requests wait already, and no more than 2 may (max_queue_size); the wait would be about 2.5 s, "
            "and the request for 'mul' had 60 s left; it did not run"
        )
        assert loop.now == 1_000.0
        for task in tasks:
            task.cancel()

    run(work)


def test_a_queue_of_none_refuses_every_request() -> None:
    """With a limit of zero no request may wait."""

    async def work(loop: VirtualTimeLoop) -> None:
        with pytest.raises(PoolSaturated, match="had no deadline; it did not run"):
            await Rig(loop, limit=0).enter()

    run(work)


def test_a_request_that_cannot_complete_in_time_is_refused_at_once() -> None:
    """The wait behind all others, shared by the slots, and the request itself must fit before its deadline."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        first = rig.enter(service_time=2.0)
        await settle()
        with pytest.raises(PoolSaturated) as refused:
            await rig.enter(service_time=1.5, busy_for=1.0, deadline=loop.now + 3.4)
        assert "would wait about 2 s behind 1 others (of at most 4) and then take about 1.5 s" in str(refused.value)
        assert str(refused.value).endswith("but had 3.4 s left; it did not run")
        second = rig.enter(service_time=1.5, busy_for=1.0, deadline=loop.now + 3.5)
        await settle()
        assert len(rig.queue) == 2
        first.cancel()
        second.cancel()

    run(work)


def test_a_request_for_one_worker_waits_behind_those_for_the_same() -> None:
    """Requests that any worker may serve are not counted against one for a certain worker."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        tasks = [
            rig.enter(service_time=50.0),
            rig.enter(service_time=50.0, worker="b"),
            rig.enter(service_time=2.0, worker="a"),
        ]
        await settle()
        with pytest.raises(PoolSaturated, match="about 2 s behind"):
            await rig.enter(service_time=1.0, worker="a", capacity=1, deadline=loop.now + 2.5)
        tasks.append(rig.enter(service_time=1.0, worker="a", capacity=1, deadline=loop.now + 3.0))
        await settle()
        assert len(rig.queue) == 4
        for task in tasks:
            task.cancel()

    run(work)


def test_a_deadline_that_has_passed_does_not_wait() -> None:
    """A request that is late on arrival fails at once."""

    async def work(loop: VirtualTimeLoop) -> None:
        with pytest.raises(DeadlineExceeded, match="had passed before it could wait for a worker; it did not run"):
            await Rig(loop).enter(deadline=loop.now)

    run(work)


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        (None, "no worker had a free slot for a request for 'add' within 5 s"),
        (
            "a",
            "worker a, the only one allowed by the pool's affinity, had no free slot for a request for 'add'",
        ),
    ],
)
def test_queue_timeout(worker: str | None, message: str) -> None:
    """After its timeout, to the instant, a request fails."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        with pytest.raises(QueueTimeout, match=message) as refused:
            await rig.enter(worker=worker, deadline=loop.now + 6.0)
        assert str(refused.value).endswith("it did not run")
        assert loop.now == 1_005.0
        assert len(rig.queue) == 0

    run(work)


def test_a_deadline_may_come_before_the_queue_timeout() -> None:
    """A request whose deadline comes first fails with that."""

    async def work(loop: VirtualTimeLoop) -> None:
        with pytest.raises(DeadlineExceeded, match=r"passed after it had waited 3 s for a worker; it did not run"):
            await Rig(loop).enter(deadline=loop.now + 3.0)
        assert loop.now == 1_003.0

    run(work)


def test_a_slot_is_not_assigned_to_a_request_that_would_be_late() -> None:
    """Requests that would not complete before their deadline fail, and the next one is served."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        long, short = (
            rig.enter(service_time=2.0, deadline=loop.now + 4.0),
            rig.enter(service_time=0.5, deadline=loop.now + 4.0),
        )
        await asyncio.sleep(3.0)
        slot = Slot()
        assert rig.queue.assign("a", lambda: slot)
        assert await short is slot
        with pytest.raises(PoolSaturated, match=r"has waited 3 s .* about 2 s, but has 1 s left, .* it did not run"):
            await long

    run(work)


def test_a_slot_of_a_request_cancelled_at_that_moment_is_released() -> None:
    """Between assignment and receipt the request may be cancelled; the slot is not lost."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        request = rig.enter()
        await settle()
        slot = Slot()
        assert rig.queue.assign("a", lambda: slot)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert rig.returned == [slot]

    run(work)


def test_a_slot_of_a_request_that_is_late_by_then_is_released() -> None:
    """A loop that was held up must not hand on a request whose deadline has passed meanwhile."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        request = rig.enter(deadline=loop.now + 1.0)
        await settle()
        slot = Slot()
        assert rig.queue.assign("a", lambda: slot)
        loop.now += 2.0
        with pytest.raises(DeadlineExceeded, match="it did not run"):
            await request
        assert rig.returned == [slot]

    run(work)


def test_a_cancelled_request_leaves_the_queue() -> None:
    """A cancelled request is not served and does not count."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        first, second = rig.enter(service_time=1.0), rig.enter(service_time=2.0)
        await settle()
        first.cancel()
        slot = Slot()
        assert rig.queue.assign("a", lambda: slot)
        assert await second is slot
        assert (len(rig.queue), rig.queue._service_time) == (0, 0.0)

    run(work)


def test_an_error_without_a_receiver_is_no_warning() -> None:
    """A request that is cancelled just as it is refused does not leave an unretrieved exception."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        request = rig.enter()
        await settle()
        rig.queue.fail_all(lambda: RuntimeError("stopped"))
        request.cancel()
        await asyncio.wait([request])
        assert request.cancelled()
        del request
        gc.collect()  # when asyncio would log it

    run(work)


def test_a_served_request_leaves_no_timer() -> None:
    """The timeout is cancelled once a request is served."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        request = rig.enter(timeout=3_600.0)
        await settle()
        rig.queue.assign("a", Slot)
        await request
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]

    run(work)


def test_requests_for_a_worker_that_is_gone_fail() -> None:
    """`reject` fails exactly the requests that only that worker may serve."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        for_a, for_b, for_any = rig.enter(worker="a"), rig.enter(worker="b"), rig.enter()
        await settle()
        rig.queue.reject("a", lambda: SessionWorkerUnavailable("worker a is gone"))
        with pytest.raises(SessionWorkerUnavailable, match="worker a is gone"):
            await for_a
        assert len(rig.queue) == 2
        rig.queue.reject("unknown", lambda: SessionWorkerUnavailable("it is gone"))
        assert len(rig.queue) == 2
        for_b.cancel()
        for_any.cancel()

    run(work)


def test_all_requests_can_be_failed() -> None:
    """`fail_all` fails all requests, each with an error of its own."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        tasks = [rig.enter(worker="a"), rig.enter(), rig.enter(worker="b")]
        await settle()
        rig.queue.fail_all(lambda: RuntimeError("stopped"))
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(error) for error in errors] == ["stopped"] * 3
        assert len(set(map(id, errors))) == 3
        assert len(rig.queue) == 0

    run(work)


def test_assignment_skips_requests_for_another_worker() -> None:
    """With a thousand requests for one worker, a slot of another finds its request at once."""

    async def work(loop: VirtualTimeLoop) -> None:
        reads = 0

        def clock() -> float:
            nonlocal reads
            reads += 1
            return loop.now

        queue: RequestQueue[int] = RequestQueue(2_000, clock, lambda _place: None)

        def enter(worker: str | None) -> asyncio.Task[int]:
            arguments: dict[str, Any] = {"deadline": 2_000.0, "timeout": 5.0, "capacity": 1, "busy_for": 0.0}
            return loop.create_task(queue.enter(tool="add", service_time=0.0, worker=worker, **arguments))

        tasks = [enter("a") for _ in range(1_000)]
        last = enter(None)
        await settle()
        reads = 0
        assert queue.assign("b", lambda: 7)
        assert reads == 1, "the clock is read for each request whose deadline is checked"
        assert await last == 7
        for task in tasks:
            task.cancel()

    run(work)


def test_requests_that_gave_up_leave_nothing_behind() -> None:
    """Where no slot gets free for long, the queue does not grow by requests that have given up."""

    async def work(loop: VirtualTimeLoop) -> None:
        rig = Rig(loop)
        for number in range(200):
            with pytest.raises(QueueTimeout):
                await rig.enter(worker=f"a-{number}" if number % 2 else None, service_time=0.1)
        assert (len(rig.queue), rig.queue._service_time, rig.queue._strict) == (0, 0.0, {})
        assert len(rig.queue._anyone) == 0

    run(work)


class Entry:
    """The model of one request."""

    def __init__(self, loop: VirtualTimeLoop, arguments: dict[str, Any]) -> None:
        self.loop = loop
        self.arguments = arguments
        self.since = loop.now
        self.expected: Slot | None = None
        self.cancelled = False
        self.task: asyncio.Task[Slot]
        self.ended_at: float | None = None

    def waits(self) -> bool:
        return self.expected is None and not self.cancelled and not self.task.done()

    def can_complete(self) -> bool:
        deadline = self.arguments["deadline"]
        return deadline is None or (
            deadline > self.loop.now and self.arguments["service_time"] <= deadline - self.loop.now
        )

    def may_use(self, worker: str) -> bool:
        return self.arguments["worker"] in (None, worker)


ENTER = st.tuples(
    st.just("enter"),
    st.fixed_dictionaries(
        {
            "worker": st.sampled_from([None, None, *WORKERS]),
            "service_time": st.integers(0, 3),
            "timeout": st.integers(0, 6),
            "left": st.none() | st.integers(0, 8),
            "busy_for": st.integers(0, 2),
        }
    ),
)
STEPS = st.lists(
    ENTER
    | ENTER
    | st.tuples(st.just("assign"), st.sampled_from(WORKERS))
    | st.tuples(st.just("cancel"), st.integers(0, 10))
    | st.tuples(st.just("reject"), st.sampled_from(WORKERS))
    | st.tuples(st.just("pass"), st.integers(0, 3))
    | st.tuples(st.just("hang"), st.integers(0, 3)),
    max_size=40,
)


class Model:
    """Applies steps to a queue and predicts their effects."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.rig = Rig(loop)
        self.entries: list[Entry] = []
        self.slots: list[Slot] = []

    async def enter(self, arguments: dict[str, Any]) -> None:
        await settle()
        left = arguments["left"]
        arguments = {name: value for name, value in arguments.items() if name != "left"}
        arguments["deadline"] = None if left is None else self.loop.now + left
        waiting = [entry for entry in self.entries if entry.waits()]
        assert len(self.rig.queue) == len(waiting)
        same = [e for e in waiting if arguments["worker"] is None or e.arguments["worker"] == arguments["worker"]]
        expected = arguments["busy_for"] + sum(entry.arguments["service_time"] for entry in same) / 2
        entry = Entry(self.loop, arguments)
        entry.task = self.loop.create_task(self._wait(entry))
        self.entries.append(entry)
        await asyncio.sleep(0)
        if left == 0:
            self._check_refused(entry, DeadlineExceeded)
        elif len(waiting) >= LIMIT or (left is not None and expected + arguments["service_time"] > left):
            self._check_refused(entry, PoolSaturated)
        else:
            assert not entry.task.done()

    async def _wait(self, entry: Entry) -> Slot:
        try:
            slot = await self.rig.queue.enter(tool="add", capacity=2, **entry.arguments)
        finally:
            entry.ended_at = self.loop.now
        assert entry.arguments["deadline"] is None or entry.ended_at < entry.arguments["deadline"], "late, and served"
        return slot

    def _check_refused(self, entry: Entry, error: type[Exception]) -> None:
        assert entry.task.done()
        assert type(entry.task.exception()) is error

    async def assign(self, worker: str) -> None:
        expected = next((e for e in self.entries if e.waits() and e.may_use(worker) and e.can_complete()), None)

        def make() -> Slot:
            self.slots.append(Slot())
            return self.slots[-1]

        made = len(self.slots)
        assert self.rig.queue.assign(worker, make) is (expected is not None)
        assert len(self.slots) == made + (expected is not None)
        if expected is not None:
            expected.expected = self.slots[-1]

    async def cancel(self, number: int) -> None:
        if number < len(self.entries) and not self.entries[number].task.done():
            self.entries[number].cancelled = True
            self.entries[number].task.cancel()

    async def reject(self, worker: str) -> None:
        self.rig.queue.reject(worker, lambda: SessionWorkerUnavailable("gone"))
        await settle()
        assert not any(entry.waits() and entry.arguments["worker"] == worker for entry in self.entries)

    async def hang(self, seconds: int) -> None:
        """Advance the time while the loop is held up."""
        self.loop.now += seconds

    async def let_pass(self, seconds: int) -> None:
        await asyncio.sleep(seconds)
        await settle()
        for entry in self.entries:
            if entry.waits():
                assert self.loop.now < entry.since + entry.arguments["timeout"]
                assert entry.arguments["deadline"] is None or self.loop.now < entry.arguments["deadline"]

    async def play(self, steps: list[tuple[str, Any]]) -> None:
        for name, arguments in steps:
            await getattr(self, "let_pass" if name == "pass" else name)(arguments)
            assert len(self.rig.queue) <= LIMIT
        await settle()
        waiting = [entry for entry in self.entries if entry.waits()]
        assert self.rig.queue._service_time == sum(entry.arguments["service_time"] for entry in waiting)
        self.rig.queue.fail_all(lambda: RuntimeError("the end"))
        await asyncio.gather(*(entry.task for entry in self.entries), return_exceptions=True)
        self.check_the_end()

    def check_the_end(self) -> None:
        assert len(self.rig.queue) == 0
        received = []
        for entry in self.entries:
            if entry.task.cancelled():
                assert entry.cancelled
            elif (error := entry.task.exception()) is None:
                assert entry.task.result() is entry.expected, "out of turn"
                received.append(entry.expected)
            elif isinstance(error, QueueTimeout):
                assert entry.ended_at is not None
                assert entry.ended_at >= entry.since + entry.arguments["timeout"]
            elif isinstance(error, DeadlineExceeded):
                assert entry.ended_at is not None
                assert entry.ended_at >= entry.arguments["deadline"]
            elif isinstance(error, AssertionError):
                raise error
        assert sorted(map(id, received + self.rig.returned)) == sorted(map(id, self.slots)), "lost, or assigned twice"


@given(STEPS)
def test_properties_of_any_history(steps: list[tuple[str, Any]]) -> None:
    """No slot is lost or assigned twice, each goes to the next request in time, and the queue keeps its limit."""
    run(lambda loop: Model(loop).play(steps))
