"""Names of a new package, its project and its adapter, made from one typed name."""

from __future__ import annotations

import builtins
import keyword
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from snakepit_otel.errors import ConfigurationError

MAX_NAME = 40  # characters, so that no written line becomes too long
CLASSES_IN_USE = frozenset({"BaseAdapter", "Capture", "Iterator", "KeywordFinder", "SessionStore"})  # in the templates

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")
_NEW_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TAKEN = {
    "snakepit_otel": "that is this library",
    "snakepit_bridge": "that is the package of Snakepit's own workers",
    "conftest": "that is a file of pytest's",
    "test": "that is a package of Python's own",  # and no member of sys.stdlib_module_names
    "tests": "that is the folder of its tests",
    "src": "that is the folder that the package is in",
}


@dataclass(frozen=True)
class Names:
    """`MyAdapter`, `my-adapter` and `my_adapter` come to the same three."""

    package: str
    class_name: str
    project: str


def names_for(name: str, folder: Path) -> Names:
    """Return the names for a package in `folder`.

    Raises `ConfigurationError`, with a name that would do, for one that Python cannot import, or that would hide
    another module.
    """
    if problem := _problem(name, folder):
        would_do = next(other for other in _others(name) if not _problem(other, folder))
        raise ConfigurationError(f"{name!r:.100} cannot be the name: {problem}; {would_do} would do")
    return _made(name)


def _made(name: str) -> Names:
    words = re.split("[-_]", name)
    package = "_".join(_NEW_WORD.sub("_", word).lower() for word in words)
    return Names(package, "".join(word[0].upper() + word[1:] for word in words), package.replace("_", "-"))


def _problem(name: str, folder: Path) -> str | None:
    return next(_problems(name, folder), None)


def _problems(name: str, folder: Path) -> Iterator[str]:
    """Yield the problems; only the first is meaningful."""
    if len(name) > MAX_NAME:
        yield f"it has {len(name)} characters, and at most {MAX_NAME} are allowed"
    if not _NAME.fullmatch(name):
        yield "it takes words of a-z, A-Z and 0-9 with one - or _ between them, and a letter at the beginning"
    made = _made(name)
    if made.package in _TAKEN:
        yield _TAKEN[made.package]
    if keyword.iskeyword(made.package) or keyword.iskeyword(made.class_name):
        yield "that is a word of the language"
    if made.package in sys.stdlib_module_names:
        yield f"the package would hide Python's own module {made.package}"
    if made.class_name in CLASSES_IN_USE or hasattr(builtins, made.class_name):
        yield f"the adapter would hide another {made.class_name}"
    if place := _installed(made.package, folder):
        yield f"there is a package {made.package} already, in {place}"


def _installed(package: str, folder: Path) -> str | None:
    """Return the place of an installed package of this name, unless it is in `folder`."""
    # The current folder is no installation.
    paths = [path for path in sys.path if path and Path(path) != Path.cwd()]
    spec = PathFinder.find_spec(package, paths)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    return next((place for place in places if not _within(folder, place)), None)


def _within(folder: Path, place: str) -> bool:
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder))


def _others(name: str) -> Iterator[str]:
    plain = re.sub("[^A-Za-z0-9]+", "-", name).lstrip("-0123456789")[: MAX_NAME - 3].rstrip("-")
    yield plain
    yield f"my-{plain}"
    yield "my-adapter"
    yield from (f"my-adapter-{number}" for number in range(2, sys.maxsize))
