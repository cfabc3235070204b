"""Adapter whose tools use references as allowed and as forbidden. Loaded by workers only."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from snakepit_otel import BaseAdapter, tool, zero_copy
from snakepit_otel.testing import Capture
from snakepit_otel.zero_copy._reference import Reference

SPANS = {"create reference", "release reference"}
# What this process emits, for the tools that return it; nothing else has set it up.
capture = Capture()


def tried(function: Any, *arguments: Any) -> str:
    """Return what a call raised, as `type: message`, or nothing."""
    try:
        function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


class Sharing(BaseAdapter):
    """Tools that are given references, and give them."""

    kept: ClassVar[list[Any]] = []

    @tool
    def first(self, t: Any) -> Any:
        """Return the first element."""
        return t.to_numpy().reshape(-1)[0].item()

    @tool
    def total(self, **values: Any) -> float:
        """Return the sum of all arrays at any depth."""

        def add(value: Any) -> float:
            if isinstance(value, Reference):
                return float(value.to_numpy().sum())
            if isinstance(value, dict):
                return sum(map(add, value.values()))
            return sum(map(add, value)) if isinstance(value, list) else 0.0

        return add(values)

    @tool
    def describe(self, t: Any) -> dict[str, Any]:
        """Tell what can be known of a reference."""
        return {
            "kind": t.kind,
            "owner": t.owner,
            "device": t.device,
            "dtype": t.dtype,
            "shape": list(t.shape),
            "bytes": t.bytes,
            "copy": t.copy,
            "released": t.released,
        }

    @tool
    def echo(self, value: Any) -> Any:
        """Return what came in."""
        return value

    @tool
    def same(self, one: Any, two: Any) -> bool:
        """Say whether two arguments are one reference."""
        return one is two

    @tool
    def double(self, t: Any) -> Any:
        """Return an array that is made where it is to be read."""
        given = t.to_numpy()
        made = zero_copy.empty(given.shape, given.dtype)
        np.multiply(given, 2, out=made)
        return made

    @tool
    def make(self, size: int, form: str = "array") -> Any:
        """Return an array, a table, or references to them, plain or nested."""
        array = np.full(size, 7.0)
        table = pa.table({"a": array})
        made: dict[str, Any] = {
            "array": array,
            "table": table,
            "arrow": pa.array(["x", None] * size),
            "reference": zero_copy.from_numpy(array) if form == "reference" else None,
            "tables_reference": zero_copy.from_arrow(table) if form == "tables_reference" else None,
            "nested": {"list": [array, {"table": table}, 1], "scalar": 2},
            "bytes": b"abc",
        }
        return made[form]

    @tool
    def fail(self, t: Any) -> None:
        """Fail with views in hand."""
        view = t.to_numpy()
        other = np.from_dlpack(t)
        raise ValueError(f"no {view[0] + other[0]}")

    @tool
    def keep(self, t: Any, what: str = "reference") -> None:
        """Keep the reference, or a view of it, for later."""
        self.kept.append(t if what == "reference" else t.to_numpy())

    @tool
    def keep_own(self, release: bool = False) -> None:
        """Keep a reference of one's own for later."""
        made = zero_copy.from_numpy(np.arange(10.0))
        self.kept.append(made)
        if release:
            made.release()

    @tool
    def kept_works(self) -> list[str]:
        """Return what comes of using what was kept."""
        used = [tried(kept.to_numpy) if isinstance(kept, Reference) else f"sum {kept.sum()}" for kept in self.kept]
        self.kept.clear()
        return used

    @tool
    def return_kept(self, nested: bool = False) -> Any:
        """Return what an earlier request had."""
        kept = self.kept.pop()
        return [{"kept": kept}] if nested else kept

    @tool
    def pass_on_kept(self) -> Any:
        """Pass what an earlier request had to the authority."""
        return self.session_context.call_elixir_tool("there", t=self.kept.pop())

    @tool
    async def wait(self, t: Any, marker: str) -> Any:
        """Keep the reference, write the marker, and wait without end."""
        self.kept.append(t)
        Path(marker).touch()
        await asyncio.Event().wait()

    @tool
    def misuse(self, t: Any) -> dict[str, str]:
        """Return what comes of doing what must not be done."""
        state = self.session_context.state
        return {
            "pickle": tried(pickle.dumps, t),
            "copy": tried(copy.copy, t),
            "deepcopy": tried(copy.deepcopy, [t]),
            "json": tried(json.dumps, {"t": t}),
            "orjson": tried(orjson.dumps, t),
            "state": tried(state.__setitem__, "x", t),
            "nested state": tried(state.__setitem__, "x", {"a": [1, {"b": t}]}),
            "update": tried(lambda: state.update({"x": (t,)})),
            "change": tried(lambda: state.change("x", lambda _: [t], default=None)),
            "written": str("x" in state),
        }

    @tool
    def release(self, t: Any) -> list[str]:
        """Release by hand, twice, and by `with`, and use what is left."""
        view = t.to_numpy()
        t.release()
        t.release()
        with zero_copy.from_numpy(np.arange(3)) as own:
            own.to_numpy()
        return [tried(t.to_numpy), tried(own.to_numpy), str(float(view.sum())), f"{t.released}"]

    @tool
    def return_released(self) -> Any:
        """Return a reference that is of no more use."""
        with zero_copy.from_numpy(np.arange(3)) as own:
            return own

    @tool
    def chunks(self, t: Any, count: int = 3) -> Iterator[Any]:
        """Yield arrays, tables and references."""
        given = t.to_numpy()
        for number in range(count):
            if number % 3 == 0:
                yield given + number
            else:
                yield pa.table({"a": given}) if number % 3 == 1 else zero_copy.from_numpy(given * 2)

    @tool
    async def endless(self, t: Any) -> AsyncIterator[Any]:
        """Yield arrays without end."""
        self.kept.append(t)
        while True:
            yield t.to_numpy() + 1

    @tool
    def call(self, name: str, t: Any = None) -> Any:
        """Call a tool of the authority with a reference, with an array of one's own, and use what it returns."""
        own = zero_copy.from_numpy(np.ones(5_000))
        given = {} if t is None else {"t": t}
        return self.session_context.call_elixir_tool(name, own=own, array=np.ones(10), **given)

    @tool
    def call_and_use(self) -> dict[str, Any]:
        """Use what a tool of the authority returns as a reference, and return what it was."""
        got = self.session_context.call_elixir_tool("give", size=5_000)
        return {"type": type(got).__name__, "owner": got.owner, "sum": float(got.to_numpy().sum())}

    @tool
    def call_and_return(self) -> Any:
        """Return the reference that a tool of the authority returned."""
        return self.session_context.call_elixir_tool("give", size=5_000)

    @tool
    def forget(self) -> int:
        """Make a reference for nothing."""
        zero_copy.from_numpy(np.arange(10.0))
        return 1

    @tool
    def clear(self) -> None:
        """Forget all telemetry so far, and what was kept."""
        self.kept.clear()
        capture.clear()

    @tool
    def points(self) -> dict[str, list[Any]]:
        """Return this worker's data points about references since the last look."""
        found = capture.metrics().items()
        return {
            name: [[point.value, point.count, point.attributes] for point in points if point.value]
            for name, points in found
            if ".zero_copy." in name and any(point.value for point in points)
        }

    @tool
    def spans(self) -> list[Any]:
        """Return this worker's spans about references."""
        return [[span.name, span.trace_id, span.attributes] for span in capture.spans() if span.name in SPANS]

    @tool
    def events(self) -> list[Any]:
        """Return this worker's events about references."""
        return [
            [event.name, event.trace_id, event.attributes] for event in capture.events() if "zero_copy" in event.name
        ]

    @tool
    def has_kept(self) -> list[str]:
        """Say what became of what was kept, without using it up."""
        return [tried(kept.to_numpy) for kept in self.kept if isinstance(kept, Reference)]


class Dying(BaseAdapter):
    """A tool that takes the worker with it."""

    @tool
    def die(self, t: Any) -> None:
        """End the process, at once."""
        t.to_numpy()
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def call_and_die(self) -> None:
        """Hand over an array to the authority, and end the process before the request does."""
        self.session_context.call_elixir_tool("there", own=zero_copy.from_numpy(np.ones(5_000)))
        os.kill(os.getpid(), signal.SIGKILL)
