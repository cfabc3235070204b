"""Hostile peers, and the servers to test them against."""

from __future__ import annotations

import array
import fcntl
import gc
import json
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._descriptor import Description, Kind, Owner
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._fd_server import FdServer
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._reaper import reaper
from snakepit_otel.zero_copy._scope import Scope

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
WORKER = "pool-1.1"

DEEP_JSON = b"[" * 1_015 + b"]" * 1_015
DEEP: Any = orjson.loads(DEEP_JSON)
"""Nested as deeply as JSON may be, which is more than `repr` can follow."""
JUNK: tuple[Any, ...] = (None, True, -1, 1.5, 1e300, "", "x" * 5_000, [], [[]], {}, {"a": 1}, DEEP, "\u0000", "🐍")
NUMBERS = (-(2**63), -8, -1, 1, 7, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**65, 2**200)


@contextmanager
def quick_to_collect() -> Iterator[None]:
    """Let the collector leave alone what is loaded by now, for it is asked to look for garbage often."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def encoded(value: Any) -> bytes:
    """Return a value as JSON, which may have `DEEP` in it, as no encoder would have it."""
    return json.dumps(_marked(value)).encode().replace(b'"@deep@"', DEEP_JSON[3:-3])


def _marked(value: Any) -> Any:
    if value is DEEP:
        return "@deep@"
    if isinstance(value, dict):
        return {key: _marked(part) for key, part in value.items()}
    return [_marked(part) for part in value] if isinstance(value, list) else value


def shallow(value: Any) -> Any:
    """Return a value that has something less deep in place of `DEEP`, which our own encoder would not send."""
    return json.loads(encoded(value).replace(DEEP_JSON[3:-3], b"[" * 100 + b"]" * 100))


def open_files() -> Counter[str]:
    """Return what the descriptors of this process lead to, those aside that only garbage has.

    Sockets and the like aside, too: those of other tests' channels and event loops come and go in their own time.
    """
    gc.collect()
    reaper.drain()
    targets = [_target(file) for file in Path("/proc/self/fd").iterdir()]
    return Counter(target for target in targets if not target.startswith(("socket:", "anon_inode:")))


def descriptors() -> int:
    """Return how many descriptors `open_files` counts."""
    return open_files().total()


def shared_memory(pids: Iterable[int]) -> list[str]:
    """Return where these processes, as far as they live, have a descriptor or a map of our memory."""
    # An error that was caught may have its frames in a circle, which only the collector finds.
    gc.collect()
    found = []
    for pid in pids:
        try:
            lines = [f"{file}: {_target(file)}" for file in Path(f"/proc/{pid}/fd").iterdir()]
            lines += Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue
        found.extend(f"{pid}: {line}" for line in lines if "/memfd:snakepit " in line)
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def memfd(size: int, seals: int = SEALS, *, allocated: bool = True) -> int:
    """Return a memfd with these seals, whose bytes are allocated or all a hole."""
    made = os.memfd_create("snakepit-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(made, size)
    if allocated and size:
        os.posix_fallocate(made, 0, size)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
    return made


def form(ref: str = "0" * 32, *, size: int = 96, **changes: Any) -> dict[str, Any]:
    """Return the JSON form of a tensor of 4 × 3 float64, which is 96 bytes, with changes."""
    made = Description(Kind.DLPACK, Owner.ELIXIR, ref, size, "float64", (4, 3), strides=(24, 8)).to_json()
    metadata = {**made["metadata"], **changes.pop("metadata", {})}
    return {**made, "metadata": metadata, **changes}


class Rig:
    """A file-descriptor server, what it holds, and one request that the worker `WORKER`, this process, serves."""

    def __init__(self, buffer_store: BufferStore, fd_server: FdServer) -> None:
        self.buffer_store = buffer_store
        self.fd_server = fd_server
        buffer_store.add_worker(os.getpid(), WORKER)

    def request(self, worker: str = WORKER) -> Scope:
        """Begin a request that a worker serves."""
        scope = self.buffer_store.request(None, "tool")
        assert scope.request is not None
        self.buffer_store.assign_worker(scope.request, worker)
        return scope

    def link(self) -> FdClient:
        """Connect."""
        return FdClient(self.fd_server.path)

    def raw(self) -> socket.socket:
        """Connect without manners."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(5)
        connection.connect(str(self.fd_server.path))
        return connection

    def assert_serves(self) -> None:
        """An honest peer is served."""
        scope, link = self.request(), self.link()
        try:
            link.publish(scope.request, description("f" * 32, Owner.PYTHON), Buffer.of([memoryview(bytes(96))], 96))
            fetched, buffer = link.fetch(scope.request, "f" * 32)
            assert (fetched.size, bytes(buffer.view()[:96])) == (96, bytes(96))
            buffer.close()
        finally:
            scope.close()
            link.close()

    def assert_holds_nothing(self) -> None:
        """No buffer, no byte and no request is left."""
        assert (self.buffer_store._stored, self.buffer_store._usage.bytes, self.buffer_store._requests) == ({}, 0, {})


def description(ref: str, owner: Owner = Owner.ELIXIR) -> Description:
    """Return the description that `form` is the JSON of."""
    return Description(Kind.DLPACK, owner, ref, 96, "float64", (4, 3), strides=(24, 8))


@contextmanager
def serving_buffers(directory: Path, **settings: Any) -> Iterator[Rig]:
    """Run a file-descriptor server."""
    buffer_store = BufferStore(ZeroCopySettings(**settings))
    fd_server = FdServer(buffer_store, directory / "b.memory")
    fd_server.start()
    try:
        yield Rig(buffer_store, fd_server)
    finally:
        fd_server.close()


