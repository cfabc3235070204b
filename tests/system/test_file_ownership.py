"""Owners of files that are used, and of sockets that are called."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.file_ownership import (
    SERVER_USER,
    callable_users,
    file_problem,
    foreign_link,
    others_may_write,
    own_users,
    user,
)
from tests.users import OTHER, needs_root


@pytest.mark.parametrize(("mode", "open_to_others"), [(0o600, False), (0o644, False), (0o646, True), (0o666, True)])
def test_what_everybody_may_write_to(tmp_path: Path, mode: int, open_to_others: bool) -> None:
    """The bits for everybody decide, whoever the group is."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert others_may_write(file.stat()) is open_to_others


@needs_root
@pytest.mark.parametrize(("group", "open_to_others"), [(0, False), (OTHER, True)], ids=["root's", "another"])
def test_what_a_group_may_write_to(tmp_path: Path, group: int, open_to_others: bool) -> None:
    """Members of root's group are root's equals; those of any other are others."""
    file = tmp_path / "file"
    file.touch()
    os.chown(file, 0, group)
    file.chmod(0o664)
    assert others_may_write(file.stat()) is open_to_others


def test_a_private_group_is_its_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A group of the owner's name, without other members, is the owner: files of mode 0664 are common there."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o664)
    status = os.stat_result((0o100664, 1, 1, 1, 1000, 1000, 0, 0, 0, 0))
    person = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "/", "/bin/sh"))
    for members, open_to_others in (([], False), (["alice"], False), (["alice", "mallory"], True)):
        group = type("Group", (), {"gr_name": "alice", "gr_mem": members})
        monkeypatch.setattr("snakepit_otel.system.file_ownership.pwd.getpwuid", lambda _: person)
        monkeypatch.setattr("snakepit_otel.system.file_ownership.grp.getgrgid", lambda _, group=group: group)
        assert others_may_write(status) is open_to_others


def test_callable_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """This user and root, and whom the variable names, by name or by number."""
    assert callable_users() == own_users() == {0, os.geteuid()}
    monkeypatch.setenv(SERVER_USER, str(OTHER))
    assert callable_users() == {0, os.geteuid(), OTHER}
    monkeypatch.setenv(SERVER_USER, pwd.getpwuid(0).pw_name)
    assert callable_users() == own_users()
    monkeypatch.setenv(SERVER_USER, "nobody-of-that-name")
    with pytest.raises(ConfigurationError, match=r"SERVER_USER=nobody-of-that-name is no user"):
        callable_users()


def test_users_for_people() -> None:
    """A user has a name and a number, or the number alone."""
    assert user(0) == f"{pwd.getpwuid(0).pw_name} (0)"
    assert user(OTHER) == str(OTHER)


def test_links_of_this_user_are_followed(tmp_path: Path) -> None:
    """Links of one's own are no hindrance, also in a row and relative ones."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "there")
    assert foreign_link(tmp_path / "first" / "file") is None


@needs_root
def test_a_link_of_another_user(tmp_path: Path) -> None:
    """A link that another user has made is found, wherever it is on the way."""
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "there" / "deep" / "file").touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there")
    (tmp_path / "outer").symlink_to("link/deep")
    os.lchown(link, OTHER, OTHER)
    assert foreign_link(link / "deep" / "file") == (link, OTHER)
    assert foreign_link(tmp_path / "outer" / "file") == (link, OTHER)


def test_links_in_a_circle(tmp_path: Path) -> None:
    """A way without an end is an error, as it is for the kernel."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        foreign_link(tmp_path / "a" / "file")


@needs_root
def test_a_file_of_another_user(tmp_path: Path) -> None:
    """It is not obeyed, and the user is named."""
    file = tmp_path / "file"
    file.touch()
    assert file_problem(file.stat()) is None
    os.chown(file, OTHER, OTHER)
    assert file_problem(file.stat()) == f"it belongs to user {OTHER}"
