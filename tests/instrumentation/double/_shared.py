"""Steps that both servers have in common; upstream has them in each."""

import asyncio
import inspect
import json
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import snakepit_bridge_pb2 as pb2
from google.protobuf import timestamp_pb2
from snakepit_bridge import logging_config, serialization, session_context

log = logging_config.get_logger("grpc_server")

LIMIT = 100 * 1024 * 1024
MESSAGE_SIZES = [("grpc.max_send_message_length", LIMIT), ("grpc.max_receive_message_length", LIMIT)]
_FROM_ARGUMENTS = ("library", "python_module", "function", "call_type", "payload_version")
_KINDS = ((bool, "boolean"), (dict, "map"), (str, "string"), ((int, float), "float"), (list, "list"))


async def _maybe_cleanup(adapter) -> None:
    try:
        done = adapter.cleanup() if hasattr(adapter, "cleanup") else None
        if inspect.isawaitable(done):
            await done
    except Exception as error:
        log.warning("cleaning up failed: %s", error)


async def _close_iterator(iterator) -> None:
    try:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
        elif hasattr(iterator, "close"):
            iterator.close()
    except Exception as error:
        log.debug("closing failed: %s", error)


class Work:
    """One request on its way through an adapter, in upstream's order.

    The servers differ in what they send when they make the session, in what they do when they have met it (`met`),
    how they `register` tools, how they `call` phases, and what they do about adapters that run no tools (`toolless`).
    """

    def __init__(
        self,
        servicer: Any,
        request: Any,
        *,
        met: Callable[[], Awaitable[Any]],
        register: Callable[[Any], Awaitable[Any]],
        call: Callable[..., Awaitable[Any]],
        toolless: Callable[[], Awaitable[Any]],
        **sent: Any,
    ):
        self.servicer, self.request, self.sent = servicer, request, sent
        self.met, self.register, self.call, self.toolless = met, register, call, toolless
        self.began = time.time()
        self.adapter: Any = None
        self.arguments: dict[str, Any] | None = None

    async def run(self) -> Any:
        """Go from the making of the session to what the tool returns."""
        request, stub = self.request, self.servicer.sync_elixir_stub
        # Blocking, as upstream's is, though this runs on the event loop.
        with suppress(grpc.RpcError):
            stub.InitializeSession(pb2.InitializeSessionRequest(session_id=request.session_id), **self.sent)
        scope = session_context.SessionContext(stub, request.session_id, request_metadata=dict(request.metadata))
        await self.met()
        self.adapter = self.servicer.adapter_class()
        self.adapter.set_session_context(scope)
        if hasattr(self.adapter, "register_with_session"):
            await self.register(self.adapter)
        if hasattr(self.adapter, "initialize"):
            await self.call(self.adapter.initialize)
        decode = serialization.TypeSerializer.decode_any
        self.arguments = {name: decode(value) for name, value in request.parameters.items()}
        for name, value in request.binary_parameters.items():
            if request.metadata.get(f"binary_format:{name}") == "pickle":
                raise ValueError("the double does not unpickle")
            self.arguments[name] = value
        if not hasattr(self.adapter, "execute_tool"):
            await self.toolless()
        named = {"tool_name": request.tool_name, "arguments": self.arguments, "context": scope}
        return await self.call(self.adapter.execute_tool, **named)

    def answer(self, result: Any) -> pb2.ExecuteToolResponse:
        kind = next((name for kind, name in _KINDS if isinstance(result, kind)), "string")
        packed, binary = serialization.TypeSerializer.encode_any(result, kind)
        taken = int(1000 * (time.time() - self.began))
        return pb2.ExecuteToolResponse(success=True, result=packed, binary_result=binary, execution_time_ms=taken)

    def failure(self, error: Exception) -> str:
        """Return the JSON that tells Elixir of an error."""
        where = {"tool_name": self.request.tool_name, "session_id": self.request.session_id}
        where |= {key: value for key, value in (self.arguments or {}).items() if key in _FROM_ARGUMENTS}
        lines = traceback.format_exception(error)
        what = {"type": type(error).__name__, "message": str(error), "context": where}
        return json.dumps({**what, "stacktrace": lines, "traceback": "".join(lines)})


def pong(words: str) -> pb2.PingResponse:
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return pb2.PingResponse(message=words, server_time=now)


def find_adapter(path: str) -> Any:
    """Import an adapter, or end the process with 1."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(__import__(module, fromlist=[name]), name)
    except (ImportError, AttributeError) as error:
        log.error("adapter %s cannot be imported: %s", path, error)
        raise SystemExit(1) from None


async def reach(address: str, stub_of: Any, tries: int | None, delay: float) -> bool:
    """Ping Elixir until it answers, waiting twice as long each time, up to two seconds."""
    attempt = 0
    while tries is None or attempt < tries:
        attempt += 1
        async with grpc.aio.insecure_channel(address) as way:
            try:
                await asyncio.wait_for(stub_of(way).Ping(pb2.PingRequest(message="connection_test")), 1)
                return True
            except Exception as error:
                log.debug("Elixir does not answer at %s: %s", address, error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, 2)
    log.error("no Elixir at %s after %s tries", address, attempt)
    return False


async def serve_until(told: asyncio.Event, server: Any, servicer: Any, add: Callable[[], None], port: int) -> None:
    """Serve, say at which port, and stop in order: the servicer, the server with two seconds' grace, the process."""
    servicer.set_server(server)
    add()
    try:
        bound = server.add_insecure_port(f"[::]:{port}")
    except Exception as error:
        log.error("port %s cannot be bound: %s", port, error)
        raise SystemExit(1) from None
    await server.start()
    tell_ready(bound)
    termination = asyncio.ensure_future(server.wait_for_termination())
    try:
        await told.wait()
    finally:
        await servicer.close()
        await server.stop(2)
        with suppress(TimeoutError):
            await asyncio.wait_for(termination, 3)


def tell_ready(port: int) -> None:
    if path := os.environ.get("SNAKEPIT_READY_FILE"):
        with open(path + ".tmp", "w", encoding="utf-8") as file:  # noqa: PTH123
            print(port, end="", file=file, flush=True)
            os.fsync(file.fileno())
        os.replace(file.name, path)  # noqa: PTH105


def maybe_create_process_group():
    """Lead a process group of our own, if the environment asks for it."""
    asked = os.environ.get("SNAKEPIT_PROCESS_GROUP", "").lower() in {"1", "true", "yes", "on"}
    if asked:
        os.setsid()
    return asked


def run_to_the_end(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run until a signal ends it; whatever else ends it ends the process with 1."""
    import signal

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not loop.add_signal_handler, which would put the handler on the loop's turn instead of between two bytecodes.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(told.set))
    try:
        loop.run_until_complete(serve(told))
    except BaseException:
        log.exception("the worker failed")
        raise SystemExit(1) from None
    finally:
        loop.close()
