"""An event loop that goes on when other tasks than the main one call for its end."""

from __future__ import annotations

import asyncio
import signal

import pytest

from snakepit_otel.system import event_loop


@pytest.fixture
def sigint_is_handled() -> object:
    """Have SIGINT handled by somebody else than the interpreter, as in workers and servers."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_is_handled")
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_task_that_exits_ends_itself(error: BaseException) -> None:
    """Who awaits a task that calls `sys.exit` gets the exception; the loop and all other tasks go on."""

    async def leave() -> None:
        raise error

    async def main() -> str:
        task = asyncio.ensure_future(leave())
        other = asyncio.ensure_future(asyncio.sleep(0, "other"))
        await asyncio.wait([task])
        assert task.exception() is error
        return await other

    assert event_loop.run(main()) == "other"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("x")])
def test_the_main_task_may_exit(error: BaseException) -> None:
    """What the main coroutine raises comes out."""

    async def main() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(type(error)) as caught:
        event_loop.run(main())
    assert caught.value is error


def test_ctrl_c_ends_the_loop() -> None:
    """Where SIGINT is the interpreter's to handle, a KeyboardInterrupt ends the loop, whoever was running."""
    cancelled = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(KeyboardInterrupt):
        event_loop.run(main())
    assert cancelled
