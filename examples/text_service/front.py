"""The service's front end: uvicorn examples.text_service.front:app."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from snakepit_otel import Client, telemetry, zero_copy
from snakepit_otel.errors import SnakepitError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    exporting = telemetry.setup("text-web", role="client")
    async with Client() as app.state.client:
        yield
    exporting.shutdown()


app = FastAPI(title="Texts", lifespan=lifespan)


def client(request: Request) -> Client:
    found: Client = request.app.state.client
    return found


Tools = Annotated[Client, Depends(client)]
Text = Annotated[str, Body(embed=True, max_length=10_000)]
User = Annotated[str, Header(pattern=r"^[a-z0-9]{1,40}$", alias="X-User")]  # set by the proxy that authenticates


@app.exception_handler(SnakepitError)
async def answer_error(_request: Request, error: SnakepitError) -> JSONResponse:
    return JSONResponse(
        {"error": type(error).__name__, "message": str(error), "retryable": error.retryable}, error.http_status
    )


@app.post("/classify")
async def classify(text: Text, user: User, tools: Tools) -> dict[str, Any]:
    found: dict[str, Any] = await tools.execute("classify", {"text": text}, session_id=user, timeout=5)
    return found


@app.get("/history")
async def history(user: User, tools: Tools) -> list[str]:
    labels: list[str] = await tools.execute("history", session_id=user, timeout=5)
    return labels


@app.post("/explain", response_class=EventSourceResponse)
async def explain(text: Text, tools: Tools) -> AsyncIterator[ServerSentEvent]:
    async with aclosing(tools.stream("explain", {"text": text}, timeout=30)) as words:
        async for word in words:
            yield ServerSentEvent(data=word)


@app.post("/nearest")
async def nearest(texts: Annotated[list[str], Body(max_length=1_000)], to: int, tools: Tools) -> list[str]:
    vectors = await tools.execute("embed", {"texts": texts}, pool="vectors", timeout=5)
    # One copy, into memory that the next worker maps; nothing of it crosses gRPC.
    arguments = {"vectors": zero_copy.from_numpy(vectors), "to": to}
    rows = await tools.execute("nearest", arguments, pool="vectors", timeout=5)
    return [texts[row] for row in rows]
