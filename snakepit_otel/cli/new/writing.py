"""Writing a folder of files, all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath

from snakepit_otel.system.atomic_files import refuse_what_is_no_file


def write(folder: Path, files: Mapping[PurePath, str], *, force: bool) -> int:
    """Write the files and return how many were not there as they should be.

    Raises `OSError`, with nothing written: for a folder that has something in it, unless it may be overwritten by
    `force`, and for what no force helps against.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.exists():
        _make(folder, files)
        return len(files)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    if not force and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty; choose another folder with --directory, or say --force, which overwrites "
            f"{', '.join(map(str, files))} and leaves all else as it is"
        )
    stale = {path: text for path, text in files.items() if not _has(folder / path, text)}
    _fill(folder, stale)
    return len(stale)


def _make(folder: Path, files: Mapping[PurePath, str]) -> None:
    """Make the folder and those above it, with everything in it, in one step."""
    above = next(path for path in folder.parents if path.exists())
    with _aside(above) as aside:
        for path, text in files.items():
            made = aside / folder.relative_to(above) / path
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(text, "utf-8")
        topmost = folder.relative_to(above).parts[0]
        (aside / topmost).rename(above / topmost)


def _fill(folder: Path, files: Mapping[PurePath, str]) -> None:
    """Write into a folder that is there; beside their places first, so that a full disk leaves what was as it was."""
    if not files:
        return
    for path in files:
        _refuse_what_is_in_the_way(folder, path)
    with _aside(folder) as aside:
        for number, text in enumerate(files.values()):
            (aside / str(number)).write_text(text, "utf-8")
        for number, path in enumerate(files):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / str(number)).replace(folder / path)


def _refuse_what_is_in_the_way(folder: Path, path: PurePath) -> None:
    if (folder / path).is_dir():
        raise IsADirectoryError(f"{folder / path} is a folder")
    for above in (folder / parent for parent in path.parents):
        # A link to nowhere is there, too.
        if not above.is_dir() and (above.exists() or above.is_symlink()):
            raise NotADirectoryError(f"{above} is no folder")
        if above.is_dir() and not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(f"{above} is not to be written to")
    refuse_what_is_no_file(folder / path)


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A place of our own on the same disk, which is gone afterwards."""
    aside = Path(tempfile.mkdtemp(prefix=".snakepit-", dir=folder))
    try:
        yield aside
    finally:
        shutil.rmtree(aside)
