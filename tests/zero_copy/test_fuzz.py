"""Hostile peers: everything they send is refused with a message; nothing crashes, leaks or becomes readable."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import mmap
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from snakepit_otel import Client, Snakepit, zero_copy
from snakepit_otel.errors import (
    ReferenceMisused,
    ReferenceRefused,
    ReferenceReleased,
    SnakepitError,
    ZeroCopyError,
)
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy import _fd_client as fd_client
from snakepit_otel.zero_copy import _fd_protocol as protocol
from snakepit_otel.zero_copy._descriptor import Description, Form, Kind, Owner
from snakepit_otel.zero_copy._exchange import ExchangeUnavailable
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._fd_server import fd_server_path
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._scope import Scope
from tests.waiting import until
from tests.zero_copy.both_sides import execute_unlisted
from tests.zero_copy.hostile import (
    DEEP,
    SEALS,
    WORKER,
    HostileFdServer,
    description,
    descriptors,
    encoded,
    forged,
    form,
    memfd,
    quick_to_collect,
    send,
    serving_buffers,
    shallow,
)
from tests.zero_copy.hostile_adapter import Hostile

SEED = 20_240_607
OF_RECEIVED = 10_000
OF_PUBLISHED = 3_000
OF_CALLED = 2_000


@pytest.fixture(scope="module", autouse=True)
def _collecting() -> Iterator[None]:
    with quick_to_collect():
        yield


def rejected(act: Callable[[], Any], of: tuple[type[Exception], ...] = (ZeroCopyError,)) -> SnakepitError:
    """Return the error that `act` raises, which has a message."""
    with pytest.raises(of) as raised:
        act()
    text = str(raised.value)
    assert 10 < len(text) < 1_000
    return raised.value


def content(seed: int) -> Buffer:
    """Return 96 bytes of a sealed memfd."""
    return Buffer.of([memoryview(random.Random(seed).randbytes(96))], 96)


async def test_forged_references_are_refused(short_path: Path) -> None:
    """Ten thousand forms that are not quite those of a published reference are refused by who receives them."""
    chance = random.Random(SEED)
    before, met = descriptors(), Counter[str]()
    with serving_buffers(short_path) as rig:
        exchange = rig.link()
        other, foreign = rig.request(), rig.request(worker="pool-2.1")
        others = ["a" * 32, "b" * 32, "c" * 32]
        rig.buffer_store.publish(other.request, description("a" * 32), content(1))
        rig.buffer_store.publish(foreign.request, description("b" * 32), content(2))
        released = rig.request()
        rig.buffer_store.publish(released.request, description("c" * 32), content(3))
        released.close()
        while sum(met.values()) < OF_RECEIVED:
            mine = rig.request()
            right = f"{chance.getrandbits(128):032x}"
            rig.buffer_store.publish(mine.request, description(right), content(4))
            theirs = Scope(Owner.PYTHON, exchange, request=mine.request)
            for _ in range(100):
                what, wrong = forged(chance, form(right), others)
                rejected(lambda theirs=theirs, wrong=wrong: theirs.receive(wrong))
                met[what] += 1
            assert not theirs.in_use
            # And the right one is what it was.
            array = theirs.receive(form(right)).to_numpy()
            assert array.tobytes() == random.Random(4).randbytes(96)
            theirs.close()
            mine.close()
        for scope in (other, foreign):
            scope.close()
        exchange.close()
        rig.assert_holds_nothing()
        rig.assert_serves()
    await until(lambda: descriptors() <= before)
    assert len(met) == 15
    assert min(met.values()) > 200


async def test_forgers_of_both_ends_read_nothing_else(short_path: Path) -> None:
    """A published description is refused, or lies within its memory to the last byte."""
    chance = random.Random(SEED)
    before, taken = descriptors(), 0
    with serving_buffers(short_path) as rig:
        exchange, raw = rig.link(), rig.raw()
        for number in range(OF_PUBLISHED):
            mine = rig.request()
            right = form(f"{number:032x}", size=96, owner="python")
            _, wrong = forged(chance, right, [])
            if chance.random() < 0.3:
                wrong = harmless(chance, right)
            size = chance.choice((0, 1, 95, 96, 97, 4_096, 5_000))
            secret = chance.randbytes(size)
            publish = {"op": "publish", "request": mine.request, "reference": wrong}
            made = memfd(size, 0)
            os.pwrite(made, secret, 0)
            fcntl.fcntl(made, fcntl.F_ADD_SEALS, SEALS)
            send(raw, encoded(publish), [made])
            answer = orjson.loads(raw.recv(1 << 17))
            theirs = Scope(Owner.PYTHON, exchange, request=mine.request)
            if "error" in answer:
                assert isinstance(protocol.rebuild(answer["error"]), ZeroCopyError)
                rejected(lambda theirs=theirs, wrong=wrong: theirs.receive(wrong))
            else:
                reference = theirs.receive(wrong)
                array = reference.to_numpy()
                assert not array.flags.writeable
                assert array.nbytes == wrong["bytes"] <= size
                lies_within(array, size)
                assert sorted(array.tobytes()) == sorted(secret[wrong["metadata"].get("offset", 0) :][: array.nbytes])
                taken += 1
            theirs.close()
            mine.close()
        exchange.close()
        raw.close()
        rig.assert_holds_nothing()
        rig.assert_serves()
    await until(lambda: descriptors() <= before)
    assert taken > OF_PUBLISHED / 20


def harmless(chance: random.Random, right: dict[str, Any]) -> dict[str, Any]:
    """Return a form with other numbers, which may fit the memory that it comes with."""
    item = chance.choice((1, 2, 4, 8))
    shape = [chance.choice((0, 1, 2, 3, 5)) for _ in range(chance.randrange(0, 4))]
    strides, step = [], item
    for length in reversed(shape):
        strides.insert(0, chance.choice((step, step, step, 2**62)) if length <= 1 else step)
        step *= length
    size = item
    for length in shape:
        size *= length
    offset = chance.choice((0, item, 90, 4_000))
    metadata = {"strides": strides, **({"offset": offset} if offset else {})}
    dtype = {1: "uint8", 2: "int16", 4: "float32", 8: "int64"}[item]
    return {**right, "dtype": dtype, "shape": shape, "bytes": size, "metadata": metadata}


def lies_within(array: np.ndarray[Any, Any], size: int) -> None:
    """Every element lies in the first `size` bytes of the array's map."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)
    if array.nbytes:
        first, last = np.lib.array_utils.byte_bounds(array)
        start = np.frombuffer(base, "u1", 1).ctypes.data
        assert start <= first <= last <= start + size


