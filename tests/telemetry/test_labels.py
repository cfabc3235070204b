"""Values of attributes that callers could otherwise make up."""

from __future__ import annotations

from snakepit_otel.telemetry import Labels


def test_known_names_are_kept_and_others_are_not() -> None:
    """Where the names are known, only they get through."""
    labels = Labels()
    assert [labels.of(name, {"a", "b"}) for name in ("a", "b", "c")] == ["a", "b", "_OTHER"]


def test_where_nothing_is_known_the_first_hundred_are_kept() -> None:
    """An adapter that takes any name cannot be made to fill the metrics with them."""
    labels = Labels()
    assert [labels.of(f"tool-{number}", ()) for number in range(100)] == [f"tool-{number}" for number in range(100)]
    assert labels.of("tool-100", ()) == "_OTHER"
    assert labels.of("tool-99", ()) == "tool-99"


def test_long_names_are_not_kept() -> None:
    """No registered tool has a name of more than 64 characters, so none is kept."""
    assert Labels().of("x" * 65, ()) == "_OTHER"
