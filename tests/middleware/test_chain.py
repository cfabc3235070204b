"""Order, failures and telemetry of middleware hooks."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from snakepit_otel import Middleware, MiddlewareRequest, MiddlewareResult, RequestRefused
from snakepit_otel.errors import DeadlineExceeded, MiddlewareFailed
from snakepit_otel.middleware._chain import MiddlewareChain
from snakepit_otel.testing import Capture
from tests.middleware.hooks import Recorder


async def run(*middleware: Middleware, work: Any = None, request: MiddlewareRequest | None = None) -> Any:
    """Run a request that returns 7 between the hooks of a chain."""

    async def seven() -> int:
        return 7

    return await MiddlewareChain(middleware).run(request or MiddlewareRequest("paint"), work or seven, MiddlewareResult)


async def test_hooks_run_in_order_before_and_in_reverse_after() -> None:
    """The first middleware is the outermost one."""
    calls: list[str] = []

    async def work() -> int:
        calls.append("work")
        return 7

    assert await run(Recorder("a", calls), Recorder("b", calls), work=work) == 7
    assert calls == ["a.before", "b.before", "work", "b.after", "a.after"]


async def test_a_failed_request_runs_on_error_in_reverse() -> None:
    """Each middleware whose `before` has returned gets the error, and the caller gets it, too."""
    calls: list[str] = []

    async def work() -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await run(Recorder("a", calls), Recorder("b", calls), work=work)
    assert calls == ["a.before", "b.before", "b.on_error(KeyError)", "a.on_error(KeyError)"]


async def test_a_failure_that_is_an_answer_runs_on_error() -> None:
    """What `work` returned goes to the caller, whatever it stands for."""
    calls: list[str] = []

    async def work() -> str:
        return "failed"

    chain = MiddlewareChain([Recorder("a", calls)])
    assert await chain.run(MiddlewareRequest("paint"), work, lambda _: ValueError("no")) == "failed"
    assert calls == ["a.before", "a.on_error(ValueError)"]


async def test_a_refusal_ends_the_request_before_it_runs() -> None:
    """Only the middleware before the one that refuses gets `on_error`."""
    calls: list[str] = []
    refusing = Recorder("b", calls, {"before": RequestRefused("no", status="unauthenticated")})

    async def work() -> None:
        calls.append("work")

    with pytest.raises(RequestRefused, match="no") as refused:
        await run(Recorder("a", calls), refusing, Recorder("c", calls), work=work)
    assert refused.value.status == "unauthenticated"
    assert calls == ["a.before", "b.before", "a.on_error(RequestRefused)"]


@pytest.mark.parametrize(
    "error", [KeyError("x"), SystemExit(3), asyncio.CancelledError()], ids=lambda e: type(e).__name__
)
async def test_any_other_exception_names_the_middleware_and_the_hook(error: BaseException) -> None:
    """Whatever a hook raises fails the request, and nothing else."""
    with pytest.raises(
        MiddlewareFailed, match=r"middleware tests\.middleware\.hooks\.Recorder failed in before: "
    ) as failed:
        await run(Recorder("a", [], {"before": error}))
    assert failed.value.__cause__ is error


async def test_a_failing_after_fails_the_request_and_the_others_still_run() -> None:
    """The middleware before the failing one get the failure as the request's error."""
    calls: list[str] = []
    with pytest.raises(MiddlewareFailed, match="in after: ValueError: spilt"):
        await run(Recorder("a", calls), Recorder("b", calls, {"after": ValueError("spilt")}), Recorder("c", calls))
    assert calls[3:] == ["c.after", "b.after", "a.on_error(MiddlewareFailed)"]


