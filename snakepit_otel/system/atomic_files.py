"""Atomic replacement of files, safe in directories that other users may write to."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from snakepit_otel.system.file_ownership import foreign_link, user

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def replace_file(path: Path, text: str, mode: int | None = None) -> None:
    """Write a file in one step, so that whoever reads it never has half of it. Without a `mode`, the umask decides.

    What is written first has a name that nobody can know, and is no link of anybody's. Raises `OSError`, with nothing
    changed, where the path is a link, a directory, a device, a pipe, a socket, or another user's file.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_other_kinds(path, directory)
        made = f".{path.name[:_MAX_NAME_CHARACTERS]}.{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(made, flags, 0o666 if mode is None else mode, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(text)
            # Once more, since writing may have taken its time. It replaces no more than a name, and follows no link.
            _refuse_other_kinds(path, directory)
            os.replace(made, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(made, dir_fd=directory)
            raise
    finally:
        os.close(directory)


def give_name(made: str, name: str, directory: int) -> None:
    """Give a new file of an open directory its name. Raises `FileExistsError` if it is taken, where links are made."""
    try:
        os.link(made, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.rename(made, name, src_dir_fd=directory, dst_dir_fd=directory)


def refuse_what_is_no_file(path: Path) -> None:
    """Raise `OSError` for a device, pipe or socket at a path, and for a way there by another user's link."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG
    else:
        mode = stat.S_IFMT(status.st_mode)
    if mode not in (stat.S_IFREG, stat.S_IFLNK):
        raise FileExistsError(f"{path} is no regular file, and is left as it is")
    existing = next(parent for parent in path.parents if parent.exists())
    if (link := foreign_link(existing)) is not None:
        raise PermissionError(f"{path} is reached by {link[0]}, a link that user {user(link[1])} has made")


# Of the file's name in the name of the temporary file; a name has 255 bytes at most.
_MAX_NAME_CHARACTERS = 200


def _refuse_other_kinds(path: Path, directory: int) -> None:
    try:
        status = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise FileExistsError(17, "it is a link, which is not followed", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise FileExistsError(17, "it is no regular file, and is left as it is", str(path))
    if status.st_uid != os.geteuid():
        raise PermissionError(1, "it is another user's file, and is left as it is", str(path))
