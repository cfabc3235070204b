"""The lock file: every Python package with its version and the hashes of its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


@dataclass(frozen=True)
class Locked:
    name: str
    version: str
    hashes: frozenset[str]
    # Whether it is installed on this machine, with this Python.
    is_for_here: bool = True


def locked(text: str | None = None) -> tuple[list[Locked], list[str]]:
    """Return the packages of a lock file, and the lines of it that pin no version or have no hash."""
    text = LOCK.read_text() if text is None else text
    packages, loose = [], []
    for entry in text.replace("\\\n", " ").splitlines():
        line = entry.strip()
        if not line or line.startswith("#"):
            continue
        pinned, hashes = _PINNED.match(line), frozenset(_HASH.findall(line))
        if pinned is None or not hashes:
            loose.append(line)
            continue
        marker = line.partition(" --hash")[0].partition(";")[2].strip()
        packages.append(Locked(pinned[1], pinned[2], hashes, not marker or Marker(marker).evaluate()))
    return packages, loose
