"""The line in which requests wait for a place."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.errors import DeadlineExceeded, PoolSaturated, QueueTimeout, SessionWorkerUnavailable
from snakepit_otel.pool.dispatch.queue import Line
from tests.pool.jumping import JumpingLoop, run, settle

LIMIT = 4
WORKERS = ["a", "b"]


class Place:
    """A place on a worker, which is to be had once."""


class Desk:
    """A line, and what became of the places that it was given."""

    def __init__(self, loop: JumpingLoop, limit: int = LIMIT) -> None:
        self.loop = loop
        self.returned: list[Place] = []
        self.line: Line[Place] = Line(limit, loop.time, self.returned.append)

    def enter(self, **more: Any) -> asyncio.Task[Place]:
        asked = {"tool": "add", "needs": 0.0, "timeout": 5.0, "capacity": 2, "busy_for": 0.0, **more}
        return self.loop.create_task(self.line.enter(**asked))


def test_a_place_goes_to_the_first_whom_it_suits() -> None:
    """First come, first served, but for those who want another worker."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        wants_b, any_one, wants_a = desk.enter(worker="b"), desk.enter(), desk.enter(worker="a")
        await settle()
        assert len(desk.line) == 3
        places = [Place(), Place(), Place()]
        assert desk.line.offer("a", lambda: places[0])
        assert desk.line.offer("a", lambda: places[1])
        assert desk.line.offer("b", lambda: places[2])
        assert await asyncio.gather(any_one, wants_a, wants_b) == places
        assert len(desk.line) == 0

    run(work)


def test_a_place_that_nobody_wants_is_not_made() -> None:
    """An offer that suits nobody is not taken, and makes nothing."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        waits = desk.enter(worker="b")
        await settle()
        made: list[Place] = []

        def make() -> Place:
            made.append(Place())
            return made[-1]

        assert not desk.line.offer("a", make)
        assert made == []
        waits.cancel()

    run(work)


def test_a_place_that_cannot_be_made_costs_nobody_his_turn() -> None:
    """What goes wrong in making a place reaches who offered it, and the first in line stays that."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        waits = desk.enter()
        await settle()

        def fail() -> Place:
            raise RuntimeError("no place")

        with pytest.raises(RuntimeError, match="no place"):
            desk.line.offer("a", fail)
        place = Place()
        assert desk.line.offer("a", lambda: place)
        assert await waits is place

    run(work)


def test_a_full_line_refuses_at_once_and_says_what_it_knows() -> None:
    """The message has the length, the limit, the expected wait and the time that was left."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop, limit=2)
        tasks = [desk.enter(needs=3.0), desk.enter(needs=1.0)]
        await settle()
        with pytest.raises(PoolSaturated) as refused:
            await desk.enter(tool="mul", busy_for=0.5, deadline=loop.now + 60)
        assert str(refused.value) == (
            "2 requests wait already, and no more than 2 may (max_queue_size); the wait would be about 2.5 s, "
            "and the request for 'mul' had 60 s left; it did not run"
        )
        assert loop.now == 1_000.0
        for task in tasks:
            task.cancel()

    run(work)


def test_a_line_of_none_refuses_everybody() -> None:
    """With a limit of zero nobody may wait."""

    async def work(loop: JumpingLoop) -> None:
        with pytest.raises(PoolSaturated, match="had no deadline; it did not run"):
            await Desk(loop, limit=0).enter()

    run(work)


def test_who_cannot_be_done_in_time_is_refused_at_once() -> None:
    """The wait behind all others, shared by the places, and the request itself have to fit before its deadline."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        first = desk.enter(needs=2.0)
        await settle()
        with pytest.raises(PoolSaturated) as refused:
            await desk.enter(needs=1.5, busy_for=1.0, deadline=loop.now + 3.4)
        assert "would wait about 2 s behind 1 others (of at most 4) and then take about 1.5 s" in str(refused.value)
        assert str(refused.value).endswith("but had 3.4 s left; it did not run")
        second = desk.enter(needs=1.5, busy_for=1.0, deadline=loop.now + 3.5)
        await settle()
        assert len(desk.line) == 2
        first.cancel()
        second.cancel()

    run(work)


