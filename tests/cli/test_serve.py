"""The command line against a running server."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.processes import Program, program, run


@pytest.fixture
async def server(short_path: Path) -> AsyncIterator[Program]:
    """An authority with one worker at `address`."""
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments) as started:
        await started.says("serving")
        yield started


@pytest.fixture
def address(short_path: Path, server: Program) -> dict[str, str]:
    """The environment in which commands find the server."""
    return {"SNAKEPIT_OTEL_ADDRESS": f"unix:{short_path / 'a.sock'}"}


async def test_call_prints_the_result(address: dict[str, str]) -> None:
    """Values are JSON where they can be and text where not; --json prints JSON."""
    assert await run("call", "echo", "value=hello world", environ=address) == (0, "hello world\n", "")
    code, output, _ = await run("call", "echo", 'value={"a": [1, null]}', "--json", environ=address)
    assert (code, json.loads(output)) == (0, {"a": [1, None]})


async def test_call_streams(address: dict[str, str]) -> None:
    """--stream prints every chunk."""
    code, output, _ = await run("call", "count", "to=2", "--stream", "--json", environ=address)
    assert code == 0
    assert json.loads(output.replace("}\n{", "},{").join("[]")) == [{"number": 1}, {"number": 2}]


async def test_sessions_from_birth_to_death(address: dict[str, str]) -> None:
    """A call creates its session; list, show, delete and stats tell the same story."""
    for _ in range(2):
        await run("call", "add", "amount=2", "--session", "alice", environ=address)
    _, output, _ = await run("sessions", "list", "--json", environ=address)
    assert [session["id"] for session in json.loads(output)] == ["alice"]
    _, output, _ = await run("sessions", "show", "alice", "--json", environ=address)
    assert json.loads(output)["state"]["total"]["value"] == 4
    assert json.loads(output)["last_worker_id"].startswith("default-1.")
    code, output, _ = await run("sessions", "show", "alice", environ=address)
    assert "total" in output
    assert await run("sessions", "delete", "alice", environ=address) == (0, "deleted alice\n", "")
    code, _, complaint = await run("sessions", "delete", "alice", environ=address)
    assert (code, complaint) == (3, "no live session 'alice'\n")
    _, output, _ = await run("sessions", "stats", "--json", environ=address)
    stats = json.loads(output)
    assert (stats["created"], stats["deleted"], stats["live"], stats["max_sessions"]) == (1, 1, 0, 10_000)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fail", "message=no luck"], 1, "ValueError: no luck"),
        (["ech", "value=1"], 3, "has no tool 'ech'"),
        (["echo", "valeu=1"], 2, "did you mean 'value'?"),
        (["add", 'amount="x"', "--session", "s"], 2, "must be a whole number"),
        (["add", "amount=1"], 1, "belongs to no session"),
        (["echo", "value"], 2, "write key=value"),
        (["echo", "value:={"], 2, "is not JSON"),
        (["echo", "value=1", "--session", "a\tb"], 2, "control character"),
        (["echo", "value=1", "--session", "x" * 300], 2, "at most 256"),
    ],
)
async def test_what_goes_wrong_is_said(address: dict[str, str], arguments: list[str], code: int, words: str) -> None:
    """Each failure has its words and its exit code, and prints nothing on standard output."""
    status, output, complaint = await run("call", *arguments, environ=address)
    assert words in complaint
    assert (status, output) == (code, "")


async def test_sigterm_ends_the_server_in_good_order(server: Program) -> None:
    """SIGTERM stops the workers and the server, with exit status 0."""
    server.process.send_signal(signal.SIGTERM)
    await server.says("stopping")
    assert await server.ends() == 0


async def test_second_server_on_the_same_socket_is_refused(server: Program, short_path: Path) -> None:
    """A socket in use is an error that says so, and the first server goes on."""
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--socket", str(short_path / "a.sock")]
    code, _, complaint = await run(*arguments)
    assert code == 2
    assert "it is in use" in complaint
    assert server.process.returncode is None


async def test_socket_of_a_dead_server_is_taken_over(short_path: Path) -> None:
    """What a killed server leaves behind does not stop the next one."""
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(short_path / "a.sock")]
    for _ in range(2):
        async with program("-m", "snakepit_otel", *arguments) as started:
            await started.says("serving")
            started.process.kill()
            await started.ends()


async def test_port_in_use_is_refused(short_path: Path) -> None:
    """A TCP port in use is an error that says so; calls are not shared with whoever has it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["--socket", str(short_path / "a.sock"), "--listen", f"127.0.0.1:{port}"]
        code, _, complaint = await run("serve", "tests.adapters_for_tests:Useful", *arguments)
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}: it is in use" in complaint


async def test_wide_address_needs_tls_or_a_word(short_path: Path) -> None:
    """Listening beyond loopback without TLS is refused, with the ways out."""
    arguments = ["--socket", str(short_path / "a.sock"), "--listen", "0.0.0.0:0"]
    code, _, complaint = await run("serve", "tests.adapters_for_tests:Useful", *arguments)
    assert code == 2
    assert "--insecure" in complaint


