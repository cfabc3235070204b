"""The architecture: rooms, and the imports between them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "snakepit_otel"
INSTRUMENTATION = PACKAGE.parent / "instrumentation" / "opentelemetry-instrumentation-snakepit" / "src"
SHARED = (
    "snakepit_otel.telemetry",
    "snakepit_otel.rpc",
    "snakepit_otel.common",
)
"""What the instrumentation of others' workers uses of ours; the bridge's messages have the names of theirs."""
ROOMS = (
    "telemetry",
    "sessions",
    "zero_copy",
    "adapters",
    "middleware",
    "bridge",
    "compatibility",
    "pool",
    "testing",
    "cli",
)
ABOVE = {"compatibility", "pool", "testing", "cli", "app"}
"""What stands on the bridge."""
FORBIDDEN = {
    "telemetry": {*ABOVE, "sessions", "zero_copy", "adapters", "middleware", "bridge", "grpc"},
    "sessions": {*ABOVE, "zero_copy", "adapters", "middleware", "bridge", "grpc", "subprocess"},
    "zero_copy": {*ABOVE, "sessions", "adapters", "middleware", "bridge", "grpc", "subprocess"},
    "adapters": {*ABOVE, "middleware", "bridge", "grpc", "subprocess"},
    "middleware": {*ABOVE, "sessions", "zero_copy", "bridge", "grpc", "subprocess"},
    "bridge": {*ABOVE},
    "compatibility": {"pool", "testing", "cli", "app"},
    "pool": {"testing", "cli", "app"},
    "testing": {"cli", "compatibility", "pool", "app"},
}
PROTOCOLS = ("grpc", "google", "opentelemetry.proto", "snakepit_otel.bridge.proto")
"""Packages of the wire, which pools do not need: a worker's channel is in the authority's room."""
GRPC_EXPORTER = "telemetry/export/otlp_grpc.py"
"""The one file of telemetry that uses gRPC."""
SDK_ALLOWED = {
    "telemetry/_resource_detector.py",
    "telemetry/_setup.py",
    "telemetry/spans/fast/compat.py",
    "telemetry/spans/fast/selfcheck.py",
    "testing/_capture.py",
    "testing/_ids.py",
    "testing/_sink.py",
    "cli/doctor/canary.py",
}


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources() -> list[Path]:
    """Return every source file of the package, and of the instrumentation."""
    ours = [path for path in PACKAGE.rglob("*.py") if not path.stem.endswith(("_pb2", "_pb2_grpc"))]
    return [*ours, *INSTRUMENTATION.rglob("*.py")]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_import_only_what_they_stand_on(room: str) -> None:
    """No file of a room imports a room, or a library, that the design keeps from it."""
    for path in (PACKAGE / room).rglob("*.py"):
        if str(path.relative_to(PACKAGE)) == GRPC_EXPORTER:
            continue
        for name in imports(path):
            parts = name.split(".")
            target = parts[1] if parts[0] == "snakepit_otel" and len(parts) > 1 else parts[0]
            assert target not in FORBIDDEN[room], f"{path.relative_to(PACKAGE)} imports {name}"


def test_the_instrumentation_stands_on_little() -> None:
    """The instrumentation takes names, decorators and the observing of calls from us, and nothing that is upstream."""
    for path in INSTRUMENTATION.rglob("*.py"):
        for name in imports(path):
            assert not name.startswith("snakepit_otel.") or name.startswith(SHARED), f"{path.name} imports {name}"
            assert not name.startswith(("snakepit_bridge", "grpc_server")), f"{path.name} imports {name}"


def test_pools_use_no_wire_protocol() -> None:
    """Pools import neither gRPC nor protobuf, nor generated messages."""
    for path in (PACKAGE / "pool").rglob("*.py"):
        for name in imports(path):
            assert not name.startswith(PROTOCOLS), f"{path.name} imports {name}"
            assert "_pb2" not in name, f"{path.name} imports {name}"


def test_library_code_uses_the_api_only() -> None:
    """The OpenTelemetry SDK is imported where it is set up, served and exported from, and nowhere else."""
    for path in sources():
        name = str(path.relative_to(PACKAGE.parent)).removeprefix("snakepit_otel/")
        if name not in SDK_ALLOWED and not name.startswith("telemetry/export/"):
            for name in imports(path):
                assert not name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")), f"{path} imports {name}"


def test_grpc_stays_behind_the_transports() -> None:
    """Only transports, the services of the bridge and OTLP exporters import grpc; all else has neutral errors."""
    allowed = ("rpc/", "bridge/", GRPC_EXPORTER, "testing/_sink.py", "cli/doctor/canary.py")
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        if not name.startswith(allowed):
            assert not {one for one in imports(path) if one.split(".")[0] == "grpc"}, f"{name} imports grpc"


def test_nothing_unpickles_or_evaluates() -> None:
    """No code path can run what a peer sent: no pickle, marshal, eval or exec anywhere."""
    for path in sources():
        tree = ast.parse(path.read_text())
        for name in imports(path):
            assert name.split(".")[0] not in {"pickle", "cloudpickle", "marshal", "shelve", "dill"}, path
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"eval", "exec", "compile", "__import__"}, path


def test_every_module_says_what_it_is_for() -> None:
    """Each module opens with a docstring."""
    for path in sources():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_workers_are_never_forked() -> None:
    """No code forks: workers are started by exec."""
    for path in sources():
        assert "multiprocessing" not in {name.split(".")[0] for name in imports(path)}, path
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Attribute) and node.attr in {"fork", "forkpty"}), path
            assert not (isinstance(node, ast.keyword) and node.arg == "preexec_fn"), path
