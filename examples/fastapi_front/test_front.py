"""Tests of the front end, with the real server behind it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from examples.fastapi_front.adapter import Notebook
from examples.fastapi_front.front import app
from snakepit_otel import Snakepit

ALICE = {"Authorization": "Bearer alice"}


@pytest.fixture
async def web(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    async with Snakepit(Notebook, workers=1) as pit:
        monkeypatch.setenv("SNAKEPIT_OTEL_ADDRESS", pit.socket)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web") as web,
        ):
            yield web


async def test_the_front_end(web: httpx.AsyncClient) -> None:
    """Notes are kept for each user, streamed as events, and gone after a delete; errors have statuses."""
    assert (await web.post("/notes?text=milk")).status_code == 401
    for count, text in enumerate(("milk", "bread"), 1):
        assert (await web.post(f"/notes?text={text}", headers=ALICE)).json() == count
    assert (await web.get("/notes", headers=ALICE)).text.split() == ["data:", '"milk"', "data:", '"bread"']
    assert (await web.get("/notes", headers={"Authorization": "Bearer bob"})).text == ""
    refused = await web.post("/notes?text=%20", headers=ALICE)
    assert (refused.status_code, refused.json()["message"]) == (500, "ValueError: a note needs a text")
    assert (await web.delete("/notes", headers=ALICE)).status_code == 204
    assert (await web.get("/notes", headers=ALICE)).text == ""
