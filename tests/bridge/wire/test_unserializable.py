"""Conversions of values that JSON cannot carry."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from snakepit_otel.bridge.wire.codec import encode_result, to_json
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.telemetry.environment import faults


class Opaque:
    """Offers no conversion."""

    def __init__(self, text: str = "opaque") -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def standing_in(value: Any, **environ: str) -> Any:
    """Return what a value becomes under these variables."""
    variables = {f"SNAKEPIT_{name}": text for name, text in environ.items()}
    return orjson.loads(to_json(value, Unserializable.from_environment(variables)))


@pytest.mark.parametrize("method", ["model_dump", "to_dict", "_asdict", "tolist", "isoformat"])
def test_conversions_that_a_value_offers(method: str) -> None:
    """Each known conversion is used where it is offered, at any depth."""
    converted = type("Converting", (), {method: lambda self: {"said": method}})()
    assert standing_in({"inner": [converted]}) == {"inner": [{"said": method}]}


def test_the_first_conversion_that_works_is_taken() -> None:
    """A conversion that fails, or whose look-up fails, is passed over for the next."""

    class Halting:
        @property
        def model_dump(self) -> Any:
            raise RuntimeError("not ready")

        def to_dict(self) -> Any:
            raise ValueError("no")

        def isoformat(self) -> str:
            return "in the end"

    assert standing_in(Halting()) == "in the end"


def test_a_marker_names_the_type_and_nothing_else() -> None:
    """By default the marker has module and class; the repr may say more than the caller should know."""
    marker = {"__ffi_unserializable__": True, "__type__": f"{__name__}.Opaque"}
    assert standing_in(Opaque("secret")) == marker
    assert standing_in([1, {"deep": Opaque()}]) == [1, {"deep": marker}]
    assert standing_in(b"bytes") == {"__ffi_unserializable__": True, "__type__": "builtins.bytes"}


def test_a_marker_names_a_nested_class_plainly() -> None:
    """The name of a class has nothing of the classes and functions around it, as upstream's markers have it."""

    class Inner:
        class Innermost:
            pass

    for made in (Inner(), Inner.Innermost()):
        assert standing_in(made)["__type__"] == f"{__name__}.{type(made).__name__}"
        assert "<locals>" not in standing_in(made)["__type__"]


def test_the_repr_comes_on_request() -> None:
    """`SNAKEPIT_UNSERIALIZABLE_DETAIL` decides how much is told."""
    assert standing_in(Opaque(), UNSERIALIZABLE_DETAIL="none") == {"__ffi_unserializable__": True}
    assert "__repr__" not in standing_in(Opaque(), UNSERIALIZABLE_DETAIL="type")
    assert standing_in(Opaque(), UNSERIALIZABLE_DETAIL="repr_truncated")["__repr__"] == "opaque"


@pytest.mark.parametrize(("limit", "length"), [("10", 10), ("0", 0), ("9999", 2000), ("-1", 0)])
def test_the_repr_is_cut(limit: str, length: int) -> None:
    """`SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN` limits it, and 2000 limits that."""
    marker = standing_in(Opaque("x" * 5_000), UNSERIALIZABLE_DETAIL="repr_truncated", UNSERIALIZABLE_REPR_MAXLEN=limit)
    assert len(marker["__repr__"]) == length


@pytest.mark.parametrize(
    "text", ["<Client api_key='hunter2'>", "token: hunter2", "{'password': 'hunter2'}", "Authorization=hunter2"]
)
def test_what_looks_like_a_secret_is_redacted(text: str) -> None:
    """`repr_redacted_truncated` takes out what follows the usual words for secrets."""
    marker = standing_in(Opaque(text), UNSERIALIZABLE_DETAIL="repr_redacted_truncated")
    assert "hunter2" not in marker["__repr__"]
    assert "<redacted>" in marker["__repr__"]


def test_a_repr_that_fails_is_told_as_such() -> None:
    """A broken repr does not break the answer."""
    marker = standing_in(Silent(), UNSERIALIZABLE_DETAIL="repr_truncated")
    assert marker["__repr__"] == "<repr failed: RuntimeError>"


def test_a_large_array_is_not_written_out() -> None:
    """`SNAKEPIT_TOLIST_MAX_ELEMENTS` keeps large arrays from becoming lists."""
    assert standing_in(np.zeros(3), TOLIST_MAX_ELEMENTS="3") == [0.0, 0.0, 0.0]
    assert standing_in(np.zeros(4), TOLIST_MAX_ELEMENTS="3")["__type__"] == "numpy.ndarray"


def test_subclasses_of_plain_types_are_plain() -> None:
    """A subclass of text, number, list or dict goes out as what it is at heart; a class itself is marked."""
    for kind, value in ((str, "a"), (int, 1), (float, 1.5), (list, [1]), (dict, {"a": 1})):
        assert standing_in(type("Sub", (kind,), {})(value)) == value  # type: ignore[call-overload]
    assert standing_in(Opaque) == {"__ffi_unserializable__": True, "__type__": "builtins.type"}


def test_a_marker_is_a_result_of_type_map() -> None:
    """A result that only a marker can stand for travels as a map."""
    assert encode_result(Opaque())[0].type_url.endswith("snakepit.map")


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("SNAKEPIT_UNSERIALIZABLE_DETAIL", "everything", "type"),
        ("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN", "long", "500"),
        ("SNAKEPIT_TOLIST_MAX_ELEMENTS", "1e6", "1000000"),
    ],
)
def test_a_bad_variable_is_named(
    name: str, value: str, taken: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that cannot be is one warning with its name and what is taken; one that is blank is as none."""
    monkeypatch.setattr(faults, "_reported", {})
    for _ in range(2):
        found = Unserializable.from_environment({name: value})
    (said,) = caplog.messages
    assert said.startswith(f"{name} is '{value}', which is no")
    assert said.endswith(f"; {taken} is used")
    assert vars(found) == vars(Unserializable()) == vars(Unserializable.from_environment({name: " "}))
