"""The files of a new package, made from the templates beside this module."""

from __future__ import annotations

from pathlib import Path, PurePath
from string import Template

from snakepit_otel._version import VERSION
from snakepit_otel.cli.new.naming import Names

TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".in"
"""Keeps tools that look for Python, for TOML or for git's files from taking the templates for such."""


class _Text(Template):
    """`%{package}`, since pages for people have a `$` before each command."""

    delimiter = "%"


def rendered(names: Names) -> dict[PurePath, str]:
    """Return each file's text by its place in the new folder, in the order of those."""
    values = {
        "package": names.package,
        "class_name": names.class_name,
        "project": names.project,
        "version": VERSION,
    }
    found = {
        _place(path.relative_to(TEMPLATES), names): _Text(path.read_text("utf-8")).substitute(values)
        for path in TEMPLATES.rglob(f"*{_SUFFIX}")
    }
    return dict(sorted(found.items()))


def _place(path: PurePath, names: Names) -> PurePath:
    called = {"package": names.package, "gitignore": ".gitignore"}
    parts = path.with_name(path.name.removesuffix(_SUFFIX)).parts
    return PurePath(*(called.get(part, part) for part in parts))
