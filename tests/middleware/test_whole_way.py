"""Middleware on the whole way: callers, authority, worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel import Client, Middleware, MiddlewareRequest, RequestRefused, Snakepit
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.cli.worker import _middleware
from snakepit_otel.errors import ConfigurationError, MiddlewareFailed, ValueRefused
from snakepit_otel.testing import OtlpSink
from tests.adapters_for_tests import Useful
from tests.bridge.parts import raw, worker

HERE = __name__
STATUSES = {
    "permission_denied": grpc.StatusCode.PERMISSION_DENIED,
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "resource_exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Refusing(Middleware):
    """Refuses requests whose metadata say so, and keeps who called."""

    def __init__(self, key: str = "refuse") -> None:
        self._key = key
        self.requests: list[MiddlewareRequest] = []

    def before(self, request: MiddlewareRequest) -> None:
        self.requests.append(request)
        status = request.metadata.get(self._key)
        if status == "broken":
            raise KeyError("x")
        if status is not None:
            raise RequestRefused(f"no, says the {request.side}", status=status)


class Tagging(Middleware):
    """Gives the worker's spans and events the tenant."""

    def before(self, request: MiddlewareRequest) -> None:
        request.set_attribute("tenant.id", request.metadata["tenant"])


WORKER_SIDE = {"worker": [f"{HERE}:Refusing"], "options": {f"{HERE}:Refusing": {"key": "refuse_there"}}}


async def refused(call: Any) -> RequestRefused:
    """Return the refusal that a call raises."""
    with pytest.raises(RequestRefused) as raised:
        await call
    return raised.value


async def exhaust(stream: Any) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


async def test_refusals_reach_callers_as_themselves_and_as_statuses() -> None:
    """From either side, for requests and streams, in this process, by our client, and by any other."""
    mine = Refusing()
    async with Snakepit(Useful, workers=1, middleware={"authority": [mine], **WORKER_SIDE}) as pit:
        async with Client(pit.socket, metadata={"user": "42"}) as client:
            for caller in (pit, client):
                for key, side in (("refuse", "authority"), ("refuse_there", "worker")):
                    for status in STATUSES:
                        metadata = {key: status}
                        error = await refused(caller.execute("echo", {"value": 1}, metadata=metadata))
                        assert (str(error), error.status) == (f"no, says the {side}", status)
                        error = await refused(exhaust(caller.stream("echo", {"value": 1}, metadata=metadata)))
                        assert (str(error), error.status) == (f"no, says the {side}", status)
            with pytest.raises(
                MiddlewareFailed, match=r"middleware tests\.middleware\.test_whole_way\.Refusing failed in before"
            ):
                await client.execute("echo", {"value": 1}, metadata={"refuse": "broken"})
            with pytest.raises(MiddlewareFailed, match="KeyError"):
                await client.execute("echo", {"value": 1}, metadata={"refuse_there": "broken"})
            assert await client.execute("echo", {"value": 1}) == 1
            assert mine.requests[-1].metadata == {"user": "42"}
            with pytest.raises(ValueRefused, match="reserved"):
                await client.execute("echo", {"value": 1}, metadata={"snakepit_pool": "gpu"})
        async with aio.insecure_channel(pit.socket) as channel:
            stub = BridgeServiceStub(channel)
            for key in ("refuse", "refuse_there"):
                for status, code in STATUSES.items():
                    request = pb.ExecuteToolRequest(tool_name="echo", parameters=raw(value=1), metadata={key: status})
                    with pytest.raises(aio.AioRpcError) as failed:
                        await stub.ExecuteTool(request)
                    assert failed.value.code() is code
                    with pytest.raises(aio.AioRpcError) as failed:
                        await exhaust(stub.ExecuteStreamingTool(request))
                    assert failed.value.code() is code


async def test_callers_have_an_identity() -> None:
    """This process and Unix sockets are trusted; on TCP without certificates, a machine's address is not."""
    mine = Refusing()
    pit = Snakepit(Useful, workers=1, middleware=[mine], server={"listen": "127.0.0.1:0"})
    async with pit:
        await pit.execute("echo", {"value": 1}, timeout=60)
        for address in (pit.socket, str(pit.address)):
            async with aio.insecure_channel(address) as channel:
                request = pb.ExecuteToolRequest(tool_name="echo", parameters=raw(value=1))
                call = BridgeServiceStub(channel).ExecuteTool(request, metadata=(("authorization", "Bearer x"),))
                assert (await call).success
    local, unix, tcp = (request.caller for request in mine.requests)
    assert (local.name, local.is_trusted, dict(local.headers)) == ("unix", True, {})
    assert (unix.name, unix.is_trusted, unix.headers["authorization"]) == ("unix", True, "Bearer x")
    assert (tcp.name, tcp.is_trusted, tcp.tls_subject) == ("127.0.0.1", False, None)
    assert tcp.headers["authorization"] == "Bearer x"
    assert mine.requests[0].deadline is not None


async def test_attributes_of_workers_reach_their_exported_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request's span has them, beside the middleware's own."""
    with OtlpSink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        middleware = {"worker": [f"{HERE}:Tagging"]}
        async with Snakepit(Useful, workers=1, middleware=middleware) as pit:
            for tenant in ("acme", "other"):
                await pit.execute("echo", {"value": 1}, metadata={"tenant": tenant}, session_id="alice")
            spans = await sink.wait_for(
                lambda seen: len([s for s in seen.spans if s.name == "handle request"]) == 2 and list(seen.spans)
            )
    handled = [span for span in spans if span.name == "handle request"]
    assert [span.attributes["tenant.id"] for span in handled] == ["acme", "other"]
    assert {span.attributes["session.id"] for span in handled} == {"alice"}
    (first, *_) = [span for span in spans if span.name == "run middleware"]
    assert first.attributes["snakepit.middleware.name"] == "tests.middleware.test_whole_way.Tagging"
    assert first.attributes["snakepit.middleware.hook"] == "before"


async def test_a_worker_without_our_authority_refuses_by_status(tmp_path: Path) -> None:
    """As one that Elixir has started does; its callers are known by their peer."""
    middleware = [(f"{HERE}:Refusing", {})]
    async with worker(Useful, f"unix:{tmp_path}/nobody", tmp_path, middleware=middleware) as stub:
        request = pb.ExecuteToolRequest(tool_name="echo", parameters=raw(value=1))
        assert (await stub.ExecuteTool(request)).success
        request.metadata["refuse"] = "unauthenticated"
        for call in (stub.ExecuteTool(request), exhaust(stub.ExecuteStreamingTool(request))):
            with pytest.raises(aio.AioRpcError) as failed:
                await call
            assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_worker_under_elixir_takes_middleware_from_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings are read only where a variable is for them; what is the authority's is left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snakepit.toml").write_text("no TOML")
    assert _middleware() == ()
    (tmp_path / "snakepit.toml").unlink()
    monkeypatch.setenv("SNAKEPIT_OTEL_MIDDLEWARE__AUTHORITY", "no_such:Thing")
    monkeypatch.setenv("SNAKEPIT_OTEL_MIDDLEWARE__WORKER", f"{HERE}:Refusing")
    assert _middleware() == ((f"{HERE}:Refusing", {}),)


async def test_a_worker_whose_middleware_cannot_be_made_does_not_start() -> None:
    """The error says which, and why."""
    with pytest.raises(ConfigurationError, match="middleware 'no_such_module:Own': importing no_such_module failed"):
        async with Snakepit(Useful, workers=1, middleware={"worker": ["no_such_module:Own"]}):
            pass
