"""`snakepit-otel telemetry` against a running server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.processes import program, run


@pytest.fixture
async def address(short_path: Path) -> AsyncIterator[dict[str, str]]:
    """The environment in which commands find a server with one worker."""
    socket = short_path / "a.sock"
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(socket)]
    async with program("-m", "snakepit_otel", *arguments) as started:
        await started.says("serving")
        yield {"SNAKEPIT_OTEL_ADDRESS": f"unix:{socket}"}


async def test_it_is_turned_down_and_shown(address: dict[str, str]) -> None:
    """What is given is changed and the rest is kept; without options it only shows; requests go on."""
    code, output, _ = await run("telemetry", environ=address)
    assert (code, output.split()) == (0, ["level", "full", "sampling", "1.0", "allow", "-", "deny", "-"])
    await run("telemetry", "--level", "essential", "--deny", "rpc.*", "--deny", "snakepit.pool.*", environ=address)
    code, output, _ = await run("telemetry", "--sampling", "0.1", "--json", environ=address)
    assert code == 0
    assert json.loads(output) == {
        "level": "essential",
        "sampling": 0.1,
        "allow": [],
        "deny": ["rpc.*", "snakepit.pool.*"],
    }
    assert await run("call", "echo", "value=1", environ=address) == (0, "1\n", "")
    _, output, _ = await run("telemetry", "--no-filter", environ=address)
    assert output.split() == ["level", "essential", "sampling", "0.1", "allow", "-", "deny", "-"]


async def test_what_cannot_be_is_said(address: dict[str, str]) -> None:
    """A bad value is named with what would do, is wrong usage, and changes nothing."""
    for arguments, words in (
        (["--level", "loud"], "telemetry.level: input should be 'off', 'essential' or 'full' (got 'loud')"),
        (["--sampling", "2"], "telemetry.sampling: input should be less than or equal to 1 (got 2.0)"),
        (["--allow", "adapter.*"], "telemetry.allow: the pattern 'adapter.*' matches no lifecycle point"),
        (["--no-filter", "--deny", "*"], "give one or the other"),
    ):
        code, output, complaint = await run("telemetry", *arguments, environ=address)
        assert (code, output) == (2, "")
        assert words in complaint
    _, output, _ = await run("telemetry", "--json", environ=address)
    assert json.loads(output) == {"level": "full", "sampling": 1.0, "allow": [], "deny": []}