def test_who_wants_one_worker_waits_behind_those_who_want_it_too() -> None:
    """Those for whom others will do are not counted against a request that wants a certain worker."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        tasks = [desk.enter(needs=50.0), desk.enter(needs=50.0, worker="b"), desk.enter(needs=2.0, worker="a")]
        await settle()
        with pytest.raises(PoolSaturated, match="about 2 s behind"):
            await desk.enter(needs=1.0, worker="a", capacity=1, deadline=loop.now + 2.5)
        tasks.append(desk.enter(needs=1.0, worker="a", capacity=1, deadline=loop.now + 3.0))
        await settle()
        assert len(desk.line) == 4
        for task in tasks:
            task.cancel()

    run(work)


def test_a_deadline_that_has_passed_does_not_wait() -> None:
    """A request that is late when it comes is told so at once."""

    async def work(loop: JumpingLoop) -> None:
        with pytest.raises(DeadlineExceeded, match="had passed before it could wait for a worker; it did not run"):
            await Desk(loop).enter(deadline=loop.now)

    run(work)


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        (None, "no worker had room for a request for 'add' within 5 s"),
        ("a", "worker a, the only one that will do, had no room for a request for 'add' within 5 s"),
    ],
)
def test_patience_ends(worker: str | None, message: str) -> None:
    """After its timeout, to the instant, a request is told that nobody had room."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        with pytest.raises(QueueTimeout, match=message) as refused:
            await desk.enter(worker=worker, deadline=loop.now + 6.0)
        assert str(refused.value).endswith("it did not run")
        assert loop.now == 1_005.0
        assert len(desk.line) == 0

    run(work)


def test_a_deadline_may_come_before_the_end_of_patience() -> None:
    """A request whose own time is up first is told that."""

    async def work(loop: JumpingLoop) -> None:
        with pytest.raises(DeadlineExceeded, match=r"passed after it had waited 3 s for a worker; it did not run"):
            await Desk(loop).enter(deadline=loop.now + 3.0)
        assert loop.now == 1_003.0

    run(work)


def test_a_place_is_not_wasted_on_who_cannot_be_done_in_time() -> None:
    """Those who would not be done before their deadline are dropped, and the next one is served."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        long, short = desk.enter(needs=2.0, deadline=loop.now + 4.0), desk.enter(needs=0.5, deadline=loop.now + 4.0)
        await asyncio.sleep(3.0)
        place = Place()
        assert desk.line.offer("a", lambda: place)
        assert await short is place
        with pytest.raises(PoolSaturated, match=r"has waited 3 s .* about 2 s, but has 1 s left, .* it did not run"):
            await long

    run(work)


def test_a_place_whose_taker_is_cancelled_at_that_moment_is_put_back() -> None:
    """Between the gift and its receipt the taker may be cancelled; the place is not lost."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        waits = desk.enter()
        await settle()
        place = Place()
        assert desk.line.offer("a", lambda: place)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert desk.returned == [place]

    run(work)


def test_a_place_whose_taker_is_late_by_then_is_put_back() -> None:
    """A loop that was held up must not hand on a request whose deadline has passed meanwhile."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        waits = desk.enter(deadline=loop.now + 1.0)
        await settle()
        place = Place()
        assert desk.line.offer("a", lambda: place)
        loop.now += 2.0
        with pytest.raises(DeadlineExceeded, match="it did not run"):
            await waits
        assert desk.returned == [place]

    run(work)


def test_who_is_cancelled_leaves_the_line() -> None:
    """A cancelled request is not served and does not count."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        first, second = desk.enter(needs=1.0), desk.enter(needs=2.0)
        await settle()
        first.cancel()
        place = Place()
        assert desk.line.offer("a", lambda: place)
        assert await second is place
        assert (len(desk.line), desk.line.needs) == (0, 0.0)

    run(work)


def test_a_refusal_that_nobody_hears_is_no_warning() -> None:
    """A request that is cancelled just as it is refused does not leave an exception that was never looked at."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        waits = desk.enter()
        await settle()
        desk.line.fail_all(lambda: RuntimeError("stopped"))
        waits.cancel()
        await asyncio.wait([waits])
        assert waits.cancelled()
        del waits
        gc.collect()  # which is when asyncio would complain

    run(work)


def test_who_is_served_leaves_no_timer() -> None:
    """The time that a request had is not waited for once it is served."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        waits = desk.enter(timeout=3_600.0)
        await settle()
        desk.line.offer("a", Place)
        await waits
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]

    run(work)