async def test_forged_references_do_no_harm_to_workers() -> None:
    """Thousands of forged forms as arguments of real requests are refused by a worker, which lives on."""
    chance = random.Random(SEED)
    async with Snakepit(Hostile, workers=1) as pit:
        worker = await pit.execute("pid")
        caller = FdClient(fd_server_path(Path(pit.socket.removeprefix("unix:"))))
        buffer_store = pit._dispatcher.buffer_store  # type: ignore[union-attr]
        other = buffer_store.request(None, "other")
        buffer_store.publish(other.request, description("a" * 32), content(1))

        async def call(number: int) -> None:
            right = f"{number:032x}"
            # For the first request that has the reference, as a caller in another process places it.
            caller.publish(None, description(right), content(2))
            what, wrong = forged(chance, form(right), ["a" * 32])
            wrong = shallow(wrong)
            value = chance.choice([wrong, [wrong], {"deep": [{"er": wrong}]}])
            with pytest.raises(SnakepitError) as raised:
                await pit.execute("total", {"t": value})
            assert isinstance(raised.value, ZeroCopyError), (what, wrong, raised.value)
            # It may wait still, because no call has claimed it yet.
            caller.release(None, right)
            assert 10 < len(str(raised.value)) < 1_000

        async def calls(start: int) -> None:
            for number in range(start, OF_CALLED, 10):
                await call(number)

        await asyncio.gather(*map(calls, range(10)))
        other.close()
        caller.close()
        assert await pit.execute("total", {"t": np.ones(10_000)}) == 10_000
        assert await pit.execute("pid") == worker
        await until(lambda: (buffer_store._stored, buffer_store._usage.bytes) == ({}, 0))


