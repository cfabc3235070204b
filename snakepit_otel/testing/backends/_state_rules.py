"""Rules for the state of sessions, as a state machine."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from snakepit_otel.sessions import _state as state
from snakepit_otel.testing.backends._comparison import Comparison
from snakepit_otel.testing.backends._model import REMOVED

PICKS = st.integers(0, 7)
KEYS = st.sampled_from(["k", "l", "schlüssel"])
VALUES = st.sampled_from(
    [None, True, 0, -7, 2.5, "text", "ünï€", [1, [2, "\n"]], {"a": {"b": None}}, "x" * 100, "y" * 100, "z" * 300]
)
CHANGES = st.dictionaries(KEYS, st.one_of(VALUES, st.just(REMOVED)), max_size=3)


class StateRules(Comparison):
    """Reads and writes the state of sessions that are there, or have expired."""

    @rule(pick=PICKS)
    def read_state(self, pick: int) -> None:
        """Read the versions of all keys."""
        session_id = self.picked(pick)
        self.same(self.store.list_state(session_id), lambda: self.model.find(session_id).versions)

    @rule(pick=PICKS, key=KEYS)
    def read_value(self, pick: int, key: str) -> None:
        """Read one value."""
        session_id = self.picked(pick)
        self.same(self.store.get_state(session_id, key), lambda: self.model.find(session_id).state.get(key))

    @rule(pick=PICKS, key=KEYS, value=VALUES)
    def set_state(self, pick: int, key: str, value: Any) -> None:
        """Write one value."""
        session_id = self.picked(pick)
        self.wrote(self.store.set_state(session_id, key, value), lambda: self.model.write(session_id, {key: value}))

    @rule(pick=PICKS, key=KEYS, value=VALUES, error=st.sampled_from([0, 0, -1, 1]))
    def compare_and_set(self, pick: int, key: str, value: Any, error: int) -> None:
        """Write one value if it is at a version."""
        session_id = self.picked(pick)
        known = {session.id: session.versions for session in self.model.live}
        version = max(0, known.get(session_id, {}).get(key, 0) + error)
        self.wrote(
            self.store.compare_and_set(session_id, key, value, version),
            lambda: self.model.write(session_id, {key: value}, if_versions={key: version}),
        )

    @rule(pick=PICKS, changes=CHANGES, error=st.sampled_from([None, 0, 0, -1, 1]))
    def write(self, pick: int, changes: dict[str, Any], error: int | None) -> None:
        """Write several values, perhaps at a version of the session."""
        session_id = self.picked(pick)
        known = {session.id: session.version for session in self.model.live}
        version = None if error is None else known.get(session_id, 0) + error
        raw = {key: None if value is REMOVED else state.encode(key, value) for key, value in changes.items()}
        self.wrote(
            self.store.write(session_id, raw, if_version=version),
            lambda: self.model.write(session_id, changes, if_version=version),
        )

    @rule(pick=PICKS, key=KEYS)
    def delete_state(self, pick: int, key: str) -> None:
        """Remove one value."""
        session_id = self.picked(pick)
        there = self.same(self.store.list_state(session_id), lambda: self.model.find(session_id).versions)
        if there is None or key not in there:
            self.same(self.store.delete_state(session_id, key), lambda: self.model.find(session_id) is None)
            return
        assert self.run(self.store.delete_state(session_id, key)) is True
        self.number(self.model.write(session_id, {key: REMOVED}))

    @rule(pick=PICKS, changes=CHANGES, in_place=st.booleans())
    def update(self, pick: int, changes: dict[str, Any], in_place: bool) -> None:
        """Change the state by a function."""
        session_id = self.picked(pick)

        def change(current: dict[str, Any]) -> dict[str, Any] | None:
            for key, value in changes.items():
                current.pop(key, None)
                if value is not REMOVED:
                    current[key] = value
            return None if in_place else dict(current)

        def expected() -> dict[str, Any]:
            before = self.model.find(session_id).state
            written = {
                key: value
                for key, value in changes.items()
                if (key in before if value is REMOVED else key not in before or before[key] != value)
            }
            return self.model.write(session_id, written).state if written else before

        self.same(self.store.update(session_id, change), expected)
        for session in self.model.live:
            if session.version < 0:
                self.number(session)
