"""Tools of an adapter for hostile, dying and non-sharing peers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from snakepit_otel import BaseAdapter, tool, zero_copy


class Hostile(BaseAdapter):
    """What tests of safety call."""

    @tool
    def total(self, t: Any) -> float:
        """Sum a tensor."""
        return float(np.asarray(t.to_numpy()).sum())

    @tool
    def rows(self, t: Any) -> int:
        """Count the rows of a table."""
        return int(pa.table(t).num_rows)

    @tool
    def double(self, t: Any) -> Any:
        """Return twice a tensor."""
        array = t.to_numpy()
        out = zero_copy.empty(array.shape, array.dtype)
        np.multiply(array, 2, out=out)
        return {"out": out, "copied": t.copy}

    @tool
    def head(self, t: Any) -> Any:
        """Return most of a table, and whether it was copied to get here."""
        return {"deep": [{"table": pa.table(t).slice(1)}], "copied": t.copy}

    @tool
    def what(self, t: Any) -> dict[str, Any]:
        """Return the attributes of an argument that is not opened."""
        if not isinstance(t, zero_copy.Reference):
            return {"type": type(t).__name__, "value": t}
        return {"type": type(t).__name__, "kind": t.kind, "dtype": t.dtype, "shape": t.shape, "copy": t.copy}

    @tool
    def make(self, length: int) -> Any:
        """Return a tensor."""
        return np.arange(length, dtype="f8")

    @tool
    def make_many(self, count: int, length: int) -> Any:
        """Return many tensors."""
        return [np.full(length, number, "u1") for number in range(count)]

    @tool
    def make_copies(self, length: int) -> Any:
        """Return a view of one element that claims to have many."""
        return np.broadcast_to(np.float64(1), (length,))

    @tool
    def several(self, t: Any) -> Iterator[Any]:
        """Yield three tensors."""
        for number in range(3):
            yield {"part": t.to_numpy() + number}

    @tool
    def pid(self) -> int:
        """Return this process' id."""
        return os.getpid()

    @tool
    def die(self, t: Any) -> None:
        """Die with a reference in hand."""
        t.to_numpy()
        os.kill(os.getpid(), signal.SIGKILL)