async def test_references_of_other_requests_are_refused(short_path: Path) -> None:
    """Each way to another request's reference is closed, and the error names the rule."""
    with serving_buffers(short_path) as rig:
        mine, other, foreign = rig.request(), rig.request(), rig.request(worker="pool-2.1")
        for scope, ref in ((mine, "a" * 32), (other, "b" * 32), (foreign, "c" * 32)):
            rig.buffer_store.publish(scope.request, description(ref), content(1))
        exchange = rig.link()

        def received(request: str | None, ref: str) -> Any:
            return rejected(lambda: Scope(Owner.PYTHON, exchange, request=request).receive(form(ref)))

        assert "belongs to another request" in str(received(mine.request, "b" * 32))
        assert "belongs to another request" in str(received(mine.request, "c" * 32))
        assert "not this process'" in str(received(foreign.request, "c" * 32))
        assert isinstance(received(None, "a" * 32), ReferenceMisused)
        assert isinstance(received("d" * 32, "a" * 32), ReferenceReleased)
        assert isinstance(received(mine.request, "e" * 32), ReferenceReleased)
        other.close()
        assert isinstance(received(mine.request, "b" * 32), ReferenceReleased)
        assert isinstance(received(other.request, "b" * 32), ReferenceReleased)
        for request in (None, "d" * 32, other.request, foreign.request, mine.request):
            # None of these has the right to it, and the last has not this one.
            exchange.release(request, "c" * 32)
        assert list(rig.buffer_store._stored) == ["a" * 32, "c" * 32]
        for scope in (mine, foreign):
            scope.close()
        exchange.close()
        rig.assert_holds_nothing()


async def test_a_worker_gets_nothing_that_waits_by_releasing_it(short_path: Path) -> None:
    """What waits for a request, and a result that waits for its caller, are not a worker's to release."""
    with serving_buffers(short_path) as rig:
        rig.buffer_store.publish(None, description("a" * 32), content(1))
        request = rig.buffer_store.request(None, "tool")
        rig.buffer_store.publish(request.request, description("b" * 32, Owner.PYTHON), content(1))
        rig.buffer_store.offer(request.request, "b" * 32)
        exchange = rig.link()
        for asked in (None, "d" * 32):
            for ref in ("a" * 32, "b" * 32):
                exchange.release(asked, ref)
        assert len(rig.buffer_store._stored) == 2
        request.close()
        exchange.close()


def unsealed() -> list[int]:
    return [memfd(96, 0)]


def partly(seals: int) -> Callable[[], list[int]]:
    return lambda: [memfd(96, seals)]


def opened(path: str, flags: int = os.O_RDONLY) -> Callable[[], list[int]]:
    return lambda: [os.open(path, flags)]


def regular_file() -> list[int]:
    made = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.ftruncate(made, 96)
    return [made]


def one_end(pair: Callable[[], tuple[int, int]]) -> Callable[[], list[int]]:
    def made() -> list[int]:
        one, other = pair()
        os.close(other)
        return [one]

    return made


def a_socket() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


