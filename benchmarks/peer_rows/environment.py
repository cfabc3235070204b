"""The virtual environment of the peers, outside of the repository, with what benchmarks/peers.txt pins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PINNED = Path(__file__).resolve().parent.parent / "peers.txt"


class NotMeasured(Exception):
    """Why a peer has no figures, for people."""


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snakepit-otel" / "peers"


def install(folder: Path) -> None:
    """Make the environment, unless it is there as pinned; raises `NotMeasured` if pip fails, which prints why."""
    with suppress(NotMeasured):
        python(folder)
        return
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(folder / "bin" / "python"), *pip, str(PINNED)],
    ):
        if subprocess.run(command, check=False).returncode:
            raise NotMeasured(f"could not be installed: {' '.join(command)} failed")
    _installed(folder).write_text(PINNED.read_text())


def python(folder: Path) -> str:
    """Return the environment's Python; raises `NotMeasured` if what is pinned is not what was installed there."""
    if not (record := _installed(folder)).exists():
        raise NotMeasured(f"not installed in {folder}; --install does it")
    if record.read_text() != PINNED.read_text():
        raise NotMeasured(f"{folder} is not what {PINNED.name} pins; --install makes it anew")
    return str(folder / "bin" / "python")


def version(package: str) -> str:
    """Return the version that is pinned."""
    found = re.search(rf"^{package}==([^\s;]+)", PINNED.read_text(), re.MULTILINE)
    assert found is not None, package
    return found[1]


def _installed(folder: Path) -> Path:
    return folder / PINNED.name
