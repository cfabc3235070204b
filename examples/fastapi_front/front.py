"""A front end in FastAPI, with sessions, server-sent events, and errors as HTTP statuses."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from snakepit_otel import Client, telemetry
from snakepit_otel.errors import SnakepitError

TIMEOUT = 10.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    exporting = telemetry.setup("notebook-web", role="client")
    # The server of this machine, or that of SNAKEPIT_OTEL_ADDRESS. One client serves all requests.
    async with Client() as app.state.client:
        yield
    exporting.shutdown()


app = FastAPI(lifespan=lifespan)


def client(request: Request) -> Client:
    found: Client = request.app.state.client
    return found


def user(authorization: Annotated[str, Header()] = "") -> str:
    """Return who calls; put the check of your tokens here."""
    scheme, _, name = authorization.partition(" ")
    if scheme != "Bearer" or not name.isidentifier():
        raise HTTPException(401, "who are you? Send 'Authorization: Bearer NAME'")
    return name


Tools = Annotated[Client, Depends(client)]
User = Annotated[str, Depends(user)]


@app.exception_handler(SnakepitError)
async def answer_error(_request: Request, error: SnakepitError) -> JSONResponse:
    return JSONResponse(problem(error), error.http_status)


def problem(error: SnakepitError) -> dict[str, object]:
    """Return what a caller may know: of an error that a tool raised its type and message, without the traceback."""
    return {"error": type(error).__name__, "message": str(error), "retryable": error.retryable}


@app.post("/notes")
async def add(text: str, tools: Tools, user: User) -> int:
    count: int = await tools.execute("add", {"text": text}, session_id=f"notes-{user}", timeout=TIMEOUT)
    return count


@app.get("/notes", response_class=EventSourceResponse)
async def read(tools: Tools, user: User, pause: float = 0.0) -> AsyncIterator[ServerSentEvent]:
    # A browser that leaves closes this generator, and with it the stream, which cancels the tool.
    async with aclosing(tools.stream("read", {"pause": pause}, session_id=f"notes-{user}")) as notes:
        try:
            async for note in notes:
                yield ServerSentEvent(data=note)
        except SnakepitError as error:
            yield ServerSentEvent(event="error", data=problem(error))


@app.delete("/notes", status_code=204)
async def clear(tools: Tools, user: User) -> None:
    await tools.delete_session(f"notes-{user}")