NO_MEMFD, NOT_SEALED, TOO_MANY = "no memfd", "is not sealed", "at most one descriptor"
BAD_DESCRIPTORS: dict[str, tuple[Callable[[], list[int]], str]] = {
    "unsealed": (unsealed, NOT_SEALED),
    "may be written": (partly(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW), NOT_SEALED),
    "may shrink": (partly(fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW), NOT_SEALED),
    "may grow": (partly(fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK), NOT_SEALED),
    "may still be written by maps": (
        partly(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | 0x10),  # F_SEAL_FUTURE_WRITE
        NOT_SEALED,
    ),
    "regular file": (regular_file, NO_MEMFD),
    "unnamed file in /dev/shm": (lambda: [os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR, 0o600)], ""),
    "/dev/zero": (opened("/dev/zero"), NO_MEMFD),
    "/dev/null": (opened("/dev/null", os.O_RDWR), NO_MEMFD),
    "directory": (opened("/"), NO_MEMFD),
    "O_PATH": (opened("/etc/passwd", os.O_PATH), NO_MEMFD),
    "pipe": (one_end(os.pipe), NO_MEMFD),
    "socket": (one_end(a_socket), NO_MEMFD),
    "eventfd": (lambda: [os.eventfd(0)], NO_MEMFD),
    "smaller than it says": (lambda: [memfd(95)], "go beyond the 95"),
    "empty": (lambda: [memfd(0)], "go beyond the 0"),
    "a hole": (lambda: [memfd(1 << 40, allocated=False)], "has holes"),
    "two": (lambda: [memfd(96), memfd(96)], TOO_MANY),
    "four": (lambda: [memfd(96) for _ in range(4)], TOO_MANY),
    "a hundred": (lambda: [memfd(96) for _ in range(100)], "a descriptor was lost"),
    "none": (list, "unknown operation 'publish'"),
}


@pytest.mark.parametrize("case", BAD_DESCRIPTORS)
async def test_bad_memory_is_refused_by_the_server(short_path: Path, case: str) -> None:
    """What is published with anything else than one sealed memfd of its size is refused, and closed."""
    make, words = BAD_DESCRIPTORS[case]
    before = descriptors()
    with serving_buffers(short_path) as rig:
        mine, raw = rig.request(), rig.raw()
        publish = {"op": "publish", "request": mine.request, "reference": form("a" * 32, owner="python")}
        for _ in range(3):
            send(raw, orjson.dumps(publish), make())
            error = protocol.rebuild(orjson.loads(raw.recv(1 << 17))["error"])
            assert isinstance(error, ReferenceRefused)
            assert words in str(error)
        raw.close()
        mine.close()
        rig.assert_holds_nothing()
        rig.assert_serves()
    await until(lambda: descriptors() <= before)


BAD_PACKETS: dict[str, bytes] = {
    "no JSON": b"\xff\x00",
    "half": b'{"op": "fetch"',
    "list": b"[1]",
    "null": b"null",
    "number": b"1",
    "nothing in it": b"{}",
    "no such thing": b'{"op": "eval", "ref": "x"}',
    "op is deep": encoded({"op": DEEP}),
    "reference is deep": encoded({"op": "publish", "reference": {"kind": DEEP}}),
    "reference is text": b'{"op": "publish", "reference": "x"}',
    "request is a number": b'{"op": "fetch", "request": 1, "ref": "x"}',
    "ref is a list": b'{"op": "fetch", "ref": ["x"]}',
    "no ref": b'{"op": "release"}',
    "too large": b'{"op": "fetch", "ref": "' + b"x" * (70 << 10) + b'"}',
    "surrogate": b'{"op": "\\ud800"}',
    "deeper than JSON may be": b"[" * 30_000,
    "same key twice": b'{"op": "fetch", "op": "publish"}',
    "random": random.Random(SEED).randbytes(4_000),
}


@pytest.mark.parametrize("with_memory", [False, True], ids=["bare", "with memory"])
@pytest.mark.parametrize("case", BAD_PACKETS)
async def test_bad_packets_are_refused_by_the_server(short_path: Path, case: str, with_memory: bool) -> None:
    """A packet that is none of ours gets an error, on a connection that goes on."""
    before = descriptors()
    with serving_buffers(short_path) as rig:
        raw = rig.raw()
        for _ in range(3):
            send(raw, BAD_PACKETS[case], [memfd(96)] if with_memory else [])
            error = protocol.rebuild(orjson.loads(raw.recv(1 << 17))["error"])
            assert isinstance(error, ZeroCopyError)
        raw.close()
        rig.assert_holds_nothing()
        rig.assert_serves()
    await until(lambda: descriptors() <= before)


