"""List of a message's references in its metadata, so that its values need not be searched for them.

Our own programs list the id of each reference of a message. A message without a list has none, unless it comes from a
program that sends no lists, such as one in Elixir. A message with more than `MAX_LISTED` has `UNLISTED` as its list.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from snakepit_otel.bridge.wire.methods import REFERENCES
from snakepit_otel.errors import ReferenceMisused, ValueRefused
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._scope import Scope

MAX_LISTED = 1_024
UNLISTED = "*"
_ID_DIGITS = 32
MAX_LIST_CHARACTERS = MAX_LISTED * _ID_DIGITS
_DIGITS = re.compile("[0-9a-f]*")


def list_of(ids: Collection[str]) -> str:
    """Return a list of reference ids as metadata have it."""
    return "".join(ids) if len(ids) <= MAX_LISTED else UNLISTED


def listed_ids(text: str | None) -> list[str] | None:
    """Return the ids of a list; None if there is no list, or `UNLISTED` in place of it.

    Raises `ValueRefused` for what is no list, or too long.
    """
    if text is None or text == UNLISTED:
        return None
    if len(text) > MAX_LIST_CHARACTERS or len(text) % _ID_DIGITS or not _DIGITS.fullmatch(text):
        raise ValueRefused(
            f"metadata {REFERENCES} is {text!r:.60}; it must be at most {MAX_LISTED} ids of 32 hexadecimal digits each"
        )
    return [text[start : start + _ID_DIGITS] for start in range(0, len(text), _ID_DIGITS)]


class Incoming:
    """Opens the references of one received message on behalf of `scope`: those in `listed`, or any if that is None.

    A reference with its content in it need not be listed, if the message has a list. All methods raise
    `ReferenceMisused` for a reference that is not listed, and what the scope's methods raise.
    """

    __slots__ = ("_listed", "_scope")

    def __init__(self, scope: Scope | None, listed: Collection[str] | None) -> None:
        self._scope = scope
        self._listed = listed

    @classmethod
    def of(cls, scope: Scope, text: str | None) -> Incoming:
        """Return the opener of the references of a message from one of our programs, with its list, if it has one."""
        if text is None:
            return _NOTHING_LISTED
        if not text:
            return cls(scope, ())
        ids = listed_ids(text)
        return cls(scope, None if ids is None else frozenset(ids))

    def receive(self, form: dict[str, Any]) -> Any:
        """Return the reference of a JSON form."""
        return self._checked(form).receive(form)

    def take(self, form: dict[str, Any]) -> Any:
        """Return the array or the table of a JSON form; its reference is spent."""
        return self._checked(form).take(form)

    def take_unless_copied(self, form: dict[str, Any]) -> Any:
        """Return as `take` does, or the form itself as long as the scope has bytes to fetch."""
        scope = self._checked(form)
        scope.receive(form)
        return form if scope.to_fetch else scope.take(form)

    def _checked(self, form: dict[str, Any]) -> Scope:
        scope, listed, ref = self._scope, self._listed, form.get("ref")
        if scope is not None and (listed is None or (isinstance(ref, str) and ref in listed)):
            return scope
        description = Description.from_json(form)
        if scope is None or description.data is None:
            raise ReferenceMisused(
                f"reference {description.ref[:8]} is not in the list of its message ({REFERENCES}): a reference is "
                "opened only in a message that it was passed to as a reference"
            )
        return scope


_NOTHING_LISTED = Incoming(None, ())