def test_those_who_wait_for_a_worker_that_is_gone_are_told() -> None:
    """`refuse` fails exactly those for whom only that worker would have done."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        wants_a, wants_b, any_one = desk.enter(worker="a"), desk.enter(worker="b"), desk.enter()
        await settle()
        desk.line.refuse("a", lambda: SessionWorkerUnavailable("worker a is gone"))
        with pytest.raises(SessionWorkerUnavailable, match="worker a is gone"):
            await wants_a
        assert len(desk.line) == 2
        desk.line.refuse("never heard of", lambda: SessionWorkerUnavailable("it is gone"))
        assert len(desk.line) == 2
        wants_b.cancel()
        any_one.cancel()

    run(work)


def test_everybody_can_be_sent_away() -> None:
    """`fail_all` fails all who wait, each with an error of its own."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        tasks = [desk.enter(worker="a"), desk.enter(), desk.enter(worker="b")]
        await settle()
        desk.line.fail_all(lambda: RuntimeError("stopped"))
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(error) for error in errors] == ["stopped"] * 3
        assert len(set(map(id, errors))) == 3
        assert len(desk.line) == 0

    run(work)


def test_an_offer_does_not_look_at_those_who_want_another_worker() -> None:
    """With a thousand who wait for one worker, an offer of another finds its taker at once."""

    async def work(loop: JumpingLoop) -> None:
        looks = 0

        def clock() -> float:
            nonlocal looks
            looks += 1
            return loop.now

        line: Line[int] = Line(2_000, clock, lambda _place: None)

        def enter(worker: str | None) -> asyncio.Task[int]:
            about: dict[str, Any] = {"deadline": 2_000.0, "timeout": 5.0, "capacity": 1, "busy_for": 0.0}
            return loop.create_task(line.enter(tool="add", needs=0.0, worker=worker, **about))

        tasks = [enter("a") for _ in range(1_000)]
        last = enter(None)
        await settle()
        looks = 0
        assert line.offer("b", lambda: 7)
        assert looks == 1, "the clock is read for everybody whose deadline is looked at"
        assert await last == 7
        for task in tasks:
            task.cancel()

    run(work)


def test_those_who_have_left_leave_nothing_behind() -> None:
    """Where no worker is free for long, the line does not grow by those who have given up."""

    async def work(loop: JumpingLoop) -> None:
        desk = Desk(loop)
        for number in range(200):
            with pytest.raises(QueueTimeout):
                await desk.enter(worker=f"a-{number}" if number % 2 else None, needs=0.1)
        assert (len(desk.line), desk.line.needs, desk.line._strict) == (0, 0.0, {})
        assert len(desk.line._anyone) == 0

    run(work)


class Entry:
    """What the model knows of one request."""

    def __init__(self, loop: JumpingLoop, asked: dict[str, Any]) -> None:
        self.loop = loop
        self.asked = asked
        self.since = loop.now
        self.due: Place | None = None
        """What it was given."""
        self.cancelled = False
        self.task: asyncio.Task[Place]
        self.ended_at: float | None = None

    def waits(self) -> bool:
        return self.due is None and not self.cancelled and not self.task.done()

    def can_be_done(self) -> bool:
        deadline = self.asked["deadline"]
        return deadline is None or (deadline > self.loop.now and self.asked["needs"] <= deadline - self.loop.now)

    def suits(self, worker: str) -> bool:
        return self.asked["worker"] in (None, worker)


ENTER = st.tuples(
    st.just("enter"),
    st.fixed_dictionaries(
        {
            "worker": st.sampled_from([None, None, *WORKERS]),
            "needs": st.integers(0, 3),
            "timeout": st.integers(0, 6),
            "left": st.none() | st.integers(0, 8),
            "busy_for": st.integers(0, 2),
        }
    ),
)
STEPS = st.lists(
    ENTER
    | ENTER
    | st.tuples(st.just("offer"), st.sampled_from(WORKERS))
    | st.tuples(st.just("cancel"), st.integers(0, 10))
    | st.tuples(st.just("refuse"), st.sampled_from(WORKERS))
    | st.tuples(st.just("pass"), st.integers(0, 3))
    | st.tuples(st.just("hang"), st.integers(0, 3)),
    max_size=40,
)