class HostileFdServer:
    """Answers every packet with what `answer` makes of it: packets, each with descriptors that are closed then."""

    def __init__(self, path: Path, answer: Callable[[Any], list[tuple[bytes, list[int]]]]) -> None:
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        while received := socket.recv_fds(connection, 1 << 17, 4):
            data, given, _, _ = received
            for number in given:
                os.close(number)
            if not data:
                return
            answers = self._answer(orjson.loads(data))
            try:
                while answers:
                    send(connection, *answers.pop(0))
            finally:
                # The server disconnects.
                for number in (number for _, numbers in answers for number in numbers):
                    os.close(number)

    def close(self) -> None:
        """Stop, once all have gone who were served."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def send(connection: socket.socket, packet: bytes, numbers: list[int]) -> None:
    """Send a packet with descriptors, and close them."""
    try:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
        connection.sendmsg([packet], ancillary)
    finally:
        for number in numbers:
            os.close(number)


def forged(chance: random.Random, right: dict[str, Any], others: list[str]) -> tuple[str, dict[str, Any]]:
    """Return a form that differs from the right one, and the change.

    What may be left out (device, copy, offset) is not; `others` are references that exist and are none of ours.
    """
    while True:
        what = chance.choice(list(_FORGERIES))
        made = {**right, "metadata": dict(right["metadata"])}
        _FORGERIES[what](chance, made, others)
        if made != right:
            return what, made


def _number(chance: random.Random, near: int) -> Any:
    return chance.choice((*NUMBERS, *JUNK, near + 1, near - 1, near * 2, near // 2, str(near), float(near) + 0.5))


def _drop(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    del made[chance.choice(["kind", "owner", "ref", "bytes", "dtype", "shape"])]


def _add(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    where = chance.choice([made, made["metadata"]])
    where[chance.choice(["size", "Kind", "", "path", "pid", "fd", "__proto__", "ref "])] = chance.choice(JUNK)


def _junk(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    field = chance.choice(["kind", "device", "dtype", "shape", "owner", "ref", "bytes", "metadata"])
    made[field] = chance.choice([part for part in JUNK if part != {} or field != "metadata"])


def _ref(chance: random.Random, made: dict[str, Any], others: list[str]) -> None:
    right = made["ref"]
    made["ref"] = chance.choice(
        [f"{chance.getrandbits(128):032x}", right[:-1], f"{right}\n", f" {right}", f"{right}0", "../" + right, *others]
    )


def _bytes(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["bytes"] = _number(chance, made["bytes"])


def _shape(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    shape = list(made["shape"])
    how = chance.randrange(5)
    if how == 0:
        shape[chance.randrange(len(shape))] = _number(chance, shape[0])
    elif how == 1:
        shape.reverse()
    elif how == 2:
        shape = [2 ** chance.randrange(70) for _ in range(chance.randrange(1, 70))]
    elif how == 3:
        shape += [1] * chance.randrange(1, 80)
    else:
        shape = [chance.choice((0, 1, 2**32, 2**62, 2**63)) for _ in range(len(shape))]
    made["shape"] = shape


def _strides(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    strides = list(made["metadata"]["strides"])
    how = chance.randrange(6)
    if how == 0:
        strides[chance.randrange(len(strides))] = _number(chance, strides[0])
    elif how == 1:
        strides.reverse()
    elif how == 2:
        strides = [0] * len(strides)
    elif how == 3:
        strides = [-stride for stride in strides]
    elif how == 4:
        strides = strides[chance.randrange(1, len(strides) + 1) :]
    else:
        strides += [8] * chance.randrange(1, 80)
    made["metadata"]["strides"] = strides


def _offset(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["metadata"]["offset"] = chance.choice(
        [part for part in (*NUMBERS, *JUNK, 8, made["bytes"]) if part != 0 or part is False]
    )


def _dtype(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    dtypes = (
        "int64 uint64 complex64 float32 int8 bool O object >f8 <f8 f8 double datetime64[ns] S8 U2 V8 float128 int64,f8"
    )
    made["dtype"] = chance.choice([*dtypes.split(), "{'names': ['a'], 'formats': ['O']}", "float64\0"])


def _device(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["device"] = chance.choice(["cuda", "cuda:0", "CPU", "cpu ", 0, 1, 2, None, "", [1, 0], "meta"])


def _kind(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["kind"] = chance.choice(["arrow", "DLPACK", "pickle", "tensor", 1])


def _form(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["metadata"]["form"] = chance.choice(["table", "batch", "array", "chunked", "none", 1, DEEP])


def _owner(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["owner"] = chance.choice(["python" if made["owner"] == "elixir" else "elixir", "root", "", 0])


def _data(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["metadata"]["data"] = chance.choice(
        ["", "=", "AAA", "A" * 127, "A" * 124, "A" * 132, "\n" * 128, "é" * 128, "A" * 127 + "*", 5, [], DEEP, True]
    )


def _copy(chance: random.Random, made: dict[str, Any], _: list[str]) -> None:
    made["copy"] = chance.choice([None, 0, 1, "true", [], DEEP])


_FORGERIES: dict[str, Callable[[random.Random, dict[str, Any], list[str]], None]] = {
    "field left out": _drop,
    "field added": _add,
    "junk": _junk,
    "ref": _ref,
    "bytes": _bytes,
    "shape": _shape,
    "strides": _strides,
    "offset": _offset,
    "dtype": _dtype,
    "device": _device,
    "kind": _kind,
    "form": _form,
    "owner": _owner,
    "data": _data,
    "copy": _copy,
}

assert ZERO_COPY in form()
