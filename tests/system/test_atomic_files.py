"""Files that are replaced as a whole, and what is never replaced."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from snakepit_otel.system.atomic_files import refuse_what_is_no_file, replace_file
from tests.users import OTHER, needs_root


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """What was there is gone, whoever has it open has what it was, and nothing else is left."""
    file = tmp_path / "ready"
    file.write_text("before")
    with file.open() as opened:
        replace_file(file, "50051")
        assert opened.read() == "before"
    assert file.read_text() == "50051"
    assert list(tmp_path.iterdir()) == [file]


def test_a_mode_wins_over_the_umask(tmp_path: Path) -> None:
    """With a mode the file has it, without one the umask decides."""
    umask = os.umask(0o077)
    try:
        replace_file(tmp_path / "with", "", 0o644)
        replace_file(tmp_path / "without", "")
    finally:
        os.umask(umask)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("with", "without")] == [0o644, 0o600]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to("victim"), "it is a link"),
        (lambda path: path.symlink_to("nowhere"), "it is a link"),
        (os.mkfifo, "no regular file"),
        (Path.mkdir, "no regular file"),
        (_socket, "no regular file"),
    ],
    ids=["link", "link to nowhere", "pipe", "directory", "socket"],
)
def test_nothing_but_a_file_is_replaced(short_path: Path, make: Callable[[Path], object], words: str) -> None:
    """A link, pipe, directory or socket stays what it is, and so does what a link leads to."""
    victim, path = short_path / "victim", short_path / "ready"
    victim.write_text("precious")
    make(path)
    before = path.lstat()
    with pytest.raises(OSError, match=words):
        replace_file(path, "50051")
    assert path.lstat().st_ino == before.st_ino
    assert victim.read_text() == "precious"
    assert sorted(short_path.iterdir()) == [path, victim]


@needs_root
def test_a_device_stays(tmp_path: Path) -> None:
    """A device node is left alone, though root could replace it."""
    path = tmp_path / "null"
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))
    with pytest.raises(OSError, match="no regular file"):
        replace_file(path, "50051")
    assert path.is_char_device()


@needs_root
def test_another_users_file_stays(tmp_path: Path) -> None:
    """A file of somebody else's is not replaced, though root could."""
    path = tmp_path / "ready"
    path.write_text("theirs")
    os.chown(path, OTHER, OTHER)
    with pytest.raises(PermissionError, match="another user's file"):
        replace_file(path, "50051")
    assert path.read_text() == "theirs"


def test_links_that_others_have_prepared_are_not_followed(tmp_path: Path) -> None:
    """Whatever names somebody may have thought of beforehand, what is written goes through none of them."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("ready.tmp", ".ready.tmp", "ready.new", f"ready.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    replace_file(tmp_path / "ready", "50051")
    assert victim.read_text() == "precious"


def test_what_is_written_for_people_replaces_files_alone(tmp_path: Path) -> None:
    """What `new` and `dashboards` write takes the place of files and links, and of nothing else."""
    for name in ("file", "missing/file", "link"):
        path = tmp_path / name
        if name == "file":
            path.touch()
        elif name == "link":
            path.symlink_to("file")
        refuse_what_is_no_file(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="pipe is no regular file"):
        refuse_what_is_no_file(tmp_path / "pipe")


@needs_root
def test_what_is_written_for_people_goes_through_no_link_of_others(tmp_path: Path) -> None:
    """A folder that another user has put a link in the place of is not written to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    os.lchown(tmp_path / "link", OTHER, OTHER)
    with pytest.raises(PermissionError, match=f"link that user {OTHER} has made"):
        refuse_what_is_no_file(tmp_path / "link" / "file")
