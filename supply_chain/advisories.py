"""Advisories as files of OSV's format: https://github.com/pypa/advisory-database, or a copy of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

_MODIFIED = re.compile(r"^modified: *['\"]?(\d{4}-\d\d-\d\d)", re.MULTILINE)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Advisories:
    """Advisories in a folder, by package. Raises `ValueError` for a folder that has none."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, list[Path]] = {}
        for file in folder.rglob("*.yaml"):
            self._files.setdefault(canonical(file.parent.name), []).append(file)
        if not self._files:
            raise ValueError(f"{folder} has no advisories (folders of packages, with *.yaml in them)")

    def newest(self) -> datetime:
        """Return when the last of them was changed."""
        texts = (file.read_text() for files in self._files.values() for file in files)
        dates = [datetime.fromisoformat(found[1]) for text in texts if (found := _MODIFIED.search(text))]
        return max(dates, default=datetime.min).replace(tzinfo=UTC)

    def of(self, name: str, version: str) -> Iterator[str]:
        """Yield the ids of those that a release is affected by."""
        for file in self._files.get(canonical(name), ()):
            advisory = yaml.safe_load(file.read_text())
            if isinstance(advisory, dict) and not advisory.get("withdrawn") and affects(advisory, name, version):
                yield str(advisory.get("id"))


def affects(advisory: dict[str, Any], name: str, version: str) -> bool:
    """Say whether an advisory is about a release: it is listed, or in one of the ranges."""
    for affected in advisory.get("affected") or ():
        package = affected.get("package") or {}
        if package.get("ecosystem") != "PyPI" or canonical(str(package.get("name"))) != canonical(name):
            continue
        if version in (affected.get("versions") or ()):
            return True
        ranges = [one for one in affected.get("ranges") or () if one.get("type") == "ECOSYSTEM"]
        if any(_within(one.get("events") or (), version) for one in ranges):
            return True
    return False


def _within(events: Any, version: str) -> bool:
    """Say whether a release comes after an event that introduced the fault, and before the one that ended it."""
    inside = False
    for event in events:
        if "introduced" in event and _at_least(version, event["introduced"]):
            inside = True
        elif ("fixed" in event and _at_least(version, event["fixed"])) or (
            (last := event.get("last_affected")) not in (None, version) and _at_least(version, last)
        ):
            inside = False
    return inside


def _at_least(version: str, bound: object) -> bool:
    try:
        return str(bound) == "0" or Version(version) >= Version(str(bound))
    except InvalidVersion:
        # Rather looked at by somebody than passed over.
        return True
