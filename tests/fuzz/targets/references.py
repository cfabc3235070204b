"""References: their JSON form, the memory that it describes, and the packets that bring both."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import ReferenceRefused, SnakepitError
from snakepit_otel.zero_copy import _fd_protocol as protocol
from snakepit_otel.zero_copy._descriptor import Description, Form, Kind, Owner, replaced
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._reference import check
from snakepit_otel.zero_copy.formats import arrow as tables
from snakepit_otel.zero_copy.formats import dlpack as tensors
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, refusing, target

_SIZE = 4_096
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NUMBERS = (0, 1, 2, 3, 4, 8, 16, 24, 32, 96, 512, 4_095, 4_096, 4_097, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, -8)


def form(choices: Choices) -> Any:
    """Return the form of a reference, with a few fields that are not what they were."""
    if not choices.below(8):
        return choices.json()
    item = choices.pick(sorted(tensors.ITEM_SIZES))
    shape = [choices.pick(_NUMBERS[:7]) for _ in range(choices.below(4))]
    layout = tensors.layout_of(tuple(shape), item, choices.pick("CF"))
    made = Description(
        Kind.DLPACK, choices.pick(list(Owner)), "0" * 32, layout.bytes, item, tuple(shape), strides=layout.strides
    ).to_json()
    for _ in range(choices.below(3)):
        field = choices.pick([*made, "metadata", "more"])
        where = made
        if field == "metadata" and isinstance(made["metadata"], dict):
            where, field = made["metadata"], choices.pick(["offset", "strides", "form", "data", "x"])
        where[field] = _other(choices)
    return made


def _other(choices: Choices) -> Any:
    kind = choices.below(4)
    if kind == 0:
        return choices.pick(_NUMBERS)
    if kind == 1:
        return [choices.pick(_NUMBERS) for _ in range(choices.below(8))]
    return (
        choices.pick(["arrow", "table", "python", "float16", "cpu", "AAAA", True, None])
        if kind == 2
        else choices.json()
    )


@target()
def references(data: bytes) -> None:
    """A form is `ReferenceRefused` or what it says; an array of it lies within the memory, without overlaps."""
    choices = Choices(data)
    if choices.chance():
        given = form(choices)
    else:
        try:
            given = json.loads(choices.rest())
        except (ValueError, RecursionError):
            return
    with refusing(SnakepitError):
        replaced([given, {"deep": given}], lambda found: insist(found[ZERO_COPY] is True))
    description = None
    with refusing(ReferenceRefused):
        description = Description.from_json(given)
    if description is None:
        return
    insist(Description.from_json(description.to_json()) == description, "a form changed:", given)
    description.check_same(description)
    with refusing(ReferenceRefused) as refused:
        check(description, _SIZE)
    if refused or description.kind is not Kind.DLPACK:
        return
    with mmap.mmap(-1, _SIZE) as view:
        array = tensors.array(description, view)
        insist(not array.flags.writeable)
        insist(array.nbytes == description.size <= _SIZE)
        if array.size:
            first, last = np.lib.array_utils.byte_bounds(array)
            start = np.frombuffer(view, "u1").ctypes.data
            insist(start <= first <= last <= start + _SIZE, "an array goes beyond its memory:", given)
            insist(not np.lib.array_utils.byte_bounds(array)[1] - first > array.nbytes, "an array has gaps:", given)
        array.tobytes()
        del array


@target(steps=400)
def arrow(data: bytes) -> None:
    """Arrow's stream of bytes is `ReferenceRefused` or a table whose every value can be read."""
    choices = Choices(data)
    kind = choices.pick(list(Form))
    raw = choices.rest()
    if not raw:
        return
    description = Description(Kind.ARROW, Owner.PYTHON, "0" * 32, len(raw), "table", (1, 1), form=kind)
    view = mmap.mmap(-1, len(raw))
    view[:] = raw
    with refusing(ReferenceRefused):
        check(description, len(raw))
        found = tables.read(description, view)
        insist(isinstance(found, (pa.Table, pa.RecordBatch, pa.Array, pa.ChunkedArray)))
        with suppress(pa.ArrowException, ValueError, OverflowError):  # dates beyond Python's, and the like
            found.slice(0, 100).to_pylist()


@target()
def packets_of_brokers(data: bytes) -> None:
    """A packet, with descriptors or without, is an object or `ReferenceRefused`; no descriptor is left open."""
    choices = Choices(data)
    count = choices.below(6)
    sealed = choices.chance()
    raw = choices.rest()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    numbers = [os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for _ in range(count)]
    received: tuple[dict[str, Any], int | None] | None = None
    with ours, theirs:
        try:
            for number in numbers:
                os.ftruncate(number, 96)
                if sealed:
                    fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(theirs, [raw], numbers)
        finally:
            for number in numbers:
                os.close(number)
        before = _descriptors()
        with refusing(ReferenceRefused) as refused:
            received = protocol.receive(ours)
        if refused or received is None:
            insist(_descriptors() == before, "a descriptor was left")
            return
        message, descriptor = received
        insist(isinstance(message, dict))
        try:
            with refusing(SnakepitError):
                if descriptor is not None:
                    taken, descriptor = descriptor, None
                    buffer = Buffer.received(taken)
                    insist(buffer.size == 96)
                    buffer.close()
                    _read_reference(message)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        insist(_descriptors() == before, "a descriptor was left")


def _read_reference(message: dict[str, Any]) -> None:
    """Read a packet's reference, as a file-descriptor server does."""
    if isinstance(message.get("reference"), dict):
        Description.from_json(message["reference"])


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