async def test_a_failing_on_error_leaves_the_error_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the others still run."""
    calls: list[str] = []

    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await run(Recorder("a", calls), Recorder("b", calls, {"on_error": ValueError("spilt")}), work=work)
    assert calls[2:] == ["b.on_error(KeyError)", "a.on_error(KeyError)"]
    assert "Recorder.on_error failed, the request's own error stands" in caplog.text
    assert "spilt" in caplog.text


async def test_a_cancelled_request_runs_on_error() -> None:
    """So that what a middleware has taken is given back."""
    calls: list[str] = []
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(run(Recorder("a", calls), work=work))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == ["a.before", "a.on_error(CancelledError)"]


async def test_a_hook_may_take_no_longer_than_the_request() -> None:
    """The request's deadline holds for `before` as well."""
    calls: list[str] = []

    class Slow(Middleware):
        async def before(self, request: MiddlewareRequest) -> None:
            await asyncio.sleep(60)

    with pytest.raises(DeadlineExceeded):
        await run(Recorder("a", calls), Slow(), request=MiddlewareRequest("paint", deadline=time.monotonic() + 0.05))
    assert calls == ["a.before", "a.on_error(DeadlineExceeded)"]


async def test_hooks_may_be_plain_or_async_or_block() -> None:
    """Plain hooks run on the event loop, unless the middleware blocks; coroutine functions are awaited."""
    where: dict[str, Any] = {}

    class Mixed(Middleware):
        def before(self, request: MiddlewareRequest) -> None:
            where["plain"] = threading.current_thread()

        async def after(self, request: MiddlewareRequest, result: MiddlewareResult) -> None:
            await asyncio.sleep(0)
            where["result"] = result.value

    class Blocking(Middleware):
        blocking = True

        def before(self, request: MiddlewareRequest) -> None:
            where["blocking"] = threading.current_thread()
            request.set_attribute("tenant.id", "acme")

    request = MiddlewareRequest("paint")
    await run(Mixed(), Blocking(), request=request)
    assert where["plain"] is threading.current_thread()
    assert where["blocking"] is not threading.current_thread()
    assert where["result"] == 7
    assert request.attributes == {"tenant.id": "acme"}


async def test_each_hook_has_a_span_and_a_duration(capture: Capture) -> None:
    """By middleware and hook; hooks that are not overridden have none."""

    class First(Middleware):
        def before(self, request: MiddlewareRequest) -> None: ...

        def on_error(self, request: MiddlewareRequest, error: BaseException) -> None: ...

    with pytest.raises(RequestRefused):
        await run(First(), Recorder("b", [], {"before": RequestRefused("no")}))
    spans = [
        (span.attributes["snakepit.middleware.hook"], span.attributes.get("error.type"))
        for span in capture.spans("run middleware")
    ]
    assert spans == [("before", None), ("before", "RequestRefused"), ("on_error", None)]
    points = capture.points("snakepit.middleware.duration")
    assert {
        (point.attributes["snakepit.middleware.name"].rpartition(".")[2], point.attributes["snakepit.middleware.hook"])
        for point in points
    } == {("First", "before"), ("First", "on_error"), ("Recorder", "before")}


def test_attributes_of_a_request_are_bounded() -> None:
    """Beyond 64, new ones are ignored, and those that are there can be changed."""
    request = MiddlewareRequest("paint")
    for number in range(100):
        request.set_attribute(f"a{number}", number)
    request.set_attribute("a0", "changed")
    assert len(request.attributes) == 64
    assert request.attributes["a0"] == "changed"


def test_texts_of_attributes_are_bounded() -> None:
    """They may be what a caller has sent."""
    request = MiddlewareRequest("paint")
    request.set_attribute("a" * 2_000, "x" * 100_000)
    request.set_attribute("list", ["x" * 100_000] * 100)
    assert {len(key): len(value) for key, value in request.attributes.items()} == {1_024: 1_024, 4: 64}
    assert len(request.attributes["list"][0]) == 1_024  # type: ignore[index,arg-type]


def test_arguments_and_metadata_are_assigned() -> None:
    """They cannot be changed in place, so that no change is lost."""
    request = MiddlewareRequest("paint", {"colour": "red"}, metadata={"token": "x"})
    with pytest.raises(TypeError):
        request.arguments["colour"] = "blue"  # type: ignore[index]
    with pytest.raises(TypeError):
        request.metadata["token"] = "y"  # type: ignore[index]
    request.arguments = {**request.arguments, "colour": "blue"}
    assert request.arguments == {"colour": "blue"}


def test_a_refusal_has_a_status_of_grpc() -> None:
    """Others are a mistake of the middleware, which is named."""
    with pytest.raises(ValueError, match="must be one of permission_denied, unauthenticated, resource_exhausted"):
        RequestRefused("no", status="ok")