async def test_publishers_get_no_further_than_they_may(short_path: Path) -> None:
    """Nobody publishes for a request that it does not serve or that is over, nor one id twice, nor for no request."""
    with serving_buffers(short_path) as rig:
        mine, foreign, over = rig.request(), rig.request(worker="pool-2.1"), rig.request()
        over.close()
        exchange = rig.link()

        def publish(request: str | None, ref: str) -> None:
            exchange.publish(request, description(ref, Owner.PYTHON), content(1))

        assert "not this process'" in str(rejected(lambda: publish(foreign.request, "a" * 32)))
        assert isinstance(rejected(lambda: publish(over.request, "a" * 32)), ReferenceReleased)
        assert isinstance(rejected(lambda: publish("d" * 32, "a" * 32)), ReferenceReleased)
        assert isinstance(rejected(lambda: publish(None, "a" * 32)), ReferenceMisused)
        publish(mine.request, "a" * 32)
        assert "published already" in str(rejected(lambda: publish(mine.request, "a" * 32)))
        rig.buffer_store.remove_worker(os.getpid())
        # From now on this process is none of the workers.
        assert "not this process'" in str(rejected(lambda: publish(mine.request, "b" * 32)))
        for scope in (mine, foreign):
            scope.close()
        exchange.close()
        rig.buffer_store.add_worker(os.getpid(), WORKER)
        rig.assert_holds_nothing()
        rig.assert_serves()


async def test_a_peer_that_disconnects_or_does_not_read_harms_no_other(short_path: Path) -> None:
    """Peers that leave in the middle, send nothing, or never read what they asked for do not hold up the others."""
    before = descriptors()
    with serving_buffers(short_path) as rig:
        mine = rig.request()
        rig.buffer_store.publish(mine.request, description("a" * 32), content(1))
        peers = [rig.raw() for _ in range(20)]
        for peer in peers[:10]:
            peer.setblocking(False)
            try:
                for _ in range(2_000):
                    peer.send(orjson.dumps({"op": "fetch", "request": mine.request, "ref": "a" * 32}))
            except OSError:
                pass
        peers[11].send(b"")
        peers[12].shutdown(socket.SHUT_WR)
        rig.assert_serves()
        for peer in peers:
            peer.close()
        rig.assert_serves()
        mine.close()
        rig.assert_holds_nothing()
    await until(lambda: descriptors() <= before)


def answered(case: str) -> Callable[[Any], list[tuple[bytes, list[int]]]]:
    """Return how a hostile file-descriptor server answers."""
    answer = {"reference": form("a" * 32)}

    def one(message: Any, numbers: list[int]) -> list[tuple[bytes, list[int]]]:
        return [(encoded(message), numbers)]

    if case in BAD_DESCRIPTORS:
        return lambda _: one(answer, BAD_DESCRIPTORS[case][0]())
    return {
        "garbage": lambda _: [(b"\xff", [memfd(96)])],
        "a list": lambda _: [(b"[]", [memfd(96)])],
        "too large": lambda _: [(b" " * (70 << 10), [memfd(96)])],
        "deep": lambda _: one({"reference": {"ref": DEEP}}, [memfd(96)]),
        "no reference": lambda _: one({}, [memfd(96)]),
        "reference is a list": lambda _: one({"reference": [1]}, [memfd(96)]),
        "reference of another": lambda _: one({"reference": form("b" * 32)}, [memfd(96)]),
        "reference of other shape": lambda _: one(
            {"reference": form("a" * 32, shape=[3, 4], metadata={"strides": [32, 8]})}, [memfd(96)]
        ),
        "error with memory": lambda _: one(
            {"error": {"type": "ReferenceRefused", "message": "no, and no again"}}, [memfd(96)]
        ),
        "error that is none": lambda _: one({"error": {"type": "SystemExit", "message": "no, no"}}, [memfd(96)]),
        "error is deep": lambda _: one({"error": DEEP}, [memfd(96)]),
        "unavailable with memory": lambda _: one({"unavailable": "no_memory"}, [memfd(96)]),
    }[case]


HOSTILE_ANSWERS = [
    *(case for case in BAD_DESCRIPTORS if case != "none"),
    "garbage",
    "a list",
    "too large",
    "deep",
    "no reference",
    "reference is a list",
    "reference of another",
    "reference of other shape",
    "error with memory",
    "error that is none",
    "error is deep",
    "unavailable with memory",
]


