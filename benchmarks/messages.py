"""One large message from an anonymous caller: how long it holds up others, and what it costs in memory.

Prints a line for each shape: the longest that an honest caller on the Unix socket waited while the authority had the
message, next to that of the same time without one; and the authority's peak above what it had before, as a multiple of
the message. `python -m benchmarks.messages [--megabytes 30] [--times 3] [SHAPE…]`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc import aio

from snakepit_otel import BaseAdapter, Client, tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.codec import STRING_VALUE
from snakepit_otel.common.json_keys import ZERO_COPY

# Seconds without a message, before each.
_QUIET = 1.0
_CALL = "/snakepit.bridge.BridgeService/"
_MARK = f'"{ZERO_COPY}"'.encode()


class Echo(BaseAdapter):
    @tool
    def echo(self, value: Any = None, **_others: Any) -> Any:
        return value

    @tool
    def size(self, **values: Any) -> int:
        return len(values)

    @tool
    def text(self, size: int, of: str = "x") -> str:
        return of * (size // len(of))

    @tool
    def lists(self, size: int) -> list[Any]:
        return [[]] * (size // 3)

    @tool
    def chunks(self, size: int) -> Any:
        yield "_" * size

    @tool
    def fail(self, size: int) -> None:
        raise RuntimeError("x" * size)


def _execute(tool_name: str = "size", *, binary: bytes = b"", **values: bytes) -> bytes:
    request = pb.ExecuteToolRequest(tool_name=tool_name)
    for name, value in values.items():
        request.parameters[name].CopyFrom(AnyMessage(type_url=STRING_VALUE, value=value))
    if binary:
        request.binary_parameters["value"] = binary
    return request.SerializeToString()


def _call_back(tool_name: str, **values: bytes) -> bytes:
    request = pb.ExecuteElixirToolRequest(session_id="s", tool_name=tool_name)
    for name, value in values.items():
        request.parameters[name].CopyFrom(AnyMessage(type_url=STRING_VALUE, value=value))
    return request.SerializeToString()


def _many(head: bytes, part: bytes, tail: bytes, size: int) -> bytes:
    return head + part * ((size - len(head) - len(tail)) // len(part)) + tail


def _entries(field: int, size: int) -> bytes:
    tag = bytes([field << 3 | 2])
    return b"".join(tag + b"\x0b\x0a\x07%07d\x12\x00" % number for number in range(size // 13))


_SHAPES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "mark once, lists": ("ExecuteTool", lambda n: _execute(x=_many(b"[" + _MARK, b",[]", b"]", n))),
    "mark once, unknown tool": ("ExecuteTool", lambda n: _execute("nope", x=_many(b"[" + _MARK, b",[]", b"]", n))),
    "marks": ("ExecuteTool", lambda n: _execute("nope", x=_many(b"[1", b"," + _MARK, b"]", n))),
    "references": (
        "ExecuteTool",
        lambda n: _execute("nope", x=_many(b"[1", b",{" + _MARK + b':true,"ref":"' + b"a" * 32 + b'"}', b"]", n)),
    ),
    "nearly marks": ("ExecuteTool", lambda n: _execute("nope", x=_many(b'"', b"_", b'"', n))),
    "deep": ("ExecuteTool", lambda n: _execute(x=b"[" * (n // 2) + b"]" * (n // 2))),
    "many small": ("ExecuteTool", lambda n: _execute(x=_many(b"[1", b",1", b"]", n))),
    "big number": ("ExecuteTool", lambda n: _execute(x=b"1" * n)),
    "long text": ("ExecuteTool", lambda n: _execute(x=_many(b'"', b"x", b'"', n))),
    "bytes": ("ExecuteTool", lambda n: _execute(binary=bytes(n))),
    "parameter names": ("ExecuteTool", lambda n: _execute() + _entries(3, n)),
    "metadata": ("ExecuteTool", lambda n: _execute() + _entries(4, n)),
    "tool name": ("ExecuteTool", lambda n: _execute("x" * n)),
    "session id": ("ExecuteTool", lambda n: pb.ExecuteToolRequest(session_id="x" * n).SerializeToString()),
    "authority's tool": ("ExecuteTool", lambda n: _execute("set_session_state", value=_many(b"[1", b",[]", b"]", n))),
    "state": (
        "ExecuteElixirTool",
        lambda n: _call_back("set_session_state", key=b'"k"', value=_many(b"[1", b",[]", b"]", n)),
    ),
    "just state": (
        "ExecuteElixirTool",
        lambda _: _call_back("set_session_state", key=b'"k"', value=_many(b"[1", b",[]", b"]", 1_000_000)),
    ),
    "result text": ("ExecuteTool", lambda n: _execute("text", size=b"%d" % n)),
    "result nearly marks": ("ExecuteTool", lambda n: _execute("text", size=b"%d" % n, of=b'"_"')),
    "result marks": ("ExecuteTool", lambda n: _execute("text", size=b"%d" % n, of=b'"%s"' % ZERO_COPY.encode())),
    "result lists": ("ExecuteTool", lambda n: _execute("lists", size=b"%d" % n)),
    "chunk": ("ExecuteStreamingTool", lambda n: _execute("chunks", size=b"%d" % n)),
    "error": ("ExecuteTool", lambda n: _execute("fail", size=b"%d" % n)),
    "tools": ("RegisterTools", lambda n: b"\x0a\x01s" + b"\x12\x00" * (n // 2)),
    "session metadata": ("InitializeSession", lambda n: b"\x0a\x01s" + _entries(2, n)),
    "heartbeat": ("Heartbeat", lambda n: pb.HeartbeatRequest(session_id="x" * n).SerializeToString()),
    "ping": ("Ping", lambda n: pb.PingRequest(message="x" * n).SerializeToString()),
}


async def _attack(address: str, shape: str, size: int) -> str:
    method, make = _SHAPES[shape]
    raw = make(size)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with aio.insecure_channel(address, options=options) as channel:
        await channel.channel_ready()
        print(len(raw), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            if method == "ExecuteStreamingTool":
                async for _ in channel.unary_stream(_CALL + method)(raw, timeout=60):
                    pass
                return "OK"
            answer = await channel.unary_unary(_CALL + method)(raw, timeout=60)
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()[:60]}"
        if method == "ExecuteTool":
            response = pb.ExecuteToolResponse.FromString(answer)
            return "OK" if response.success else f"refused {response.error_message[:70]}"
        return f"answered {answer[:60]!r}"


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise ValueError(field)


async def _longest_wait(client: Client, until: Callable[[], bool]) -> float:
    longest = 0.0
    while not until():
        begun = time.perf_counter()
        await client.ping(60)
        longest = max(longest, time.perf_counter() - begun)
        await asyncio.sleep(0.002)
    return longest


async def _measure(client: Client, address: str, pid: int, shape: str, size: int) -> tuple[float, float, float, str]:
    """Return the longest waits without and with a message, the peak as a multiple of it, and what became of it."""
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.messages", "--attack", address, shape, "--megabytes", str(size / 1e6)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert attacker.stdin is not None
    assert attacker.stdout is not None
    await attacker.stdout.readline()
    await asyncio.sleep(0.5)
    ends = time.monotonic() + _QUIET
    before = await _longest_wait(client, lambda: time.monotonic() > ends)
    await asyncio.to_thread(Path(f"/proc/{pid}/clear_refs").write_text, "5")
    base = _status(pid, "VmRSS")
    attacker.stdin.write(b"\n")
    answered = asyncio.ensure_future(attacker.wait())
    during = await _longest_wait(client, answered.done)
    output = (await attacker.stdout.read()).decode().strip()
    return before, during, (_status(pid, "VmHWM") - base) / size, output


async def _compare(socket: str, address: str, pid: int, shapes: list[str], size: int, times: int) -> None:
    print(f"{'shape':26}{'quiet':>9}{'worst':>9}{'peak':>7}  outcome; {size / 1e6:g} MB, median of {times}, (worst)")
    async with Client(socket) as client:
        for shape in shapes:
            found = [await _measure(client, address, pid, shape, size) for _ in range(times)]
            quiet, waits, peaks, outcomes = zip(*found, strict=True)
            print(
                f"{shape:26}{statistics.median(quiet) * 1e3:6.0f} ms{statistics.median(waits) * 1e3:6.0f} ms"
                f"{max(peaks):6.1f}x  ({max(waits) * 1e3:.0f} ms) {outcomes[-1]}",
                flush=True,
            )


def _serve(shapes: list[str], size: int, times: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        socket, output = f"{directory}/s/authority.sock", Path(directory, "output")
        serve = [sys.executable, "-m", "snakepit_otel", "serve", "benchmarks.messages:Echo", "--workers", "2"]
        with output.open("w") as out:
            server = subprocess.Popen([*serve, "--socket", socket, "--listen", "127.0.0.1:0"], stdout=out, stderr=out)
        try:
            while "serving" not in output.read_text():
                time.sleep(0.05)
            address = "127.0.0.1:" + output.read_text().partition("127.0.0.1:")[2].partition(";")[0].strip()
            asyncio.run(_compare(f"unix:{socket}", address, server.pid, shapes, size, times))
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--attack", default="")
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("shapes", nargs="*")
    given = parser.parse_args()
    size = round(given.megabytes * 1e6)
    if given.attack:
        print(asyncio.run(_attack(given.attack, given.shapes[0], size)))
    else:
        _serve(given.shapes or list(_SHAPES), size, given.times)


if __name__ == "__main__":
    main()
