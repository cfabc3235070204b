"""Bindings: sessions end with their owner, which is a block, a task or a process."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from snakepit_otel.errors import InvalidSession, SessionNotFound
from snakepit_otel.sessions import SessionStore


class WatchedStore(SessionStore):
    """A store with an event for the deletion of a session."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted = asyncio.Event()

    async def _delete_incarnation(self, session_id: str, incarnation: int) -> bool:
        """Delete the session and set the event."""
        done = await super()._delete_incarnation(session_id, incarnation)
        self.deleted.set()
        return done


@pytest.fixture
async def store() -> AsyncIterator[WatchedStore]:
    """A store with one session, `a`."""
    store = WatchedStore()
    await store.create("a")
    yield store
    await store.stop()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


async def test_a_session_outlives_its_owner_unless_bound(store: WatchedStore) -> None:
    """An owner is a name; its session stays when the task that created it ends."""
    await asyncio.create_task(store.create("b", owner="task"))
    assert await store.exists("b")


async def test_a_scopes_session_lives_as_long_as_the_block(store: WatchedStore) -> None:
    """The session is there inside the block, with what was asked for, and gone after it."""
    async with store.scope("b", ttl=60, owner="block") as session:
        assert (session.ttl, session.owner) == (60, "block")
        assert await store.exists("b")
    assert not await store.exists("b")


async def test_a_scopes_session_ends_on_an_error_too(store: WatchedStore) -> None:
    """The block's error comes out unchanged, and the session is gone."""
    with pytest.raises(ZeroDivisionError):
        async with store.scope("b"):
            raise ZeroDivisionError
    assert not await store.exists("b")


async def test_a_scopes_session_ends_when_its_task_is_cancelled(store: WatchedStore) -> None:
    """Cancelling a task inside the block ends the session."""
    entered = asyncio.Event()

    async def work() -> None:
        async with store.scope("b"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await store.exists("b")


async def test_a_scope_whose_session_is_deleted_inside_ends_in_peace(store: WatchedStore) -> None:
    """Deleting the session before the end of its block is no error."""
    async with store.scope("b"):
        await store.delete("b")
    assert store.stats_snapshot().deleted == 1


@pytest.mark.parametrize("end", ["success", "error", "cancel"])
async def test_a_session_bound_to_a_task_ends_with_it(store: WatchedStore, end: str) -> None:
    """However the task ends, its session does as well."""
    go = asyncio.Event()

    async def work() -> None:
        await store.bind_to_task("a")
        await go.wait()
        if end == "error":
            raise ZeroDivisionError

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert await store.exists("a")
    if end == "cancel":
        task.cancel()
    go.set()
    await asyncio.wait([task])
    await store.deleted.wait()
    assert task.cancelled() or isinstance(task.exception(), ZeroDivisionError) is (end == "error")
    assert not await store.exists("a")


async def test_a_task_that_is_done_already_ends_the_session_at_once(store: WatchedStore) -> None:
    """Binding to the past is binding to now."""
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    await store.bind_to_task("a", task)
    await store.deleted.wait()
    assert not await store.exists("a")


async def test_binding_a_session_that_is_not_live_is_an_error() -> None:
    """There is nothing that could end with the task."""
    with pytest.raises(SessionNotFound):
        await SessionStore().bind_to_task("a")


async def test_a_session_bound_to_a_process_ends_when_it_is_killed(
    store: WatchedStore, child: subprocess.Popen[bytes]
) -> None:
    """SIGKILL leaves a process no time to clean up; its session ends nevertheless."""
    await store.bind_to_process("a", child.pid)
    assert await store.exists("a")
    child.kill()
    async with asyncio.timeout(30):
        await store.deleted.wait()
    assert not await store.exists("a")


async def test_all_sessions_of_a_process_end_with_it(store: WatchedStore, child: subprocess.Popen[bytes]) -> None:
    """Several sessions may be bound to one process."""
    await store.create("b")
    for session_id in ("a", "b"):
        await store.bind_to_process(session_id, child.pid)
    child.kill()
    async with asyncio.timeout(30):
        while await store.list():
            store.deleted.clear()
            await store.deleted.wait()
    assert store.stats_snapshot().deleted == 2


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**40])
async def test_a_process_that_cannot_be_is_refused(store: WatchedStore, pid: int) -> None:
    """Binding to no process is an error that names it, and the session stays."""
    with pytest.raises(InvalidSession, match=f"session 'a' to process {pid}: "):
        await store.bind_to_process("a", pid)
    assert await store.exists("a")


async def test_a_bad_id_is_refused_before_anything_is_watched(store: WatchedStore) -> None:
    """Ids that cannot be are not bound either."""
    with pytest.raises(InvalidSession):
        await store.bind_to_process("", os.getpid())
    with pytest.raises(InvalidSession):
        await store.bind_to_task("")


@pytest.mark.parametrize("owner", ["task", "process"])
async def test_a_new_session_of_the_same_id_is_not_bound(
    store: WatchedStore, child: subprocess.Popen[bytes], owner: str
) -> None:
    """A binding ends with its session; the next one under that id does not inherit it."""
    task = asyncio.create_task(asyncio.Event().wait())
    if owner == "task":
        await store.bind_to_task("a", task)
    else:
        await store.bind_to_process("a", child.pid)
    await store.delete("a")
    await store.create("a")
    task.cancel()
    child.kill()
    child.wait()
    await asyncio.wait([task])
    await store.stop()
    assert await store.exists("a")


async def test_a_new_session_of_the_same_id_can_be_bound(store: WatchedStore, child: subprocess.Popen[bytes]) -> None:
    """What was watched for the old session is not in the way of watching for the new one."""
    await store.bind_to_process("a", os.getpid())
    await store.delete("a")
    await store.create("a")
    await store.bind_to_process("a", child.pid)
    store.deleted.clear()
    child.kill()
    async with asyncio.timeout(30):
        await store.deleted.wait()
    assert not await store.exists("a")


def open_files() -> int:
    """Return how many file descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_bindings_cost_nothing_once_their_sessions_are_gone(store: WatchedStore) -> None:
    """A process that outlives many sessions does not hold a file descriptor for each."""
    before = open_files()
    for number in range(50):
        await store.create(str(number))
        await store.bind_to_process(str(number), os.getppid())
        await store.delete(str(number))
    assert open_files() == before


@pytest.mark.parametrize("owner", ["task", "process"])
async def test_a_stopped_store_has_no_bindings(store: WatchedStore, child: subprocess.Popen[bytes], owner: str) -> None:
    """After `stop` sessions stay whatever becomes of their owners."""
    task = asyncio.create_task(asyncio.Event().wait())
    if owner == "task":
        await store.bind_to_task("a", task)
    else:
        await store.bind_to_process("a", child.pid)
    await store.stop()
    task.cancel()
    child.kill()
    child.wait()
    await asyncio.wait([task])
    await store.stop()
    assert await store.exists("a")


async def test_stopping_waits_for_what_is_being_ended(store: WatchedStore) -> None:
    """An owner that ended just before `stop` has taken its session along when `stop` returns."""
    task = asyncio.create_task(asyncio.sleep(0))
    await store.bind_to_task("a", task)
    await task
    await store.stop()
    assert not await store.exists("a")
