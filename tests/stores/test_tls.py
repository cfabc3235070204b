"""TLS, mutual TLS, users with few rights, and passwords from files, at a Redis 7.0."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_otel.errors import ConfigurationError, SessionStoreUnavailable
from tests import certificates
from tests.stores.conftest import backend_at, store_at
from tests.stores.servers import StoreServer, free_port, running

SECRET = "a-very-secret-password"
RIGHTS = (
    "resetkeys ~{app:* nocommands +eval +evalsha +time +@hash +@sortedset +@string +expire +del +unlink +type +wait "
    "+info +ping"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: of the server and of a client, by one authority, and of another by a stranger."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "stranger"):
        certificates.authority(folder, name)
    certificates.signed(folder, "server", "ca")
    certificates.signed(folder, "client", "ca")
    certificates.signed(folder, "other", "stranger")
    return folder


@pytest.fixture
def secured(folder: Path, tmp_path: Path) -> Iterator[tuple[str, StoreServer]]:
    """The URL of a Redis that speaks TLS only to clients with a certificate, and the server, on a plain port, too."""
    port = free_port()
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    paths = [str(folder / one) if one.endswith((".pem", ".key")) else one for one in files]
    server = StoreServer(tmp_path, "--tls-port", str(port), *paths, "--tls-auth-clients", "yes", program="redis-server")
    with running(server):
        yield f"rediss://localhost:{port}", server


async def test_both_sides_have_certificates(secured: tuple[str, StoreServer], folder: Path) -> None:
    """A store works over mutual TLS."""
    url, _ = secured
    files = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
    store = store_at(url, **{name: str(folder / file) for name, file in files.items()})
    await store.start()
    await store.create("a")
    assert (await store.get("a")).id == "a"
    await store.stop()


@pytest.mark.parametrize(
    "files",
    [
        {"ca": "ca.pem"},
        {"ca": "ca.pem", "certificate": "other.pem", "key": "other.key"},
        {"ca": "stranger.pem", "certificate": "client.pem", "key": "client.key"},
        {"certificate": "client.pem", "key": "client.key"},
    ],
)
async def test_strangers_are_refused_on_both_sides(
    secured: tuple[str, StoreServer], folder: Path, files: dict[str, str]
) -> None:
    """Without a certificate, with a stranger's, and at a server that a stranger signed."""
    url, _ = secured
    backend = backend_at(url, **{name: str(folder / file) for name, file in files.items()})
    with pytest.raises((SessionStoreUnavailable, ConfigurationError)):
        await backend.open()
    await backend.close()


@pytest.mark.parametrize("program", ["redis-server", "valkey-server"])
async def test_few_rights_are_enough(tmp_path: Path, program: str, caplog: pytest.LogCaptureFixture) -> None:
    """The documented user can do all that a store does, and nothing in another namespace; no secret is logged."""
    caplog.set_level(logging.DEBUG)
    server = StoreServer(tmp_path, program=program)
    password = tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    with running(server):
        server.client().execute_command("ACL", "SETUSER", "app", "on", f">{SECRET}", *RIGHTS.split())
        store = store_at(server.url, "app", quota=2, username="app", password_file=str(password))
        await store.start()
        await store.create("a", owner="alice", metadata={"k": "v"})
        await store.set_state("a", "n", 1)
        await store.update("a", lambda state: {**state, "m": 2})
        await store.assign_worker("a", "default-1")
        assert await store.get_state("a", "m") == 2
        assert [one.id for one in await store.list()] == ["a"]
        assert len(await store.group("owner")) == 1
        assert await store.delete_owned("alice") == 1
        await store.create("b", ttl=0.05)
        await store.sweep()
        assert (await store.stats()).created == 2
        await store.stop()
        assert not [finding for finding in store._backend._driver.findings if finding.is_refusal]
        other = backend_at(server.url, "other", username="app", password_file=str(password))
        with pytest.raises((SessionStoreUnavailable, ConfigurationError)) as caught:
            await other.open()
        await other.close()
    assert SECRET not in caplog.text + str(caught.value) + repr(vars(caught.value))


async def test_a_new_password_needs_no_restart(tmp_path: Path) -> None:
    """The file is read for each connection: after the old password has gone, calls go on with the new one."""
    server = StoreServer(tmp_path)
    password = tmp_path / "password"
    password.write_text("first-password")
    with running(server):
        admin = server.client()
        admin.execute_command("ACL", "SETUSER", "app", "on", ">first-password", "~*", "+@all")
        store = store_at(server.url, username="app", password_file=str(password))
        await store.start()
        await store.create("a")
        password.write_text("second-password")
        admin.execute_command("ACL", "SETUSER", "app", ">second-password", "<first-password")
        admin.execute_command("CLIENT", "KILL", "USER", "app")
        assert (await store.get("a")).id == "a"
        await store.stop()
