"""Search for references in the JSON of peers that send no list: of a large message only around the marks."""

from __future__ import annotations

import asyncio
import re

from snakepit_otel.bridge.wire.references import RAW_MARK
from snakepit_otel.errors import ValueRefused

MAX_MARKS = 10_000
_STEP = 256 << 10  # searched before other tasks have their turn: at worst a millisecond
_MARKS_AT_ONCE = 200
_REACH = 4 << 10  # around a mark, within which the fields of its reference are that come before its content
_REF = re.compile(rb'"ref"\s*:\s*"([0-9a-f]{32})"')
_NAME = b'"ref"'
_VALUE = rb'(?:"[^"\\]*"|[0-9]+|true|false|null|\[[0-9,\s]*\])'
_UP_TO_COPY = re.compile(
    rb'"' + RAW_MARK + rb'"\s*:\s*true(?:\s*,\s*"[a-z]+"\s*:\s*' + _VALUE + rb')*?\s*,\s*"copy"\s*:\s*(?=false)'
)


async def ids_in(raw: bytes) -> set[str]:
    """Return the ids of the references in JSON that is not parsed.

    An id near a reference may be among them. Raises `ValueRefused` for more marks than `MAX_MARKS`.
    """
    found: set[str] = set()
    for number, mark in enumerate(await _marks_in(raw), 1):
        if number % _MARKS_AT_ONCE == 0:
            await asyncio.sleep(0)
        for start in (raw.find(_NAME, mark, mark + _REACH), raw.rfind(_NAME, max(0, mark - _REACH), mark)):
            if start >= 0 and (ref := _REF.match(raw, start)) is not None:
                found.add(ref[1].decode())
    return found


async def labelled_as_copies(raw: bytes) -> bytes:
    """Return JSON whose references have `"copy": true`, for a peer to which their bytes can only be copied.

    The mark has to be a reference's first key, as in our own messages.
    """
    parts: list[memoryview | bytes] = []
    view, done = memoryview(raw), 0
    for number, mark in enumerate(await _marks_in(raw), 1):
        if number % _MARKS_AT_ONCE == 0:
            await asyncio.sleep(0)
        found = _UP_TO_COPY.match(raw, mark - 1, mark + _REACH) if mark else None
        if found is not None and found.end() >= done:
            parts += (view[done : found.end()], b"true")
            done = found.end() + len(b"false")
    return b"".join((*parts, view[done:])) if parts else raw


async def has_marks(raw: bytes) -> bool:
    """Return whether there may be references in a message's JSON, however large it is."""
    return await _find(raw, 0) >= 0


async def _marks_in(raw: bytes) -> list[int]:
    marks: list[int] = []
    at = await _find(raw, 0)
    while at >= 0:
        marks.append(at)
        if len(marks) > MAX_MARKS:
            raise ValueRefused(f"a value has more than {MAX_MARKS} references, or marks of them")
        if len(marks) % _MARKS_AT_ONCE == 0:
            await asyncio.sleep(0)
        at = await _find(raw, at + len(RAW_MARK))
    return marks


async def _find(raw: bytes, at: int) -> int:
    """Return the position of the next mark, or -1. Other tasks have their turn meanwhile."""
    while len(raw) - at > _STEP:
        found = raw.find(RAW_MARK, at, at + _STEP)
        if found >= 0:
            return found
        at += _STEP - len(RAW_MARK) + 1
        await asyncio.sleep(0)
    return raw.find(RAW_MARK, at)
