"""Writer of a folder of files: all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath

from snakepit_otel.system.atomic_files import refuse_what_is_no_file


def write(folder: Path, files: Mapping[PurePath, str], *, force: bool) -> int:
    """Write the files and return how many were missing or different.

    Raises `OSError`, with nothing written: for a folder that is not empty, unless `force` is set, and for paths that
    cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.exists():
        _make(folder, files)
        return len(files)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    if not force and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty; choose another folder with --directory, or use --force, which overwrites "
            f"{', '.join(map(str, files))} and leaves all else as it is"
        )
    stale = {path: text for path, text in files.items() if not is_current(folder / path, text)}
    _fill(folder, stale)
    return len(stale)


def is_current(path: Path, text: str) -> bool:
    """Whether a file has this text."""
    return path.is_file() and path.read_bytes() == text.encode()


def _make(folder: Path, files: Mapping[PurePath, str]) -> None:
    """Make the folder and those above it, with everything in it, in one step."""
    above = next(path for path in folder.parents if path.exists())
    with _temporary_folder(above) as temporary:
        for path, text in files.items():
            made = temporary / folder.relative_to(above) / path
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(text, "utf-8")
        topmost = folder.relative_to(above).parts[0]
        (temporary / topmost).rename(above / topmost)


def _fill(folder: Path, files: Mapping[PurePath, str]) -> None:
    """Write into an existing folder, to temporary files first, so that a full disk leaves the folder as it was."""
    if not files:
        return
    for path in files:
        _check_conflicts(folder, path)
    with _temporary_folder(folder) as temporary:
        for number, text in enumerate(files.values()):
            (temporary / str(number)).write_text(text, "utf-8")
        for number, path in enumerate(files):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / str(number)).replace(folder / path)


def _check_conflicts(folder: Path, path: PurePath) -> None:
    if (folder / path).is_dir():
        raise IsADirectoryError(f"{folder / path} is a folder")
    for above in (folder / parent for parent in path.parents):
        # A dangling link is in the way, too.
        if not above.is_dir() and (above.exists() or above.is_symlink()):
            raise NotADirectoryError(f"{above} is no folder")
        if above.is_dir() and not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(f"{above} is not to be written to")
    refuse_what_is_no_file(folder / path)


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a temporary folder on the same disk, and remove it afterwards."""
    temporary = Path(tempfile.mkdtemp(prefix=".snakepit-", dir=folder))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary)
