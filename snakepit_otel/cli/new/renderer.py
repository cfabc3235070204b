"""Renderer of the templates for a new package."""

from __future__ import annotations

from pathlib import Path, PurePath
from string import Template

from snakepit_otel._version import VERSION
from snakepit_otel.cli.new.names import Names

TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".in"  # keeps tools for Python, TOML and git from reading the templates


class _Text(Template):
    """Template with `%{package}`, since README pages have a `$` before each command."""

    delimiter = "%"


def rendered(names: Names) -> dict[PurePath, str]:
    """Return each file's text by its path in the new folder, sorted."""
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
