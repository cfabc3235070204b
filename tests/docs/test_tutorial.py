"""The tutorial, done as it stands: its files are written, its commands run, and what it shows is what they print."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, Block, blocks_of, commands
from tests.processes import ROOT
from tests.waiting import until

PAGES = ("adapter", "server", "front", "tests", "telemetry", "deploy")
UNITS = ("notebook.service", "notebook-web.service")
FILES = {"adapter.py", "try_it.py", "snakepit.toml", "test_notebook.py", "pytest.ini", *UNITS}


def steps() -> Iterator[Block]:
    """Yield what a reader does, in order."""
    for page in PAGES:
        yield from blocks_of(DOCS / "tutorial" / f"{page}.md")


class Reader:
    """Somebody who follows the tutorial, in a folder beside the clone."""

    def __init__(self, folder: Path) -> None:
        (folder / "snakepit_otel").symlink_to(ROOT)
        self.folder = folder / "notebook"
        self.folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.socket = folder / "s.sock"
        self.running: list[subprocess.Popen[bytes]] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "OTEL"))}
        self.environ = inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SNAKEPIT_OTEL_SERVER__SOCKET": str(self.socket),
        }

    def written(self, command: str) -> str:
        """Return a command with a port that is free here."""
        if command == "uvicorn front:app":
            return f"{command} --port {self.port}"
        return command.replace("localhost:8000", f"127.0.0.1:{self.port}")

    async def run(self, command: str) -> str:
        process = await asyncio.create_subprocess_shell(
            f"exec {self.written(command)}" if "&&" not in command else command,
            cwd=self.folder,
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaints = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, f"{command}\n{output.decode()}{complaints.decode()}"
        return output.decode()

    async def serve(self, command: str) -> None:
        log = self.folder / f"{len(self.running)}.log"
        started = self.started(command, log)
        is_there = self.socket.exists if "uvicorn" not in command else self.listens
        await until(lambda: is_there() or started.poll() is not None)
        assert started.poll() is None, log.read_text()

    def started(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            words = self.written(command).split()
            self.running.append(subprocess.Popen(words, cwd=self.folder, env=self.environ, stdout=file, stderr=file))
        return self.running[-1]

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGINT)
        assert [process.wait(30) for process in self.running] == [0] * len(self.running)


def without_spaces(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_the_tutorials_files_are_known() -> None:
    """Each is written by a page, and the adapter is the recipe's, which has tests."""
    files = {block.value: block for block in steps() if block.directive == "file"}
    assert files.keys() == FILES
    recipe = (ROOT / "examples" / "fastapi_front" / "adapter.py").read_text()
    assert files["adapter.py"].code.partition("\n")[2] == recipe.partition("\n")[2]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_the_tutorials_units_are_taken_by_systemd(tmp_path: Path) -> None:
    """Nothing in them is misspelt."""
    folder = Path(sys.executable).parent
    for block in steps():
        if block.value in UNITS:
            code = block.code.replace("%h/pit/bin", str(folder)).replace("%h/notebook", str(tmp_path))
            (tmp_path / block.value).write_text(code)
    units = [str(tmp_path / unit) for unit in UNITS]
    environ = {"HOME": "/", "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "verify", "--user", *units]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.matrix
async def test_the_tutorial(tmp_path: Path) -> None:
    """From an empty folder to a front end, tests and a rolling restart."""
    reader = Reader(tmp_path)
    try:
        for block in steps():
            if block.directive == "file":
                (reader.folder / block.value).write_text(block.code)
                continue
            for shown, output in commands(block):
                command = re.sub(r"\s+# .*$", "", shown)
                if block.directive == "serve":
                    await reader.serve(command)
                elif block.directive == "run" or command.startswith("python try_it"):
                    printed = await reader.run(command)
                    if output:
                        assert without_spaces(printed) == without_spaces(output), command
    finally:
        reader.end()
