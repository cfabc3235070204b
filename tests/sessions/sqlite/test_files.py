"""Files that are no session store, or not to be trusted: a clear error, and nothing overwritten."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from snakepit_otel.errors import ConfigurationError, SessionStoreUnavailable, SnakepitError
from snakepit_otel.sessions.backends.sqlite import SqliteBackend, _file
from snakepit_otel.sessions.backends.sqlite._layout import APPLICATION_ID
from tests.sessions.sqlite.files import created, opened

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user takes root")
ANOTHER = 12_345


async def _refused(path: Path, text: str) -> None:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigurationError, match=text):
        await SqliteBackend(path=path).open()
    assert before is None or path.read_bytes() == before


async def test_a_new_file_is_for_its_user_alone(tmp_path: Path) -> None:
    """With those that SQLite makes beside it, whatever the mask."""
    mask = os.umask(0)
    try:
        async with opened(tmp_path / "sessions.db") as backend:
            await created(backend, "a")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys(("sessions.db", "sessions.db-wal", "sessions.db-shm"), 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.db"]


async def test_another_file_is_left_alone(tmp_path: Path) -> None:
    """Text, random bytes, a cut header, another program's database, and one that only looks like ours."""
    path = tmp_path / "sessions.db"
    for content in (b"hello", random.Random(1).randbytes(10_000), b"SQLite format 3\0"):
        path.write_bytes(content)
        await _refused(path, "session store .*: it cannot be opened as one: file is not a database")
    path.unlink()
    for statement, text in (
        ("CREATE TABLE account (id)", "it is another program's database"),
        (f"PRAGMA application_id = {APPLICATION_ID}", "it has layout 0, and this version"),
        ("PRAGMA user_version = 1", "its tables are not those of a session store"),
    ):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
        await _refused(path, text)


async def test_a_store_with_another_layout_is_left_alone(tmp_path: Path) -> None:
    """Of a later version; and one to which somebody has added a trigger."""
    path = tmp_path / "sessions.db"
    async with opened(path):
        pass
    for statement, text in (
        ("CREATE TRIGGER t AFTER INSERT ON session BEGIN DELETE FROM ledger; END", "its tables are not those"),
        ("PRAGMA user_version = 2", "it has layout 2, and this version of snakepit-otel reads layout 1"),
    ):
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
        await _refused(path, text)


async def test_a_copy_and_a_compacted_file_are_the_store(tmp_path: Path) -> None:
    """As made by SQLite's own means, the copy of a file in use."""
    path, copy = tmp_path / "sessions.db", tmp_path / "copy.db"
    async with opened(path) as backend:
        for session_id in "abc":
            await created(backend, session_id, metadata={"text": "x" * 5_000})
        await backend.write("b", {"k": b"1"})
        await backend.delete("a")
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        for connection in (source, target):
            connection.close()
    copy.chmod(0o600)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("VACUUM")
    connection.close()
    for file in (path, copy):
        async with opened(file) as backend:
            assert [session.id for session in await backend.page(None, 10)] == ["b", "c"]
            assert (await backend.read("b")).entries["k"].raw == b"1"
            assert backend.last_stats.deleted == 1


async def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    """When it is opened, or when the damage is met: whatever page it is in, no call hangs or ends the process."""
    path = tmp_path / "sessions.db"
    async with opened(path) as backend:
        for number in range(200):
            await created(backend, f"{number}", metadata={"text": "x" * 500})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    await _refused(path, r"damaged|malformed")
    dice, noticed = random.Random(1), 0
    for _ in range(12):
        damaged = bytearray(whole)
        begin = dice.randrange(100, len(whole) - 512)
        damaged[begin : begin + 512] = dice.randbytes(512)
        path.write_bytes(damaged)
        backend = SqliteBackend(path=path)
        try:
            await backend.open()
            async for _batch in backend.scan():
                pass
            await created(backend, "new")
        except (ConfigurationError, SessionStoreUnavailable):
            noticed += 1
        await backend.close()
    assert noticed > 3


@pytest.mark.parametrize("kind", ["directory", "pipe", "missing directory", "file as directory", "dangling link"])
async def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """Without waiting for it."""
    path = tmp_path / "sessions.db"
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "missing directory":
            path = tmp_path / "missing" / "sessions.db"
        case "file as directory":
            path.write_text("")
            path /= "sessions.db"
        case "dangling link":
            path.symlink_to(tmp_path / "elsewhere" / "sessions.db")
    await _refused(
        path,
        "session store .*: (this is not a file|No such file or directory|Not a directory|this link leads to no file)",
    )


async def test_a_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    """To the file that it names, whose log is beside that."""
    (tmp_path / "data").mkdir()
    (tmp_path / "sessions.db").symlink_to(tmp_path / "data" / "store.db")
    for path in (tmp_path / "data" / "store.db", tmp_path / "sessions.db"):
        async with opened(path) as backend:
            await created(backend, "a")
            assert backend.last_stats.created == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["store.db"]


@pytest.mark.parametrize("what", ["directory", "file", "file beside"])
async def test_what_others_can_write_to_is_refused(tmp_path: Path, what: str) -> None:
    """With the file, its mode, and what to do."""
    path = tmp_path / "sessions.db"
    async with opened(path):
        pass
    thing = {"directory": tmp_path, "file": path, "file beside": tmp_path / "sessions.db-wal"}[what]
    if what == "file beside":
        thing.touch()
    thing.chmod(stat.S_IMODE(thing.stat().st_mode) | 0o002)
    await _refused(path, r"others may write to it \(mode 0...\); .*chmod 700 and 600")


@needs_root
@pytest.mark.parametrize("what", ["directory", "file", "file beside", "link"])
async def test_another_users_is_refused(tmp_path: Path, what: str) -> None:
    """Whatever its mode, and root's own is not."""
    path = tmp_path / "sessions.db"
    async with opened(path):
        pass
    beside, link = tmp_path / "sessions.db-journal", tmp_path / "link.db"
    beside.touch(0o600)
    link.symlink_to(path)
    thing = {"directory": tmp_path, "file": path, "file beside": beside, "link": link}[what]
    os.chown(thing, ANOTHER, ANOTHER, follow_symlinks=False)
    reason = f"is a link that user {ANOTHER} has made" if what == "link" else f"belongs to user {ANOTHER}"
    await _refused(link if what == "link" else path, reason)


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory cannot be shared, and locks are not to be relied on."""
    assert _file.file_system(tmp_path) not in _file._NETWORK
    monkeypatch.setattr(_file, "file_system", lambda _: "nfs4")
    await _refused(tmp_path / "sessions.db", r"it is on a network file system \(nfs4\)")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("durability", ["replica", "none", ""])
def test_a_durability_that_a_file_cannot_have_is_refused(durability: str) -> None:
    """With those that it can have."""
    with pytest.raises(ConfigurationError, match=r"session_store.durability is .*; a SQLite file can have memory or"):
        SqliteBackend(durability=durability)


async def test_a_durable_file_waits_for_its_disk(tmp_path: Path) -> None:
    """Each commit is on it."""
    for durability, level in (("memory", 1), ("fsync", 2)):
        async with opened(tmp_path / "sessions.db", durability=durability) as backend:
            await created(backend, "a")
            assert backend._engine is not None
            assert backend._engine._connection.execute("PRAGMA synchronous").fetchone() == (level,)


async def test_errors_name_the_file_as_it_can_be_printed(tmp_path: Path) -> None:
    """Its name may have been chosen by somebody else."""
    with pytest.raises(SnakepitError) as caught:
        await SqliteBackend(path=tmp_path / "a\x1b[2J\n" / "sessions.db").open()
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
