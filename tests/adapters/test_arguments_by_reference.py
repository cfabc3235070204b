"""A zero-copy reference is opened for a parameter that is annotated as what it refers to."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from snakepit_otel import BaseAdapter, tool, zero_copy
from snakepit_otel.adapters.arguments import ArgumentCheck
from snakepit_otel.errors import InvalidArguments, ReferenceReleased
from snakepit_otel.testing import run_tool


def tensor() -> zero_copy.Reference:
    return zero_copy.from_numpy(np.arange(3))


def table() -> zero_copy.Reference:
    return zero_copy.from_arrow(pa.table({"a": [1, 2]}))


def checked(annotation: Any, value: Any) -> Any:
    """Return what a parameter of this annotation gets."""

    def function(self: Any, value: Any) -> None:
        pass

    function.__annotations__["value"] = annotation
    return ArgumentCheck("tool", function)({"value": value})["value"]


@pytest.mark.parametrize(
    "annotation",
    [np.ndarray, npt.NDArray[np.int64], np.ndarray | None, Optional[np.ndarray]],  # noqa: UP045 - both spellings
)
def test_arrays(annotation: Any) -> None:
    """NumPy's annotations get the array, read-only, also where it may be missing."""
    got = checked(annotation, tensor())
    assert isinstance(got, np.ndarray)
    assert got.tolist() == [0, 1, 2]
    assert not got.flags.writeable


def test_containers() -> None:
    """Arrays within lists, tuples and dicts are opened, too; what is an array already is left alone."""
    mine = np.ones(1)
    assert checked(list[np.ndarray], [tensor(), mine])[1] is mine
    assert checked(dict[str, np.ndarray], {"a": tensor()})["a"].tolist() == [0, 1, 2]
    first, second = checked(tuple[np.ndarray, int], [tensor(), 1])
    assert (first.tolist(), second) == ([0, 1, 2], 1)


def test_tables() -> None:
    """PyArrow's annotations get what they say, from a reference to that."""
    assert checked(pa.Table, table()).num_rows == 2
    assert checked(pa.Array, zero_copy.from_arrow(pa.array([1]))).to_pylist() == [1]


def test_tensors_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's annotation gets what its own from_dlpack makes of the reference."""
    torch = ModuleType("torch")

    class Tensor:
        def __init__(self, value: Any) -> None:
            self.array = np.from_dlpack(value)

    Tensor.__module__ = "torch"
    torch.from_dlpack = Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert checked(Tensor, tensor()).array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("annotation", [Any, zero_copy.Reference, zero_copy.TensorReference, object])
def test_references(annotation: Any) -> None:
    """A parameter that is annotated as a reference, or takes anything, gets the reference."""
    ref = tensor()
    assert checked(annotation, ref) is ref


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (np.ndarray, table, "is a Table, and no array; use to_arrow"),
        (pa.Table, tensor, "instance of Table"),
        (np.ndarray, lambda: 3, "instance of ndarray"),
        (zero_copy.Reference, lambda: np.ones(1), "instance of Reference"),
    ],
)
def test_what_does_not_fit(annotation: Any, value: Any, words: str) -> None:
    """A reference to something else, or no reference, is an argument that the tool does not take."""
    with pytest.raises(InvalidArguments, match=words):
        checked(annotation, value())


class Doubler(BaseAdapter):
    @tool
    def double(self, values: np.ndarray) -> np.ndarray:
        return values * 2

    @tool
    def nested(self, values: Any) -> Any:
        return {"first": values[0].to_numpy() + 1, "same": values[0], "n": len(values)}

    @tool
    def each(self, values: np.ndarray) -> Any:
        yield from (values + number for number in range(2))

    kept: Any = None

    @tool
    def keep(self, values: zero_copy.Reference) -> None:
        Doubler.kept = values


async def test_run_tool_passes_by_reference() -> None:
    """Without a server, arrays reach a tool as in a worker, and come back as to a caller."""
    got = await run_tool(Doubler, "double", {"values": np.ones(5_000)})
    assert (got == 2).all()
    assert not got.flags.writeable
    got = await run_tool(Doubler, "nested", {"values": [np.zeros(3), 1]})
    assert (got["first"].tolist(), got["same"].tolist(), got["n"]) == ([1, 1, 1], [0, 0, 0], 2)
    assert [chunk.tolist() for chunk in await run_tool(Doubler, "each", {"values": np.zeros(2)})] == [[0, 0], [1, 1]]


async def test_run_tool_ends_the_request() -> None:
    """Without a server, too, a reference is of no use after its request."""
    await run_tool(Doubler, "keep", {"values": np.ones(5_000)})
    with pytest.raises(ReferenceReleased, match="a reference lives for one request"):
        Doubler.kept.to_numpy()