class Model:
    """Does to a line what it is told, and knows what has to come of it."""

    def __init__(self, loop: JumpingLoop) -> None:
        self.loop = loop
        self.desk = Desk(loop)
        self.entries: list[Entry] = []
        self.places: list[Place] = []

    async def enter(self, asked: dict[str, Any]) -> None:
        await settle()
        left = asked["left"]
        about = {name: value for name, value in asked.items() if name != "left"}
        about["deadline"] = None if left is None else self.loop.now + left
        waiting = [entry for entry in self.entries if entry.waits()]
        assert len(self.desk.line) == len(waiting)
        same = [e for e in waiting if about["worker"] is None or e.asked["worker"] == about["worker"]]
        expected = asked["busy_for"] + sum(entry.asked["needs"] for entry in same) / 2
        entry = Entry(self.loop, about)
        entry.task = self.loop.create_task(self._wait(entry))
        self.entries.append(entry)
        await asyncio.sleep(0)
        if left == 0:
            self._check_refused(entry, DeadlineExceeded)
        elif len(waiting) >= LIMIT or (left is not None and expected + asked["needs"] > left):
            self._check_refused(entry, PoolSaturated)
        else:
            assert not entry.task.done()

    async def _wait(self, entry: Entry) -> Place:
        try:
            place = await self.desk.line.enter(tool="add", capacity=2, **entry.asked)
        finally:
            entry.ended_at = self.loop.now
        assert entry.asked["deadline"] is None or entry.ended_at < entry.asked["deadline"], "late, and served"
        return place

    def _check_refused(self, entry: Entry, error: type[Exception]) -> None:
        assert entry.task.done()
        assert type(entry.task.exception()) is error

    async def offer(self, worker: str) -> None:
        expected = next((e for e in self.entries if e.waits() and e.suits(worker) and e.can_be_done()), None)

        def make() -> Place:
            self.places.append(Place())
            return self.places[-1]

        made = len(self.places)
        assert self.desk.line.offer(worker, make) is (expected is not None)
        assert len(self.places) == made + (expected is not None)
        if expected is not None:
            expected.due = self.places[-1]

    async def cancel(self, number: int) -> None:
        if number < len(self.entries) and not self.entries[number].task.done():
            self.entries[number].cancelled = True
            self.entries[number].task.cancel()

    async def refuse(self, worker: str) -> None:
        self.desk.line.refuse(worker, lambda: SessionWorkerUnavailable("gone"))
        await settle()
        assert not any(entry.waits() and entry.asked["worker"] == worker for entry in self.entries)

    async def hang(self, seconds: int) -> None:
        """Time passes while the loop does something else."""
        self.loop.now += seconds

    async def let_pass(self, seconds: int) -> None:
        await asyncio.sleep(seconds)
        await settle()
        for entry in self.entries:
            if entry.waits():
                assert self.loop.now < entry.since + entry.asked["timeout"]
                assert entry.asked["deadline"] is None or self.loop.now < entry.asked["deadline"]

    async def play(self, steps: list[tuple[str, Any]]) -> None:
        for name, about in steps:
            await getattr(self, "let_pass" if name == "pass" else name)(about)
            assert len(self.desk.line) <= LIMIT
        await settle()
        waiting = [entry for entry in self.entries if entry.waits()]
        assert self.desk.line.needs == sum(entry.asked["needs"] for entry in waiting)
        self.desk.line.fail_all(lambda: RuntimeError("the end"))
        await asyncio.gather(*(entry.task for entry in self.entries), return_exceptions=True)
        self.check_the_end()

    def check_the_end(self) -> None:
        assert len(self.desk.line) == 0
        received = []
        for entry in self.entries:
            if entry.task.cancelled():
                assert entry.cancelled
            elif (error := entry.task.exception()) is None:
                assert entry.task.result() is entry.due, "out of turn"
                received.append(entry.due)
            elif isinstance(error, QueueTimeout):
                assert entry.ended_at is not None
                assert entry.ended_at >= entry.since + entry.asked["timeout"]
            elif isinstance(error, DeadlineExceeded):
                assert entry.ended_at is not None
                assert entry.ended_at >= entry.asked["deadline"]
            elif isinstance(error, AssertionError):
                raise error
        assert sorted(map(id, received + self.desk.returned)) == sorted(map(id, self.places)), "lost, or given twice"


@given(STEPS)
def test_properties_of_any_line(steps: list[tuple[str, Any]]) -> None:
    """No place is lost or given twice, each goes to whose turn it is, none to who is late, and no line is too long."""
    run(lambda loop: Model(loop).play(steps))
