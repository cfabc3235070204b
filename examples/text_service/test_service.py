"""Tests of the service: its tools alone, and all of it behind the front end."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from examples.text_service.adapters import Classifier, Vectors
from examples.text_service.front import app
from snakepit_otel import Snakepit
from snakepit_otel.settings import load_settings
from snakepit_otel.testing import run_tool

ALICE = {"X-User": "alice"}


async def test_a_tool_alone() -> None:
    """The classifier adds to the history that it finds."""
    Classifier.on_worker_start()
    found = await run_tool(Classifier, "classify", {"text": "I love it"}, state={"history": ["question"]})
    assert (found["label"], found["seen"]) == ("praise", 2)


async def test_vectors_are_of_unit_length() -> None:
    """Equal texts have equal vectors of length one."""
    vectors = await run_tool(Vectors, "embed", {"texts": ["snake", "snake"]})
    assert vectors[0] @ vectors[1] == pytest.approx(1)


@pytest.fixture
async def web(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    settings = load_settings(Path(__file__).with_name("snakepit.toml"))
    async with Snakepit(settings.adapter, pool=settings.pool, pools=settings.pools) as pit:
        monkeypatch.setenv("SNAKEPIT_OTEL_ADDRESS", pit.socket)
        web = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web")
        async with app.router.lifespan_context(app), web:
            yield web


async def test_the_service(web: httpx.AsyncClient) -> None:
    """Users have histories of their own; words are streamed; vectors cross by reference; errors have statuses."""
    for seen, text in enumerate(("the food was awful", "how much is that?"), 1):
        answer = await web.post("/classify", json={"text": text}, headers=ALICE)
        assert answer.json()["seen"] == seen
    assert (await web.get("/history", headers=ALICE)).json() == ["complaint", "question"]
    assert (await web.get("/history", headers={"X-User": "bob"})).json() == []
    assert (await web.post("/explain", json={"text": "love it"})).text.count("data:") == 2
    texts = ["green snake", "blue car", "green snakes", "red house"]
    assert (await web.post("/nearest?to=0", json=texts)).json()[0] == "green snakes"
    refused = await web.post("/classify", json={"text": " "}, headers=ALICE)
    assert (refused.status_code, refused.json()["message"]) == (500, "ValueError: there is no text")
