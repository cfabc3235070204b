"""Attribution of sessions to the line of code that created them."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import snakepit_otel
from snakepit_otel.sessions import Session, SessionStore


@pytest.fixture
def store() -> SessionStore:
    """A store in strict mode."""
    return SessionStore(strict_mode=True)


def site(session: Session) -> str:
    """Return the call site that a session was created from."""
    assert session.origin is not None
    return session.origin.creator.call_site


async def helper(store: SessionStore) -> Session:
    """Create a session one call deeper."""
    await asyncio.sleep(0)
    return await store.create()


HELPER = f"sessions/test_attribution.py:{inspect.getsourcelines(helper)[1] + 3} in helper"


async def test_the_call_site_is_the_line_that_creates(store: SessionStore) -> None:
    """File with its directory, line and qualified name of the function."""
    session = await store.create()
    line = inspect.getsourcelines(test_the_call_site_is_the_line_that_creates)[1] + 2
    function = test_the_call_site_is_the_line_that_creates.__name__
    assert site(session) == f"sessions/test_attribution.py:{line} in {function}"


async def test_the_call_site_is_found_across_awaits(store: SessionStore) -> None:
    """A coroutine that was suspended before it creates is named all the same."""
    assert site(await helper(store)) == HELPER


async def test_the_call_site_is_found_in_a_task(store: SessionStore) -> None:
    """In a task of its own the code is named, and not the event loop."""
    assert site(await asyncio.create_task(helper(store))) == HELPER


async def test_a_scope_is_laid_at_the_door_of_its_block(store: SessionStore) -> None:
    """`async with store.scope()` is named where it stands, not where contextlib enters it."""
    async with store.scope() as session:
        pass
    assert site(session).startswith("sessions/test_attribution.py:")
    assert site(session).endswith("in test_a_scope_is_laid_at_the_door_of_its_block")


async def test_a_create_that_is_a_task_itself_is_not_laid_to_the_event_loop(store: SessionStore) -> None:
    """Where no code of the caller is on the stack, the standard library is not blamed in its place."""
    session = await asyncio.create_task(store.create())
    assert not site(session).startswith("asyncio/")


@pytest.mark.parametrize("directory", [f"{Path(snakepit_otel.__file__).parent}_app", "/home/ann/asyncio"])
async def test_code_in_a_directory_named_like_ours_is_not_ours(store: SessionStore, directory: str) -> None:
    """Only this package and the standard library's event loop are passed over."""
    scope: dict[str, Any] = {}
    source = "async def main(store):\n    return await store.create()\n"
    exec(compile(source, f"{directory}/main.py", "exec"), scope)
    session = await scope["main"](store)
    assert site(session) == f"{Path(directory).name}/main.py:2 in main"


def test_the_package_knows_itself_behind_a_link(tmp_path: Path) -> None:
    """Imported through a symbolic link, the package still does not name itself."""
    (tmp_path / "snakepit_otel").symlink_to(Path(snakepit_otel.__file__).parent)
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\n"
        "from snakepit_otel.sessions import SessionStore\n"
        "async def main():\n"
        "    session = await SessionStore(strict_mode=True).create()\n"
        "    print(session.origin.creator.call_site)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tmp_path.name}/script.py:4 in main"
