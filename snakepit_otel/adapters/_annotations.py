"""Annotations of a tool's parameters: resolved one by one, and spelled in the way that they can be checked."""

from __future__ import annotations

import builtins
import collections
import inspect
import sys
import types
import typing
from collections import abc
from collections.abc import Callable
from typing import Any

import typing_extensions

_UNIONS = (typing.Union, types.UnionType)
_ANY_ORDER = (abc.Collection, abc.Container, abc.Reversible)
_CONTAINERS = frozenset(
    {list, dict, tuple, set, frozenset, collections.deque, collections.defaultdict, collections.OrderedDict, type}
    | {abc.Sequence, abc.MutableSequence, abc.Mapping, abc.MutableMapping, abc.Iterable, abc.Set, abc.MutableSet}
)
_QUALIFIERS = (typing.Required, typing.NotRequired, typing_extensions.ReadOnly)
_MAKES_OWN_TYPED_DICTS = sys.version_info >= (3, 12)
# A name of its own, because these are made at run time.
_make_typed_dict: Any = typing_extensions.TypedDict


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature, with those annotations unresolved that name what is not there at run time."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def name_of(annotation: Any) -> str:
    text: Any = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        text = annotation.__name__
    return " ".join(str(text).split())


class Annotations:
    """Resolves the annotations of one function's parameters, those of other parameters and of the result aside.

    Names are looked up where the function was written: in its closure, its module, and the class that it is in.
    """

    def __init__(self, function: Callable[..., Any], owner: type | None = None) -> None:
        self._names: dict[str, Any] = {}
        for kind in reversed(owner.__mro__ if owner else ()):
            # Last of all: a method of a class is no type, though it may be named like one.
            self._names |= {kind.__name__: kind, **vars(kind), **_type_parameters(kind)}
        written = inspect.unwrap(function)
        self._names |= vars(builtins) | getattr(written, "__globals__", {})
        cells = getattr(written, "__closure__", None) or ()
        for name, cell in zip(written.__code__.co_freevars if cells else (), cells, strict=True):
            try:
                self._names[name] = cell.cell_contents
            except ValueError:
                continue  # not set yet
        self._names |= _type_parameters(written)

    def resolve(self, annotation: Any) -> Any:
        """Return the type that an annotation stands for. Raises whatever resolving it does."""
        if annotation is inspect.Parameter.empty:
            return Any

        def holder() -> None: ...

        holder.__annotations__ = {"x": annotation}
        holder.__annotations__ = inspect.get_annotations(holder, globals=self._names, eval_str=True)
        return _spelled(typing.get_type_hints(holder, self._names, include_extras=True)["x"], ())


def fields_of(typed_dict: Any) -> dict[str, Any]:
    """Return the types of a TypedDict's values by key, each as required or not."""
    fields = typing_extensions.get_type_hints(typed_dict, include_extras=True)
    for key, hint in fields.items():
        if not _is_qualified(hint):
            fields[key] = (typing.Required if key in typed_dict.__required_keys__ else typing.NotRequired)[hint]
    return fields


def _is_qualified(hint: Any) -> bool:
    origin: Any = typing.get_origin(hint)
    return origin in (typing.Required, typing.NotRequired)


def _type_parameters(of: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(of, "__type_params__", ())}


def _spelled(hint: Any, within: tuple[Any, ...]) -> Any:
    """Return the hint in words that pydantic knows, at any depth; `within` are the records that it is a part of."""
    origin: Any = typing.get_origin(hint)
    parts = typing.get_args(hint)
    if hint is typing.Self:
        raise TypeError("no argument can be the adapter itself")
    if _is_foreign_typed_dict(hint):
        return hint if hint in within else _own_typed_dict(hint, (*within, hint))
    if origin is typing.Final:
        return _spelled(parts[0], within)
    if origin is typing.Annotated:
        parts = parts[:1]
    inner = tuple(_spelled(part, within) for part in parts)
    if origin is typing.Annotated:
        hint = typing.Annotated[(*inner, *hint.__metadata__)]
    elif origin in _ANY_ORDER:
        # They are lists in JSON, and of others pydantic would not look at the elements.
        hint = list[inner]  # type: ignore[valid-type]
    elif inner != parts and origin in _UNIONS:
        hint = typing.Union[inner]  # noqa: UP007 - of parts that are known at run time only
    elif inner != parts and (origin in _CONTAINERS or origin in _QUALIFIERS):
        hint = origin[inner]
    if isinstance(hint, typing.ParamSpecKwargs):
        return Any  # of a decorator that hides what it wraps
    return str if hint is typing.LiteralString else hint


def _is_foreign_typed_dict(hint: Any) -> bool:
    """Say whether it is a `typing.TypedDict` that pydantic does not take on this Python."""
    return not _MAKES_OWN_TYPED_DICTS and typing.is_typeddict(hint)


def _own_typed_dict(hint: Any, within: tuple[Any, ...]) -> Any:
    made = _make_typed_dict(hint.__name__, {key: _spelled(value, within) for key, value in fields_of(hint).items()})
    made.__module__ = hint.__module__
    if hasattr(hint, "__pydantic_config__"):
        made.__pydantic_config__ = hint.__pydantic_config__
    return made
