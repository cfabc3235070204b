"""File of a store on its disk: who may write to it, and where it may be."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.file_ownership import file_problem, foreign_link, user

_MODE = 0o600
_BESIDES = ("-wal", "-shm", "-journal")  # names of the files that SQLite makes beside one
_NETWORK = frozenset(
    (
        "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "gpfs",
        "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
    )
)  # fmt: skip


def make_ready(path: Path) -> None:
    """Check that a file can be trusted, and create it, empty, where there is none.

    It must be this user's or root's, and so must its directory, those beside it that SQLite reads, and the links on
    the way to it; and nobody else may write to them. Raises `ConfigurationError`, which says what to do.
    """
    try:
        _check(path)
        with suppress(FileExistsError):
            # Not opened where it exists: closing it would release the locks that SQLite has on it in this process.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE))
            path.chmod(_MODE)  # whatever the mask
    except OSError as error:
        raise refusal(path, f"{error.strerror or error}") from error


def refusal(path: Path, reason: str) -> ConfigurationError:
    """Return the error for a file that cannot be a session store."""
    return ConfigurationError(f"session store {printable(str(path))}: {reason}")


def _check(path: Path) -> None:
    exists = path.exists()
    if path.is_symlink() and not exists:
        raise refusal(path, "this link leads to no file")
    if (link := foreign_link(path if exists else path.parent)) is not None:
        raise refusal(path, f"{printable(str(link[0]))} is a link that user {user(link[1])} has made")
    file = path.resolve()
    _check_owner(path, file.parent.stat(), f"its directory, {printable(str(file.parent))},")
    if (kind := file_system(file.parent)) in _NETWORK:
        raise refusal(path, f"it is on a network file system ({kind}), which processes cannot share; use a local disk")
    if exists:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refusal(path, "this is not a file")
        _check_owner(path, status, "it")
    for beside in (file.with_name(file.name + suffix) for suffix in _BESIDES):
        if os.path.lexists(beside):
            status = beside.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise refusal(path, f"{printable(beside.name)} beside it is not a file")
            _check_owner(path, status, f"{printable(beside.name)} beside it")


def _check_owner(path: Path, status: os.stat_result, what: str) -> None:
    if (problem := file_problem(status)) is not None:
        reason = problem.removeprefix("it ") if problem.startswith("it ") else f"is not safe: {problem}"
        remedy = "use a directory and a file that are yours alone (chmod 700 and 600)"
        raise refusal(path, f"{what} {reason}; {remedy}")


def file_system(directory: Path) -> str:
    """Return the type of the file system of a directory, as the kernel names it; empty if it is not to be found."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            mount, _, kind = line.partition(" - ")
            if mount.split()[2:3] == [wanted]:
                return kind.split()[0]
    return ""