@pytest.mark.parametrize("case", HOSTILE_ANSWERS)
async def test_a_hostile_server_is_refused(short_path: Path, case: str) -> None:
    """A worker takes nothing from its file-descriptor server but one sealed memfd, and keeps nothing of the rest."""
    before = descriptors()
    fd_server = HostileFdServer(short_path / "b", answered(case))
    exchange = FdClient(short_path / "b")
    scope = Scope(Owner.PYTHON, exchange, ZeroCopySettings(allow_fallback=False), request="r")
    for _ in range(3):
        rejected(lambda: scope.receive(form("a" * 32)))
    assert not scope.in_use
    scope.close()
    exchange.close()
    fd_server.close()
    await until(lambda: descriptors() <= before)


@pytest.mark.parametrize("case", ["garbage", "a list", "too large", "error with memory", "error is deep", "may shrink"])
async def test_a_hostile_server_gets_nothing_of_a_publisher(short_path: Path, case: str) -> None:
    """Whatever is answered to what is published and released, no descriptor of the answer is kept."""
    before = descriptors()
    fd_server = HostileFdServer(short_path / "b", answered(case))
    exchange = FdClient(short_path / "b")
    for _ in range(3):
        for act in (
            lambda: exchange.publish("r", description("a" * 32), content(1)),
            lambda: exchange.release("r", "a" * 32),
        ):
            if case == "may shrink":
                act()
            else:
                rejected(act)
    exchange.close()
    fd_server.close()
    await until(lambda: descriptors() <= before)


@pytest.mark.parametrize("answers", [0, 2], ids=["mute", "talks twice"])
async def test_answers_are_not_taken_for_others(
    short_path: Path, answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer is unreachable, and the second of two answers is ignored."""
    monkeypatch.setattr(fd_client, "_TIMEOUT_S", 0.2)
    before = descriptors()
    fd_server = HostileFdServer(
        short_path / "b",
        lambda message: [(encoded({"reference": form(message["ref"])}), [memfd(96)]) for _ in range(answers)],
    )
    exchange = FdClient(short_path / "b")
    scope = Scope(Owner.PYTHON, exchange, ZeroCopySettings(allow_fallback=False), request="r")
    if answers:
        assert scope.receive(form("a" * 32)).to_numpy().shape == (4, 3)
    for ref in ("b", "c"):
        rejected(lambda ref=ref: scope.receive(form(ref * 32)))
    scope.close()
    exchange.close()
    fd_server.close()
    await until(lambda: descriptors() <= before)


async def test_a_server_that_is_gone_is_unreachable(short_path: Path) -> None:
    """Without a server, the exchange is unavailable, and a release does nothing."""
    exchange = FdClient(short_path / "none")
    rejected_by = (ExchangeUnavailable,)
    with pytest.raises(rejected_by, match="unreachable"):
        exchange.fetch("r", "a" * 32)
    with pytest.raises(rejected_by, match="unreachable"):
        exchange.publish("r", description("a" * 32), content(1))
    exchange.release("r", "a" * 32)


STRANGER = """
import os, socket, sys
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.settimeout(5)
connection.connect(sys.argv[1])
try:
    connection.send(b'{"op": "fetch", "request": null, "ref": "' + b"a" * 32 + b'"}')
    print("answered", connection.recv(1000))
except (BrokenPipeError, ConnectionResetError):
    print("answered", b"")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change its user")
async def test_other_users_are_turned_away(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process of another user gets no answer, even where the socket's permissions would let it in."""
    with serving_buffers(short_path) as rig:
        assert rig.fd_server.path.stat().st_mode & 0o777 == 0o600
        rig.buffer_store.publish(None, description("a" * 32), content(1))
        short_path.chmod(0o755)
        command = [sys.executable, "-I", "-S", "-c", STRANGER, str(rig.fd_server.path)]
        stranger = [*command, "as another user"]
        shut = await asyncio.to_thread(subprocess.run, stranger, capture_output=True, text=True)
        assert "PermissionError" in shut.stderr
        rig.fd_server.path.chmod(0o666)
        met = await asyncio.to_thread(subprocess.run, stranger, capture_output=True, text=True)
        assert met.stdout == "answered b''\n", met.stderr
        own = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert '"reference"' in own.stdout
        assert any("of user 65534 was turned away" in record.getMessage() for record in caplog.records)
        rig.assert_serves()


@pytest.mark.parametrize("dtype", ["uint8", "float64", "complex128"])
async def test_inline_data_of_another_size_are_refused(dtype: str) -> None:
    """Data inside the message are of the described size, and as the shape takes; no more, no fewer."""
    scope = Scope(Owner.PYTHON, None, request="r")
    item = np.dtype(dtype).itemsize
    made = Description(Kind.DLPACK, Owner.ELIXIR, "a" * 32, 6 * item, dtype, (2, 3), strides=(3 * item, item))
    for length in {*range(4), 6 * item - 1, 6 * item + 1, 12 * item}:
        wrong = made.to_json()
        wrong["metadata"]["data"] = base64.b64encode(bytes(length)).decode()
        rejected(lambda wrong=wrong: scope.receive(wrong))
        # Nor if the description agrees, but not with the shape.
        wrong["bytes"] = length
        rejected(lambda wrong=wrong: scope.receive(wrong))
    assert not scope.in_use


def sample() -> pa.Table:
    """Return a table with nulls, text, a dictionary, nesting and numbers."""
    return pa.table(
        {
            "number": pa.array([1, None, 3], pa.int32()),
            "text": pa.array(["a", None, "ccc"]),
            "large": pa.array([b"x", b"yy", None], pa.large_binary()),
            "view": pa.array(["short", "longer than twelve bytes", None], pa.string_view()),
            "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
            "list": pa.array([[1], [], None], pa.list_(pa.int8())),
            "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": 2, "b": None}]),
            "flag": pa.array([True, None, False]),
            "money": pa.array([1, 2, None], pa.decimal128(5, 2)),
        }
    )


