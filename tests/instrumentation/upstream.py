"""Upstream's Python workers: a checkout that the environment names, or else our double of them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
DOUBLE = Path(__file__).resolve().parent / "double"
PROTO = PROJECT / "snakepit_otel" / "bridge" / "proto" / "snakepit_bridge.proto"
# tests/conftest.py takes away what begins with SNAKEPIT_; this is for us, not for the workers.
VARIABLE = "UPSTREAM_PYTHON_DIR"


@dataclass(frozen=True)
class Upstream:
    """A folder with upstream's workers, or the double's, and what must be on the path to run them."""

    root: Path
    python_path: tuple[Path, ...]
    real: bool

    def server_script(self, threaded: bool = False) -> Path:
        """Return the script that Elixir starts."""
        return self.root / ("grpc_server_threaded.py" if threaded else "grpc_server.py")


def find(given: str | None = None) -> Upstream:
    """Return upstream as UPSTREAM_PYTHON_DIR says, a checkout or its `priv/python`; without it, the double."""
    given = os.environ.get(VARIABLE) if given is None else given
    if not given:
        return Upstream(root=DOUBLE, python_path=(DOUBLE, stubs()), real=False)
    for root in (Path(given), Path(given) / "priv" / "python"):
        if (root / "grpc_server.py").is_file() and (root / "snakepit_bridge").is_dir():
            return Upstream(root=root.resolve(), python_path=(root.resolve(),), real=True)
    raise FileNotFoundError(
        f"{VARIABLE}={given}: neither there nor in its priv/python are grpc_server.py and snakepit_bridge; "
        "give a checkout of nshkrdotcom/snakepit"
    )


@functools.cache
def stubs() -> Path:
    """Return a folder with `snakepit_bridge_pb2` and its companion, generated once per process from our own .proto.

    They carry upstream's file name, so a worker that also imports our stubs fails as it would with upstream's.
    """
    folder = Path(tempfile.mkdtemp(prefix="snakepit-stubs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copy(PROTO, folder / "snakepit_bridge.proto")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}"),
            *(f"--python_out={folder}", f"--grpc_python_out={folder}", "snakepit_bridge.proto"),
        ],
        check=True,
    )
    return folder


def python_path(upstream: Upstream, *before: Path | str) -> str:
    """Return PYTHONPATH as Elixir composes it: what was there, then upstream's folder; twice is once."""
    return os.pathsep.join(dict.fromkeys(str(entry) for entry in (*before, *upstream.python_path)))


def run_inside(
    what: str | Callable[..., Any],
    *arguments: Any,
    upstream: Upstream | None = None,
    environ: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
    timeout: float = 60.0,
) -> Any:
    """Run code in an interpreter that has upstream on its path, and return what it prints last, as JSON.

    `what` is source text that finds its arguments in `arguments` and assigns to `result`, or a function of a module
    that can be imported there (by name as `package.module:function`, or itself), which is called with the arguments
    and returns the result. This process has our own stubs in protobuf's pool, where upstream's have no place; hence
    an interpreter of its own. Everything but the result goes to standard error, which is shown if the code fails.
    """
    if callable(what):
        what = f"{what.__module__}:{what.__qualname__}"
    if "\n" not in what and what.count(":") == 1 and " " not in what:
        module, _, name = what.partition(":")
        what = f"from {module} import {name} as wanted\nresult = wanted(*arguments)"
    program = (
        "import json, os, sys\n"
        "arguments = json.loads(sys.stdin.read())\n"
        # What the code prints, and what its exporters print after it, must not come between us and the result.
        "out = os.fdopen(os.dup(1), 'w')\n"
        "os.dup2(2, 1)\n"
        "sys.path.insert(0, os.environ['RUN_INSIDE_ROOT'])\n"
        f"{textwrap.dedent(what)}\n"
        "print(json.dumps(result), file=out, flush=True)\n"
    )
    upstream = upstream or find()
    ran = subprocess.run(
        [sys.executable, *options, "-c", program],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        # Elixir starts workers where their script is.
        cwd=upstream.root,
        env={
            **os.environ,
            "SNAKEPIT_OTEL_CONSOLE": "false",
            **(environ or {}),
            "PYTHONPATH": python_path(upstream, *filter(None, [(environ or {}).get("PYTHONPATH")]), PROJECT),
            "RUN_INSIDE_ROOT": str(upstream.root),
        },
    )
    if ran.returncode != 0:
        raise AssertionError(f"the code ended with {ran.returncode}; it said:\n{ran.stderr}")
    return json.loads(ran.stdout)
