"""A zero-copy reference is opened for a parameter that is annotated as what it refers to."""

from __future__ import annotations

import collections.abc as abc
import sys
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, Final, NamedTuple, NewType, Optional, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import typing_extensions
from pydantic import BaseModel, ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass

from snakepit_otel import BaseAdapter, tool, zero_copy
from snakepit_otel.adapters._arguments import ArgumentCheck
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


class Record(typing_extensions.TypedDict):
    array: npt.NDArray[np.float64]


class PlainRecord(TypedDict):
    array: np.ndarray


class Tuple(NamedTuple):
    array: np.ndarray


@dataclass
class Data:
    array: np.ndarray


class Model(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    array: np.ndarray
    number: int = 0


@pydantic_dataclass(config=ConfigDict(arbitrary_types_allowed=True))
class ModelData:
    array: np.ndarray


Image = typing_extensions.TypeAliasType("Image", np.ndarray)
Images = typing_extensions.TypeAliasType("Images", "list[Images] | npt.NDArray[np.float64]")
Element = TypeVar("Element")
Several = typing_extensions.TypeAliasType("Several", list[Element] | None, type_params=(Element,))
Gray = NewType("Gray", np.ndarray)
Bound = TypeVar("Bound", bound=np.ndarray)


@pytest.mark.parametrize(
    ("annotation", "wrap", "unwrap"),
    [
        (Annotated[np.ndarray, "height by width"], None, None),
        (Annotated[npt.NDArray[Any], "any"] | None, None, None),
        (Image, None, None),
        (Image | int, None, None),
        (Gray, None, None),
        (Bound, None, None),
        (Final[np.ndarray], None, None),
        (int | str | npt.NDArray[np.float64], None, None),
        (npt.ArrayLike, None, None),
        (Images, lambda ref: [[ref]], lambda got: got[0][0]),
        (Several[Image], lambda ref: [ref], lambda got: got[0]),
        (list[Annotated[Image, 1]], lambda ref: [ref], lambda got: got[0]),
        (tuple[np.ndarray, ...], lambda ref: [ref], lambda got: got[0]),
        (abc.Sequence[np.ndarray], lambda ref: [ref], lambda got: got[0]),
        (abc.Iterable[np.ndarray], lambda ref: [ref], lambda got: got[0]),
        (abc.Collection[np.ndarray], lambda ref: [ref], lambda got: got[0]),
        (deque[np.ndarray], lambda ref: [ref], lambda got: got[0]),
        (abc.Mapping[str, np.ndarray], lambda ref: {"a": ref}, lambda got: got["a"]),
        (dict[str, abc.Collection[Gray | None]], lambda ref: {"a": [ref]}, lambda got: got["a"][0]),
        (dict[str, npt.ArrayLike], lambda ref: {"a": ref}, lambda got: got["a"]),
        (Record, lambda ref: {"array": ref}, lambda got: got["array"]),
        (PlainRecord, lambda ref: {"array": ref}, lambda got: got["array"]),
        (list[PlainRecord], lambda ref: [{"array": ref}], lambda got: got[0]["array"]),
        (Tuple, lambda ref: [ref], lambda got: got.array),
        (Data, lambda ref: {"array": ref}, lambda got: got.array),
        (Model, lambda ref: {"array": ref}, lambda got: got.array),
        (ModelData, lambda ref: {"array": ref}, lambda got: got.array),
    ],
    ids=lambda value: None if isinstance(value, types.FunctionType) else str(value),
)
def test_arrays_whichever_way_the_type_is_written(
    annotation: Any, wrap: Callable[[Any], Any] | None, unwrap: Callable[[Any], Any] | None
) -> None:
    """Aliases, metadata, containers and records are looked through, at any depth."""
    got = checked(annotation, wrap(tensor()) if wrap else tensor())
    array = unwrap(got) if unwrap else got
    assert type(array) is np.ndarray
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", [np.matrix, np.ma.MaskedArray, np.recarray])
def test_subclasses_of_arrays(kind: Any) -> None:
    """A parameter for a subclass of NumPy's array gets one of that."""
    assert type(checked(kind, zero_copy.from_numpy(np.zeros((2, 3))))) is kind


@pytest.mark.parametrize("annotation", [Annotated[pa.Table, "rows"], abc.Sequence[pa.Table], Optional[pa.Table]])  # noqa: UP045 - as above
def test_tables_whichever_way_the_type_is_written(annotation: Any) -> None:
    """It is the same for what Arrow has."""
    many = annotation == abc.Sequence[pa.Table]
    got = checked(annotation, [table()] if many else table())
    assert (got[0] if many else got).num_rows == 2


def test_a_model_with_an_array_decides_for_itself_still() -> None:
    """That references are opened within it makes a pydantic model no stricter than it is."""
    assert checked(Model, {"array": tensor(), "number": "7"}).number == 7


def test_keyword_arguments_that_are_arrays() -> None:
    """`**arrays` annotated as arrays gets arrays, and refuses what is none."""

    def function(self: Any, **arrays: np.ndarray) -> None: ...

    check = ArgumentCheck("tool", function)
    assert type(check({"a": tensor()})["a"]) is np.ndarray
    with pytest.raises(InvalidArguments, match="'a': input should be an instance of ndarray"):
        check({"a": 1})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is of Python 3.12")
def test_the_type_statement() -> None:
    """Aliases of the language's own, recursive and generic ones among them, are looked through."""
    names: dict[str, Any] = {"np": np, "npt": npt, "Any": Any}
    exec(
        "type Image = npt.NDArray[np.float64]\n"
        "type Nested = list[Nested] | Image\n"
        "type Many[T] = list[T] | dict[str, T]\n"
        "def nested(self, x: Nested): ...\n"
        "def many(self, x: Many[Image]): ...\n"
        "def bound[T: np.ndarray](self, x: T): ...\n",
        names,
    )
    assert type(ArgumentCheck("t", names["nested"])({"x": [[tensor()]]})["x"][0][0]) is np.ndarray
    assert type(ArgumentCheck("t", names["many"])({"x": {"a": tensor()}})["x"]["a"]) is np.ndarray
    assert type(ArgumentCheck("t", names["bound"])({"x": tensor()})["x"]) is np.ndarray
