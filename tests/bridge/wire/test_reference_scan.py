"""References in JSON that is not parsed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from snakepit_otel.bridge.wire.reference_scan import MAX_MARKS, has_marks, ids_in, labelled_as_copies
from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import ValueRefused
from snakepit_otel.zero_copy._descriptor import Description, Kind, Owner

_WRITERS = [
    orjson.dumps,
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, indent=2, sort_keys=True).encode(),
]


def _description(number: int) -> dict[str, Any]:
    return Description(
        Kind.DLPACK, Owner.PYTHON, f"{number:032x}", 400, "float32", (10, 10), strides=(40, 4), data=b"x" * number
    ).to_json()


@pytest.mark.parametrize("write", _WRITERS, ids=["compact", "spaced", "sorted"])
async def test_references_are_found_however_they_are_written(write: Callable[[Any], bytes]) -> None:
    """Each reference's id is found, deep inside and far behind, and none where there is no mark."""
    value = {"a": [_description(1), "x" * 600_000, {"b": _description(2)}], "ref": "f" * 32}
    assert await ids_in(write(value)) == {f"{1:032x}", f"{2:032x}"}
    assert await ids_in(write({"ref": "f" * 32})) == set()
    assert await has_marks(write(value))
    assert not await has_marks(write({"ref": "f" * 32, "text": "_" * 1_000_000}))


@pytest.mark.parametrize("write", _WRITERS, ids=["compact", "spaced", "sorted"])
async def test_only_references_are_labelled(write: Callable[[Any], bytes]) -> None:
    """A reference says that it is copied; what only looks like one, or lies beside it, stays as it is."""
    text = f'{{"{ZERO_COPY}": true, "copy": false}}'
    value = {"a": [_description(1), _description(2)], "copy": False, "text": text, ZERO_COPY: False}
    labelled = json.loads(await labelled_as_copies(write(value)))
    assert [reference["copy"] for reference in labelled["a"]] == [True, True]
    assert labelled == value | {"a": [part | {"copy": True} for part in value["a"]]}  # type: ignore[attr-defined]


async def test_too_many_marks_are_refused() -> None:
    """A value made of nothing but marks is refused, after as many as are looked at."""
    raw = orjson.dumps([ZERO_COPY] * (MAX_MARKS + 1))
    for look in (ids_in, labelled_as_copies):
        with pytest.raises(ValueRefused, match=f"more than {MAX_MARKS} references"):
            await look(raw)


async def test_others_have_their_turns_meanwhile() -> None:
    """The search through a large value is made in many steps, however much it looks like marks."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(take_turns())
    assert not await has_marks(b"_" * (8 << 20))
    other.cancel()
    assert turns > 20
