"""Address of the authority that commands and clients call, when none is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from snakepit_otel.bridge.client.address import authority_address
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.default_socket import default_socket
from tests.users import OTHER, needs_root


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual file of settings in the current folder, with a socket, and a setting that is wrong."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "snakepit.toml"
    path.write_text('[server]\nsocket = "run/here.sock"\n[pool]\nsize = "no number"\n')
    return path


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ("10.0.0.1:50051", {"SNAKEPIT_OTEL_ADDRESS": "unix:/env"}, "10.0.0.1:50051"),
        ("/run/a.sock", {}, "unix:/run/a.sock"),
        ("./a.sock", {}, "unix:./a.sock"),
        (None, {"SNAKEPIT_OTEL_ADDRESS": " /env.sock ", "SNAKEPIT_OTEL_SERVER__SOCKET": "/other"}, "unix:/env.sock"),
        (None, {"SNAKEPIT_OTEL_SERVER__SOCKET": "/s.sock", "SNAKEPIT_OTEL_SERVER": '{"socket": "/g"}'}, "unix:/s.sock"),
        (None, {"SNAKEPIT_OTEL_SERVER": '{"socket": "/g.sock"}'}, "unix:/g.sock"),
        (None, {"SNAKEPIT_OTEL_ADDRESS": ""}, "unix:run/here.sock"),
    ],
)
@pytest.mark.usefixtures("file")
def test_the_order_of_sources(given: str | None, variables: Mapping[str, str], expected: str) -> None:
    """What is given, then the variables, then the file, whose other settings are not checked."""
    assert authority_address(given, environ=variables) == expected


def test_a_file_that_is_named(file: Path, tmp_path: Path) -> None:
    """A file is named by option or variable; the option's is used though an address is in the environment."""
    named = tmp_path / "named.toml"
    named.write_text('server.socket = "/named.sock"')
    assert authority_address(environ={"SNAKEPIT_OTEL_CONFIG": str(named)}) == "unix:/named.sock"
    assert authority_address(config=named, environ={"SNAKEPIT_OTEL_ADDRESS": "h:1"}) == "unix:/named.sock"
    file.write_text("server.listen = 'localhost:0'")
    assert authority_address(environ={}) == f"unix:{default_socket()}"


def test_a_file_that_is_wrong(file: Path) -> None:
    """A socket that is no path, and a file that is no TOML, are errors with the place."""
    file.write_text("server.socket = 3")
    with pytest.raises(ConfigurationError, match=r"^snakepit\.toml: server\.socket: input should be a path \(got 3\)"):
        authority_address(environ={})
    file.write_text("server.socket = \n")
    with pytest.raises(ConfigurationError, match=r"^snakepit\.toml:1: this is not TOML"):
        authority_address(environ={})


@needs_root
def test_another_users_file_is_not_read(file: Path) -> None:
    """A file that is found by its name alone must be the user's own, as for serve."""
    os.chown(file, OTHER, OTHER)
    with pytest.raises(ConfigurationError, match="found by its name alone"):
        authority_address(environ={})
    assert authority_address(config=Path("snakepit.toml"), environ={}) == "unix:run/here.sock"