def ipc(table: pa.Table, **options: Any) -> bytes:
    """Return a table as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def inline(data: bytes, kind: Form = Form.TABLE) -> dict[str, Any]:
    """Return the form of an Arrow reference with its data in it."""
    return Description(Kind.ARROW, Owner.ELIXIR, "a" * 32, len(data), "table", (3, 9), form=kind, data=data).to_json()


def read(data: bytes, kind: Form = Form.TABLE) -> Any:
    """Return what a worker reads."""
    scope = Scope(Owner.PYTHON, None, request="r")
    try:
        return scope.receive(inline(data, kind)).to_arrow()
    finally:
        scope.close()


async def test_flipped_bits_in_arrow_data_are_refused_or_harmless() -> None:
    """Each bit of a stream, flipped, makes it malformed, or leaves something that can be read to the end."""
    good = ipc(sample())
    assert read(good).equals(sample())
    harmless = 0
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << random.Random(position).randrange(8)
        with suppress(ZeroCopyError):
            table = read(bytes(bad))
            table.validate(full=True)
            with suppress(UnicodeDecodeError, ArithmeticError):
                # Python's own objects may be pickier than Arrow's, of decimals for example.
                table.to_pylist()
            harmless += 1
    # Padding, and numbers that are as good as others.
    assert 0 < harmless < len(good) * 0.8


async def test_scrambled_arrow_data_are_refused_or_harmless() -> None:
    """Several bytes wrong at a time, pieces left out and pieces twice are no worse."""
    chance, good = random.Random(SEED), ipc(sample())
    for _ in range(1_500):
        bad = bytearray(good)
        start, length = chance.randrange(len(bad)), chance.choice((1, 4, 8, 64))
        how = chance.randrange(4)
        if how == 0:
            bad[start : start + length] = chance.randbytes(length)
        elif how == 1:
            del bad[start : start + length]
        elif how == 2:
            bad[start:start] = bad[start : start + length]
        else:
            number = chance.choice((0, -1, 2**31 - 1, -(2**31), 2**20))
            start -= start % 4
            bad[start : start + 4] = number.to_bytes(4, "little", signed=True)
        with suppress(ZeroCopyError):
            read(bytes(bad)).validate(full=True)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
async def test_compressed_arrow_data_are_refused(codec: str) -> None:
    """Data that would have to be unpacked are not where they were sent, and could be of any size."""
    packed = ipc(pa.table({"a": pa.array(range(10_000))}), compression=codec)
    assert "compressed" in str(rejected(lambda: read(packed)))


async def test_truncated_arrow_data_are_refused() -> None:
    """A stream that ends early is refused; without its end mark alone it is whole."""
    good = ipc(sample())
    for length in range(0, len(good) - 8, 7):
        try:
            table = read(good[:length])
        except ReferenceRefused:
            continue
        # Cut between two messages: what remains is a table of fewer rows, here of none.
        assert table.num_rows == 0
    assert read(good[:-8]).equals(sample())


@pytest.mark.parametrize("kind", [Form.BATCH, Form.ARRAY, Form.CHUNKED])
async def test_arrow_data_of_another_form_are_refused(kind: Form) -> None:
    """A table of two batches is neither a batch nor an array."""
    two = pa.concat_tables([sample(), sample()])
    rejected(lambda: read(ipc(two), kind))


async def test_malformed_arrow_data_do_no_harm_to_workers(short_path: Path) -> None:
    """A worker that opens malformed data by shared memory refuses them and lives on, as does the caller."""
    chance, good = random.Random(SEED), ipc(sample())
    async with Snakepit(Hostile, workers=1) as pit, Client(pit.socket) as client:
        worker = await client.execute("pid")
        caller = FdClient(fd_server_path(Path(pit.socket.removeprefix("unix:"))))
        refused = 0
        for number in range(300):
            bad = bytearray(good)
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
            about = Description(Kind.ARROW, Owner.ELIXIR, f"{number:032x}", len(bad), "table", (3, 9), form=Form.TABLE)
            caller.publish(None, about, Buffer.of([memoryview(bytes(bad))], len(bad)))
            try:
                assert await execute_unlisted(client, "rows", {"t": about.to_json()}) in range(4)
            except ReferenceRefused:
                refused += 1
        caller.close()
        assert refused > 50
        assert await client.execute("rows", {"t": sample()}) == 3
        assert await client.execute("pid") == worker
        buffer_store = pit._dispatcher.buffer_store  # type: ignore[union-attr]
        await until(lambda: (buffer_store._stored, buffer_store._usage.bytes) == ({}, 0))


async def test_nothing_is_written_through_a_reference(short_path: Path) -> None:
    """What was received is read-only for NumPy, for DLPack and for Arrow, and its pages for everybody."""
    with serving_buffers(short_path) as rig:
        mine, exchange = rig.request(), rig.link()
        rig.buffer_store.publish(mine.request, description("a" * 32), content(1))
        theirs = Scope(Owner.PYTHON, exchange, request=mine.request)
        reference = theirs.receive(form("a" * 32))
        array = reference.to_numpy()
        for made in (array, np.from_dlpack(reference), np.asarray(reference)):
            with pytest.raises(ValueError, match="read-only"):
                made[0, 0] = 1
            with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
                made.flags.writeable = True
        _, buffer = rig.buffer_store.fetch(mine.request, "a" * 32)
        with pytest.raises(PermissionError):
            os.pwrite(buffer.fileno(), b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(buffer.fileno(), 0)
        with pytest.raises(PermissionError):
            mmap.mmap(buffer.fileno(), 96, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        buffer.close()
        del array, made
        theirs.close()
        mine.close()
        exchange.close()


def test_nothing_in_the_package_names_references_by_paths() -> None:
    """Ids of references are 32 hexadecimal digits, and so never part of a path or of a name in /dev/shm."""
    assert zero_copy.from_numpy(np.ones(1)).description.ref.isalnum()
    for bad in ("../" + "a" * 29, "A" * 32, "a" * 31 + "/", "a" * 33, "a" * 32 + "\n"):
        rejected(lambda bad=bad: Description.from_json(form(bad)))
