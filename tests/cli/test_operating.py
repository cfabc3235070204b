"""`tools`, `requests` and `call` against a server with a worker."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snakepit_otel import BaseAdapter, Snakepit, tool
from snakepit_otel.cli.app import app
from snakepit_otel.errors import RequestCancelled
from tests.waiting import until


class Shop(BaseAdapter):
    """Tools with arguments of several types."""

    @tool(idempotent=True)
    def order(self, name: str, amount: float = 1.0, gift: bool = False) -> list[object]:
        """Order \x1b[2J something.

        It is sent at once.
        """
        return [name, amount, gift]

    @tool
    def count(self) -> int:
        """Count the session's requests."""
        return self.session_context.state.change("n", lambda n: n + 1, default=0)

    @tool
    def until_there(self, path: Path) -> None:
        """Wait for a file."""
        while not path.exists():
            time.sleep(0.01)


async def run(*arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and complaints, each as wide as it is."""
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    return result.exit_code, result.stdout, result.stderr


async def test_tools_requests_and_arguments(tmp_path: Path, short_path: Path) -> None:
    """Tools are listed and shown, arguments are converted, and requests are listed and cancelled."""
    config = tmp_path / "shop.toml"
    config.write_text(f'[server]\nsocket = "{short_path}/s/a.sock"\n')
    (short_path / "s").mkdir(mode=0o700)
    where = ("--config", str(config))
    async with Snakepit(Shop, workers=1, server={"socket": short_path / "s" / "a.sock"}) as pit:
        code, table, _ = await run("tools", *where)
        _, shown, _ = await run("tools", "order", *where)
        _, as_json, _ = await run("tools", "order", "--json", *where)
        _, called, _ = await run("call", "order", "name=123", "amount=5", "gift=true", "--json", *where)
        wrong = await run("call", "order", "name=x", "amount=much", *where)
        unknown = await run("call", "oder", *where)
        no_session = await run("call", "count", *where)
        assert code == 0
        assert "(name: str, amount: float = 1.0, gift: bool = False) -> list[object]" in table
        assert "Order \\x1b[2J something. [idempotent]" in table
        assert "It is sent at once." in shown
        (one,) = json.loads(as_json)
        assert (one["name"], one["pool"], one["idempotent"], one["streams"]) == ("order", "default", True, False)
        assert one["inputSchema"]["properties"]["amount"] == {"type": "number", "default": 1.0}
        assert json.loads(called) == ["123", 5.0, True]
        assert wrong[0] == 2
        assert "error: argument 'amount' is 'much', and must be a number" in wrong[2]
        assert "hint: order(name: str, amount: float" in wrong[2]
        assert unknown[0] == 3
        assert "hint: did you mean 'order'?; all are listed by: snakepit-otel tools" in unknown[2]
        assert "--session ID" in no_session[2]

        calling = asyncio.ensure_future(pit.execute("until_there", {"path": str(tmp_path / "there")}))
        await until(lambda: pit.list_requests().total)
        _, listed, _ = await run("requests", "list", "--json", *where)
        (request,) = json.loads(listed)["requests"]
        assert (request["tool"], request["state"], request["worker_id"]) == ("until_there", "running", "default-1.1")
        _, table, _ = await run("requests", "list", *where)
        missing, _, _ = await run("requests", "cancel", "zzzz", *where)
        assert request["id"][:12] in table
        assert missing == 3
        assert (await run("requests", "cancel", request["id"][:12], *where))[0] == 0
        with pytest.raises(RequestCancelled, match="it may have run in part"):
            await calling
        (tmp_path / "there").touch()
