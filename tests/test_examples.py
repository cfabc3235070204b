"""The examples run, and print what they say."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest

from snakepit_otel.zero_copy import ZeroCopySettings
from tests.processes import ROOT, program

PRINTED = {
    "gpu_pool": (
        "worker 0 on GPU 0\nworker 1 on GPU 1\nthe same after a restart: True\n"
        "worker 0 on GPU 0\nworker 1 on GPU 1\nworker 2 on GPU 0\nworker 3 on GPU 1\n"
    ),
    "db_pool": "orders: [1, 2, 3]\nitems: ['milk', 'sugar', 'tea']\n",
    "counter": "1\n3\n6\n",
    "dict_backend": "",  # its tests are those of every backend: tests/sessions
    "short_lived_session": "total: 6\nsessions left: 0\n",
    "long_lived_session": "user_42 10\nuser_42 20\nuser_42 30\nsessions created: 1\n",
    "shared_session": "total: 20\nthe session ended with its owner\n",
    "tenancy": (
        "acme 1\nacme 2\nrefused: tenant 'acme' has 2 requests running; its limit is 2 (resource_exhausted)\n"
        "refused: the request's metadata name no tenant (permission_denied)\nacme 10\n"
    ),
    "rate_limit": (
        "acme 0\nacme 1\nacme 2\n"
        "refused: tenant 'acme' has more than 2 requests a second; retry in 0.50 s (resource_exhausted)\n"
        "others 1\nacme 4\n"
    ),
    "chat": (
        "alice: You wrote 'hello', and before that 'nothing'. \n"
        "alice: You wrote 'how are you?', and before that 'hello'. \n"
        "bob: You wrote 'hello', and before that 'nothing'. \n"
        "turns of alice: 4\n"
        "alice: You wrote 'who am I?', and before that 'nothing'. \n"
    ),
    "own_telemetry": "1.25\n",
    "upgrade": (
        "version 1 serves\nrestart: 2 of 2 workers replaced; version 2 serves\n"
        "take-over: the old server has ended; version 3 serves\nfailed calls: 0\n"
    ),
    "from_celery": "{'monday': 0.8888888888888888}\n",
    "from_ray_serve": "['bonjour monde', 'bonjour snake']\np-i-t\n",
    "model_serving": "719 images, 99.2% right\n",
    "torch_serving": "classes: [1, 0]\n",
    "token_check": ("42\nrefused: the token is missing or wrong (unauthenticated)\n42\nthe tool saw no token: True\n"),
    "summarizer": (
        "- Snakes have no legs\n- They smell with their tongues\n- Some glide through the air\nlast read: snakes\n"
    ),
    "tensor_by_reference": (
        "25,165,824 bytes went there, 25,165,824 came back\nspent with its request: True\nevery pixel is white: True\n"
    ),
    "table_by_reference": (
        "arrow (1000000, 2)\nLima 124999500000\nOslo 124999750000\nPune 125000250000\nNone 125000000000\n"
    ),
    "dlpack_by_reference": "dlpack cpu float32 (1000000,) owner elixir\nenergy: 250000.0\n",
}


# Lines that a tool logs, and workers write to standard error by default.
LOGGED = {"own_telemetry": " INFO shop: order of 1.25 EUR\n"}


async def output_of(*arguments: str, logged: str = "") -> str:
    """Run a program, which must complain of nothing else than what its tools log, and return what it prints."""
    async with program(*arguments) as started:
        output, complaints = await asyncio.wait_for(started.process.communicate(), 120)
    assert complaints.decode().endswith(logged)
    assert complaints.count(b"\n") == logged.count("\n"), complaints.decode()
    assert started.process.returncode == 0
    return output.decode()


def test_every_example_is_tested() -> None:
    """No example is left out here."""
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"} == PRINTED.keys()


@pytest.mark.parametrize("name", PRINTED)
async def test_example_prints_what_it_says(name: str) -> None:
    """The program ends well, with the output that its readers expect."""
    assert await output_of("-m", f"examples.{name}", logged=LOGGED.get(name, "")) == PRINTED[name]


async def test_example_runs_as_a_script() -> None:
    """A program and its adapter may live in one file that is run directly."""
    assert await output_of("examples/counter.py") == PRINTED["counter"]


def python_blocks(path: Path) -> list[str]:
    """Return the Python code of a Markdown page."""
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


async def test_readme_program_runs(tmp_path: Path) -> None:
    """The README's program is complete: put into a file, it runs and prints what the README says."""
    page = (ROOT / "README.md").read_text()
    block = next(block for block in python_blocks(ROOT / "README.md") if "asyncio.run" in block)
    file = tmp_path / "counter.py"
    file.write_text(block)
    printed = await output_of(str(file))
    assert f"```text\n{printed}```" in page


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_code_in_the_docs_compiles(page: Path) -> None:
    """Python in the documentation is Python."""
    for block in python_blocks(page):
        compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(("page", "prefix"), [("configuration.md", "zero_copy."), ("zero-copy.md", "")])
def test_limits_of_references_are_documented_as_they_are(page: str, prefix: str) -> None:
    """Both pages list every setting of the group, with its default."""
    text = (ROOT / "docs" / page).read_text()
    for name, default in ZeroCopySettings().model_dump().items():
        assert f"| `{prefix}{name}` | {str(default).lower()} |" in text


async def test_the_page_on_testing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page shows is a project whose tests pass as they stand; each block begins with the name of its file."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for block in python_blocks(ROOT / "docs" / "testing.md"):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    arguments = ("-m", "pytest", "-q", "-p", "no:randomly", "--rootdir", str(tmp_path), str(tmp_path))
    async with program(*arguments) as started:
        printed, _ = await asyncio.wait_for(started.process.communicate(), 120)
    assert "24 passed" in printed.decode(), printed.decode()
