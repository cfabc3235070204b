"""Peers that are stopped, or gone while others hold their socket; and thousands of calls at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import PING
from snakepit_otel.rpc.transports.local import frames, link
from snakepit_otel.rpc.transports.local.link import Link
from snakepit_otel.rpc.transports.local.liveness import is_stopped
from tests.rpc.local.conftest import HELLO
from tests.waiting import until

# Connects, and with `fork` leaves its socket to a child, whose process id it prints, before it ends.
PEER = """
import os, socket, sys, time
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
child = os.fork() if sys.argv[2] == "fork" else os.getpid()
if child:
    print(child, flush=True)
    if sys.argv[2] == "fork":
        os._exit(0)
time.sleep(60)
"""


@pytest.fixture(params=["stopped", "fork"])
def peer(request: pytest.FixtureRequest, address: str) -> Iterator[socket.socket]:
    """The accepted socket of a peer whose process is stopped, or has ended and left a fork that holds the socket."""
    path = address.removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        command = [sys.executable, "-S", "-c", PEER, path, request.param]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            holder = int(process.stdout.readline())
            accepted, _ = listening.accept()
            with accepted:
                accepted.setblocking(False)
                if request.param == "stopped":
                    assert not is_stopped(accepted)
                    os.kill(holder, signal.SIGSTOP)
                else:
                    process.wait(20)
                yield accepted
            os.kill(holder, signal.SIGKILL)


class Now:
    """Time as a test sets it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        """Return it."""
        return self.time


class Nothing:
    """Takes no frames; keeps why the connection ended."""

    in_flight = 0
    why = ""

    def on_frame(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        """Take none."""

    def on_part(self, kind: int, stream: int, size: int) -> bool:
        """Keep none."""
        return False

    def on_lost(self, why: str) -> None:
        """Keep why."""
        self.why = why


def look(made: Link) -> None:
    """Have a link look after its peer now."""
    assert made._timer is not None
    made._timer.cancel()
    made._look()


async def test_a_peer_that_does_not_run(peer: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is pinged, and its connection ends once it has not answered for twenty seconds."""
    now, receiver = Now(), Nothing()
    monkeypatch.setattr(link, "monotonic", now)
    faults: list[str] = []
    made = Link(peer, asyncio.get_running_loop(), on_fault=faults.append)
    made.is_extended = True
    made.start(receiver)
    await until(lambda: is_stopped(peer))
    look(made)
    assert made._pinged is None
    now.time += 11
    look(made)
    assert made._pinged == now.time
    now.time += 19
    look(made)
    assert made.lost is None
    now.time += 2
    look(made)
    assert (faults, receiver.why) == (["silent"], "the process of the peer is stopped, or gone")


async def test_a_peer_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer whose process runs keeps its connection however late it answers."""
    now, receiver = Now(), Nothing()
    monkeypatch.setattr(link, "monotonic", now)
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        made = Link(ours, asyncio.get_running_loop())
        made.is_extended = True
        made.start(receiver)
        for _ in range(20):
            now.time += 30
            look(made)
        assert made.lost is None
        assert theirs.recv(100) == frames.HEADER.pack(0, 0, frames.PING, 0)
        theirs.sendall(HELLO)
        await until(lambda: made._pinged is None)
        made.close()


async def test_thousands_of_calls_at_once(connection: rpc.Connection) -> None:
    """Five thousand calls of one loop have their own answers."""
    calls = (connection.call(PING, pb.PingRequest(message=str(number)), 60.0) for number in range(5000))
    answers = await asyncio.gather(*calls)
    assert [answer.message for answer in answers] == [str(number) for number in range(5000)]
