"""The example container, as far as it can be run without a container engine: its file, and its first process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from snakepit_otel import Client
from tests.cli.test_first_process import can_unshare
from tests.processes import ROOT, children, run

FOLDER = ROOT / "examples" / "docker"
TEXT = (FOLDER / "Containerfile").read_text()


def hadolint() -> str | None:
    """Return the linter's path: that of PATH, or where scripts/install-hadolint puts it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installed = sorted(cache.glob("snakepit_otel/hadolint-*/bin/hadolint"))
    return shutil.which("hadolint") or next(map(str, reversed(installed)), None)


@pytest.mark.skipif(hadolint() is None, reason="there is no hadolint; scripts/install-hadolint installs it")
def test_the_file_is_linted() -> None:
    """hadolint has nothing to complain about."""
    linted = subprocess.run(
        [hadolint() or "", FOLDER / "Containerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")


def test_the_file_has_what_it_copies() -> None:
    """Every file it copies from the project is there, and not kept from the engine."""
    admitted = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.*)", TEXT, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in admitted), source


def test_another_user_and_no_shell() -> None:
    """The program is not root, and is itself the first process, with times that fit its settings."""
    assert re.search(r"^USER (\d+)$", TEXT, re.MULTILINE)
    for instruction in ("ENTRYPOINT", "CMD"):
        found = re.search(rf"^{instruction} (.*)$", TEXT, re.MULTILINE)
        assert found is not None
        assert json.loads(found[1])
    settings = tomllib.loads((FOLDER / "snakepit.toml").read_text())
    stopping = re.search(r"stop_grace_period: (\d+)s", (FOLDER / "compose.yaml").read_text())
    assert stopping is not None
    assert int(stopping[1]) * 1000 >= settings["pool"]["shutdown_grace"] + 5_000


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make a process namespace, which root has")
async def test_the_server_is_the_first_process(short_path: Path) -> None:
    """As process 1 it is healthy, answers, and ends with code 0 within its grace when the engine sends SIGTERM."""
    words = [*json.loads(re.findall(r"^ENTRYPOINT (.*)$", TEXT, re.MULTILINE)[0])[1:]]
    words += json.loads(re.findall(r"^CMD (.*)$", TEXT, re.MULTILINE)[0])
    socket = short_path / "authority.sock"
    environ = {
        "XDG_RUNTIME_DIR": str(short_path),
        "SNAKEPIT_OTEL_SERVER__SOCKET": str(socket),
        "SNAKEPIT_OTEL_POOL__SIZE": "1",
        "PYTHONPATH": str(ROOT),
    }
    program = [sys.executable, "-m", "snakepit_otel", *words]
    process = await asyncio.create_subprocess_exec(
        *["unshare", "-pf", "--mount-proc", *program],
        cwd=FOLDER,
        env={**os.environ, **environ},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while b"serving" not in await process.stderr.readline():
                pass
        checked = {"SNAKEPIT_OTEL_ADDRESS": f"unix:{socket}"}
        code, output, _ = await run("status", "--json", environ=checked)
        assert (code, json.loads(output)["stopping"]) == (0, False)
        async with Client(f"unix:{socket}") as client:
            assert await client.execute("greet", {"name": "Ada"}) == "Hello, Ada."
        (first,) = children(process.pid)
        os.kill(first, signal.SIGTERM)
        async with asyncio.timeout(15):
            await process.communicate()
        assert process.returncode == 0
        assert not socket.exists()
    finally:
        if process.returncode is None:
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            await process.communicate()
