"""Owners of files of settings: ./snakepit.toml can have workers run any code, and may be anybody's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.settings._loading import load
from tests.users import OTHER, needs_root

TEXT = '[pool]\nsize = 3\n[pool.environment]\nPYTHONPATH = "/tmp/theirs"\n'


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in the current directory."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "snakepit.toml"
    file.write_text(TEXT)
    return file


def _refused(words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^snakepit\.toml: not read: .*/snakepit\.toml .*{words}") as caught:
        load(environ={})
    assert "--config snakepit.toml" in str(caught.value)
    assert "theirs" not in str(caught.value)


def test_ones_own_is_read() -> None:
    """A file of this user's that others may not write to is read, also through a link of this user's."""
    assert load(environ={}).settings.pool.size == 3
    Path("snakepit.toml").rename("elsewhere.toml")
    Path("snakepit.toml").symlink_to("elsewhere.toml")
    assert load(environ={}).settings.pool.size == 3


@needs_root
def test_another_users_is_not_read(file: Path) -> None:
    """The error names the file and its owner, and says how to have it read all the same."""
    os.chown(file, OTHER, OTHER)
    _refused(f"it belongs to user {OTHER}")


@pytest.mark.parametrize("mode", [0o666, 0o602, 0o777])
def test_one_that_others_may_write_to_is_not_read(file: Path, mode: int) -> None:
    """Whoever owns it, others may have written it; the error says how to end that."""
    file.chmod(mode)
    _refused(rf"others may write to it \(mode {mode:04o}\); chmod go-w ")


@needs_root
def test_a_link_of_another_user_is_not_followed(file: Path, tmp_path: Path) -> None:
    """Nobody else decides which of our files are our settings."""
    file.rename(tmp_path / "elsewhere.toml")
    file.symlink_to("elsewhere.toml")
    os.lchown(file, OTHER, OTHER)
    _refused(f"is a link that user {OTHER} has made")


@needs_root
def test_a_pipe_of_another_user_is_not_waited_for(file: Path) -> None:
    """A pipe in the place of the file holds nobody up."""
    file.unlink()
    os.mkfifo(file)
    os.chown(file, OTHER, OTHER)
    _refused(f"it belongs to user {OTHER}")


@needs_root
@pytest.mark.parametrize("by_variable", [True, False], ids=["variable", "option"])
def test_what_is_named_is_read(file: Path, by_variable: bool) -> None:
    """Whoever names a file means it, whoever's it is: in a container, that of the host's user often is another's."""
    os.chown(file, OTHER, OTHER)
    loaded = load(environ={"SNAKEPIT_OTEL_CONFIG": str(file)}) if by_variable else load(file, environ={})
    assert loaded.settings.pool.size == 3


@needs_root
def test_the_usual_name_can_be_named(file: Path) -> None:
    """The remedy that the error has is one: the usual file by its usual name, given by an option."""
    os.chown(file, OTHER, OTHER)
    assert load(Path("snakepit.toml"), environ={}).settings.pool.size == 3
