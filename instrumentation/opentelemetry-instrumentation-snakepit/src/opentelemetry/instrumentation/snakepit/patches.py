"""What is put in place of others' attributes, and the way back to the very objects that were there."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import wrapt
from opentelemetry.instrumentation.snakepit.seam import contain, quietly
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

Around = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""What is called in place of a function: with it, the object it is bound to, and its arguments."""
_MISSING = object()


class _Place(NamedTuple):
    """An attribute that was replaced."""

    parent: Any
    attribute: str
    original: Any
    """As it lay in the parent's own namespace, or `_MISSING` if it was inherited."""
    replacement: Any


class Patches:
    """All that was replaced. What is wrapped is plain while `on` is false, or instrumentation is suppressed."""

    def __init__(self) -> None:
        self.on = True
        self.serving = False
        """Whether there is a servicer whose requests are seen."""
        self._places: list[_Place] = []
        self._undone: list[Callable[[], Any]] = []
        self._instances: weakref.WeakKeyDictionary[Any, list[_Place]] = weakref.WeakKeyDictionary()

    @property
    def places(self) -> tuple[tuple[Any, str, Any], ...]:
        """What was replaced in modules and classes: the parent, the attribute, and what stands there now."""
        return tuple((place.parent, place.attribute, place.replacement) for place in self._places)

    def enabled(self) -> bool:
        """Say whether anything is to be observed."""
        return self.on and is_instrumentation_enabled()

    def is_enabled(self) -> bool:
        """Say the same where the program waits for the answer."""
        return quietly("asking whether to observe", self.enabled) is True

    def wrap(self, parent: Any, path: str, around: Around) -> None:
        """Have `around` called in place of the function at `path`, unless it is so already.

        A path that leads nowhere is reported, then it is another version, of which that much is not seen; and so is
        a parent that takes no attributes, as a compiled class does not.
        """
        try:
            *way, attribute = path.split(".")
            for step in way:
                parent = getattr(parent, step)
            original = inspect.getattr_static(parent, attribute)
            known = next((place for place in self._places if place.replacement is original), None)
            if known is None:
                self.replace(parent, attribute, wrapt.FunctionWrapper(original, around, enabled=self.is_enabled))
                return
        except Exception as error:  # noqa: BLE001 - what is not there, or is not to be changed, is not wrapped
            contain(f"wrapping {getattr(parent, '__name__', parent)}.{path}", error)
            return
        if attribute in vars(parent) and not any(place[:2] == (parent, attribute) for place in self._places):
            # Another module's name for what was wrapped where it is defined, before the other took it from there.
            self._places.append(_Place(parent, attribute, known.original, original))

    def replace(self, parent: Any, attribute: str, replacement: Any) -> None:
        """Put something in place of an attribute of a module or a class."""
        original = vars(parent).get(attribute, _MISSING)
        setattr(parent, attribute, replacement)
        self._places.append(_Place(parent, attribute, original, replacement))

    def replace_in(self, instance: Any, attribute: str, replacement: Any) -> None:
        """Put something in place of an instance's attribute, for as long as others keep the instance."""
        original = vars(instance).get(attribute, _MISSING)
        # First what can be refused, by an instance that is no key.
        self._instances.setdefault(instance, []).append(_Place(None, attribute, original, replacement))
        setattr(instance, attribute, replacement)

    def afterwards(self, undo: Callable[[], Any]) -> None:
        """Have something else undone by `restore`."""
        self._undone.append(undo)

    def restore(self) -> None:
        """Put everything back, the last first, but for what somebody else has replaced in turn."""
        self.on = False
        places, self._places = self._places, []
        instances, self._instances = self._instances, weakref.WeakKeyDictionary()
        while self._undone:
            quietly("undoing", self._undone.pop())
        for place in reversed(places):
            quietly(f"putting back {place.attribute}", _put_back, place.parent, place)
        for instance, its_places in instances.items():
            for place in reversed(its_places):
                quietly(f"putting back {place.attribute}", _put_back, instance, place)


def _put_back(parent: Any, place: _Place) -> None:
    if vars(parent).get(place.attribute) is not place.replacement:
        # Somebody has wrapped it once more. What is wrapped is off, and does nothing.
        return
    if place.original is _MISSING:
        delattr(parent, place.attribute)
    else:
        setattr(parent, place.attribute, place.original)
