"""Replacements of other packages' attributes, and their restoration."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import wrapt
from opentelemetry.instrumentation.snakepit.program_calls import guarded
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from snakepit_otel.telemetry._guard import guard

Around = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]  # as a wrapper of wrapt
_MISSING = object()


class _Replacement(NamedTuple):
    """A replaced attribute; `original` is `_MISSING` if the parent had inherited it."""

    parent: Any
    attribute: str
    original: Any
    replacement: Any


class Patches:
    """All replacements. Wrappers do nothing while `active` is False or instrumentation is suppressed.

    `serving` is True once a servicer's requests are observed.
    """

    def __init__(self) -> None:
        self.active = True
        self.serving = False
        self._replacements: list[_Replacement] = []
        self._undo: list[Callable[[], Any]] = []
        self._instances: weakref.WeakKeyDictionary[Any, list[_Replacement]] = weakref.WeakKeyDictionary()

    @property
    def replacements(self) -> tuple[tuple[Any, str, Any], ...]:
        """The replacements in modules and classes: parent, attribute and replacement."""
        return tuple(
            (replacement.parent, replacement.attribute, replacement.replacement) for replacement in self._replacements
        )

    def check_enabled(self) -> bool:
        """Return whether the program is observed now. May raise."""
        return self.active and is_instrumentation_enabled()

    def is_enabled(self) -> bool:
        """Return whether the program is observed now; never raises."""
        return guarded("checking whether to observe", self.check_enabled) is True

    def wrap(self, parent: Any, path: str, around: Around) -> None:
        """Wrap the function at `path` with `around`, unless it is wrapped already.

        A path that does not exist, as in another version, is logged and not observed, and so is a parent whose
        attributes cannot be set, such as a compiled class.
        """
        with guard(f"the instrumentation of snakepit, wrapping {getattr(parent, '__name__', parent)}.{path}"):
            *names, attribute = path.split(".")
            for name in names:
                parent = getattr(parent, name)
            original = inspect.getattr_static(parent, attribute)
            same = next((each for each in self._replacements if each.replacement is original), None)
            if same is None:
                self.replace(parent, attribute, wrapt.FunctionWrapper(original, around, enabled=self.is_enabled))
            elif attribute in vars(parent) and not any(each[:2] == (parent, attribute) for each in self._replacements):
                # A wrapped function that this module has imported from the one that defines it.
                self._replacements.append(_Replacement(parent, attribute, same.original, original))

    def replace(self, parent: Any, attribute: str, replacement: Any) -> None:
        """Replace an attribute of a module or a class."""
        original = vars(parent).get(attribute, _MISSING)
        setattr(parent, attribute, replacement)
        self._replacements.append(_Replacement(parent, attribute, original, replacement))

    def replace_in(self, instance: Any, attribute: str, replacement: Any) -> None:
        """Replace an attribute of an instance, which is not kept alive by that."""
        original = vars(instance).get(attribute, _MISSING)
        # First, since it raises for an instance that cannot be a weak key.
        self._instances.setdefault(instance, []).append(_Replacement(None, attribute, original, replacement))
        setattr(instance, attribute, replacement)

    def on_restore(self, undo: Callable[[], Any]) -> None:
        """Call `undo` in `restore`."""
        self._undo.append(undo)

    def restore(self) -> None:
        """Restore all attributes, the last first, except those that other code has replaced since."""
        self.active = False
        replacements, self._replacements = self._replacements, []
        instances, self._instances = self._instances, weakref.WeakKeyDictionary()
        while self._undo:
            guarded("restoring", self._undo.pop())
        for replacement in reversed(replacements):
            guarded(f"restoring {replacement.attribute}", _restore, replacement.parent, replacement)
        for instance, of_instance in instances.items():
            for replacement in reversed(of_instance):
                guarded(f"restoring {replacement.attribute}", _restore, instance, replacement)


def _restore(parent: Any, replacement: _Replacement) -> None:
    if vars(parent).get(replacement.attribute) is not replacement.replacement:
        # Other code has wrapped the wrapper, which does nothing now.
        return
    if replacement.original is _MISSING:
        delattr(parent, replacement.attribute)
    else:
        setattr(parent, replacement.attribute, replacement.original)
