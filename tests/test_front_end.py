"""Front end of the recipes behind a real web server."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
import uvicorn

from examples.fastapi_front.adapter import Notebook
from examples.fastapi_front.front import app
from snakepit_otel import Snakepit

ALICE = {"Authorization": "Bearer alice"}


async def test_a_browser_that_leaves_frees_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the connection of a stream is closed, its tool is cancelled, and the only worker serves the next request."""
    async with Snakepit(Notebook, workers=1) as pit:
        monkeypatch.setenv("SNAKEPIT_OTEL_ADDRESS", pit.socket)
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        serving = asyncio.create_task(server.serve([listening]))
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", headers=ALICE, timeout=60
            ) as web:
                await web.post("/notes?text=milk")
                async with web.stream("GET", "/notes?pause=3600") as stream:
                    assert await anext(stream.aiter_lines()) == 'data: "milk"'
                    assert (await pit.status()).pools[0].busy_slots == 1
                while (await pit.status()).pools[0].busy_slots:
                    await asyncio.sleep(0.005)
                assert (await web.post("/notes?text=bread")).json() == 2
        finally:
            server.should_exit = True
            await serving