async def test_nobody_there_has_its_own_exit_code(short_path: Path) -> None:
    """Calling where nobody listens is said so, with exit status 4."""
    code, _, complaint = await run("call", "echo", "--address", f"unix:{short_path / 'nobody.sock'}")
    assert code == 4
    assert "cannot be reached" in complaint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[session_store]\ndefault_tll = 5\n",
            "session_store.default_tll: unknown setting; did you mean 'default_ttl'?",
        ),
        ("[session_store]\nmax_sessions = 0\n", "max_sessions must be 1 or more"),
        ("[pool]\nsize = 'two'\n", "pool.size: input should be a valid integer"),
        ("nonsense\n", "is not TOML"),
        ("[sesion_store]\n", "sesion_store: unknown setting; did you mean 'session_store'?"),
    ],
)
async def test_configuration_file_is_checked(tmp_path: Path, text: str, words: str) -> None:
    """An unknown key or bad value is refused, naming file and key."""
    file = tmp_path / "snakepit.toml"
    file.write_text(text)
    code, _, complaint = await run("serve", "tests.adapters_for_tests:Useful", "--config", str(file))
    assert code == 2
    assert str(file) in complaint
    assert words in complaint


async def test_settings_of_option_environment_and_file(short_path: Path) -> None:
    """Options win over the environment, which wins over the file."""
    file = short_path / "snakepit.toml"
    file.write_text(
        'adapter = "tests.adapters_for_tests:Useful"\nauthority_tools = ["tests.authority_tools"]\n'
        "[session_store]\nmax_sessions = 10\ndefault_ttl = 10.0\n[pool]\nsize = 1\n"
    )
    environ = {
        "SNAKEPIT_OTEL_SESSION_STORE__MAX_SESSIONS": "20",
        "SNAKEPIT_OTEL_SESSION_STORE__DEFAULT_TTL": "20",
        "SNAKEPIT_OTEL_ADDRESS": f"unix:{short_path / 'a.sock'}",
    }
    arguments = ["serve", "--config", str(file), "--socket", str(short_path / "a.sock"), "--default-ttl", "30"]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        assert await run("call", "greet", "name=you", environ=environ) == (0, "hello you\n", "")
        await run("call", "add", "amount=1", "--session", "s", environ=environ)
        _, output, _ = await run("sessions", "show", "s", "--json", environ=environ)
        assert json.loads(output)["ttl_seconds"] == 30
        _, output, _ = await run("sessions", "stats", "--json", environ=environ)
        assert json.loads(output)["max_sessions"] == 20
        os.kill(server.process.pid, signal.SIGINT)
        assert await server.ends() == 0


async def test_pools_are_served_and_shown(short_path: Path) -> None:
    """A file may have pools alone; tools find theirs, and status and restart speak of a real server."""
    file = short_path / "snakepit.toml"
    file.write_text(
        '[pools.first]\nadapter = "tests.adapters_for_tests:Useful"\nsize = 1\n'
        '[pools.second]\nadapter = "tests.pool.adapters:Other"\nsize = 2\n'
    )
    here = {"SNAKEPIT_OTEL_ADDRESS": f"unix:{short_path / 'a.sock'}"}
    arguments = ["serve", "--config", str(file), "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments) as server:
        line = await server.says("serving")
        assert "Useful with 1 workers (pool first), tests.pool.adapters:Other with 2 workers (pool second)" in line
        _, pid, _ = await run("call", "elsewhere", "--idempotent", environ=here)
        code, output, _ = await run("status", "--json", environ=here)
        pools = {pool["name"]: pool for pool in json.loads(output)["pools"]}
        assert [(name, pool["answered"]) for name, pool in pools.items()] == [("first", 0), ("second", 1)]
        assert int(pid) in [worker["pid"] for worker in pools["second"]["workers"]]
        code, _, complaint = await run("call", "echo", "value=1", "--pool", "third", environ=here)
        assert (code, complaint) == (3, "error: there is no pool 'third'; there are: first, second; nothing was run\n")
        code, output, _ = await run("restart", "--pool", "second", environ=here)
        assert (code, output.splitlines()[-1]) == (0, "2 of 2 workers replaced")
        _, output, _ = await run("status", environ=here)
        assert "pool      second, tests.pool.adapters:Other, process, hint" in output


async def test_settings_of_a_pool_that_is_not_there_are_refused(tmp_path: Path) -> None:
    """`[pool]` without an adapter is a mistake, not to be ignored."""
    file = tmp_path / "snakepit.toml"
    file.write_text('[pool]\nsize = 1\n[pools.only]\nadapter = "tests.pool.adapters:Other"\n')
    code, _, complaint = await run("serve", "--config", str(file))
    assert (code, complaint) == (
        2, "error: pool.* is for the workers of the top-level adapter, and there is none\n",
    )  # fmt: skip


async def test_help_is_for_newcomers() -> None:
    """Every command says what it does."""
    code, output, _ = await run("--help")
    assert code == 0
    assert {"serve", "worker", "call", "sessions", "demo"} <= set(output.split())
