"""The architecture: rooms, and the imports between them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.source import INSTRUMENTATION, PACKAGE, imports, module_imports, sources, tree

LAYERS = (
    ("_error_base", "errors", "_version", "common"),
    ("system",),
    ("telemetry",),
    ("rpc", "sessions", "zero_copy"),
    ("adapters",),
    ("middleware",),
    ("bridge",),
    ("compatibility", "pool"),
    ("settings",),
    ("app",),
    ("testing",),
    ("cli",),
)
"""Rooms, from the ground up: none imports one of a higher layer, for type checkers neither."""
APART = (
    ("rpc", "sessions"),
    ("rpc", "zero_copy"),
    ("sessions", "zero_copy"),
    ("compatibility", "pool"),
)
"""Rooms of one layer that do not import each other."""
SIDES = ("bridge.authority", "bridge.client", "bridge.worker")
"""Sides of the bridge, each in a process of its own: what two of them need is in `bridge.wire`."""
PROTOCOLS = ("grpc", "google", "opentelemetry.proto", "snakepit_otel.bridge.proto")
"""Packages of the wire, which pools do not need: a worker's channel is in the authority's room."""
GRPC_EXPORTER = "telemetry/export/otlp_grpc.py"
"""The one file below the bridge, besides rpc, that uses gRPC."""
SHARED = ("snakepit_otel.common", "snakepit_otel.rpc", "snakepit_otel.telemetry")
"""Rooms that the instrumentation of others' workers uses; none of them imports protobuf messages."""
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


DOCUMENTED = {"_asdict", "_current_frames", "_exit", "_fields", "_getframe", "_make", "_replace"}
"""Names with an underscore that Python documents."""
RELYING_ON_PRIVATE_NAMES = {
    "cli/doctor/canary.py",
    "cli/doctor/environment.py",
    "pool/workers/program.py",
    "rpc/grpc_factories.py",
    "telemetry/_events.py",
    "telemetry/export/existing_providers.py",
    "telemetry/export/exporters.py",
    "telemetry/export/log_handler.py",
    "telemetry/export/logs.py",
    "telemetry/export/metrics.py",
    "telemetry/export/providers.py",
    "telemetry/export/size_estimate.py",
    "telemetry/spans/fast/compat.py",
    "testing/_capture.py",
    "sessions/backends/redis/_server.py",  # whether the server has closed a connection, and to abort one
}
"""Files that use private names of other packages, nearly all of them OpenTelemetry's own `_logs`."""


def room(module: str) -> str:
    """Return the room that a module of the package is in; of the package itself, none."""
    return module.split(".")[1] if "." in module else ""


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield the strongly connected components of more than one node, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                yield from visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            found = stack[at:]
            del stack[at:]
            if len(found) > 1:
                yield sorted(found)

    for node in sorted(graph):
        if node not in index:
            yield from visit(node)


def test_no_modules_import_each_other() -> None:
    """The graph of imports has no circle, with imports for type checkers and those inside of functions."""
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [["a", "b", "c"]]
    assert not list(circles(module_imports()))


def test_no_import_runs_upwards() -> None:
    """No module imports a room of a higher layer, and every room has its layer."""
    height = {name: layer for layer, names in enumerate(LAYERS) for name in names}
    for module, targets in module_imports().items():
        for target in targets:
            if room(module) and room(target) and room(module) != "__main__":
                assert height[room(target)] <= height[room(module)], f"{module} imports {target}"
                assert (room(module), room(target)) not in {*APART, *((two, one) for one, two in APART)}, module


def test_the_sides_of_the_bridge_do_not_import_each_other() -> None:
    """Authority, worker and client import the wire, and the wire imports none of them."""
    for module, targets in module_imports().items():
        here = ".".join(module.split(".")[1:3])
        for target in targets:
            there = ".".join(target.split(".")[1:3])
            if here.startswith("bridge."):
                assert there == here or there not in SIDES, f"{module} imports {target}"


def test_grpc_stays_behind_the_transports() -> None:
    """Only rpc, the services of the bridge and OTLP over gRPC import grpc; all else has neutral errors."""
    allowed = ("rpc/", "bridge/", GRPC_EXPORTER, "testing/_sink.py", "cli/doctor/canary.py")
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        if not name.startswith(allowed):
            assert not {one for one in imports(path) if one.split(".")[0] == "grpc"}, f"{name} imports grpc"


def test_pools_use_no_wire_protocol() -> None:
    """Pools import neither gRPC nor protobuf, nor generated messages."""
    for path in (PACKAGE / "pool").rglob("*.py"):
        assert not {name for name in imports(path) if name.startswith(PROTOCOLS)}, path


def test_users_rooms_start_no_processes() -> None:
    """Sessions, references, adapters and middleware start no processes."""
    for room_without in ("adapters", "middleware", "sessions", "zero_copy"):
        for path in (PACKAGE / room_without).rglob("*.py"):
            assert "subprocess" not in {name.split(".")[0] for name in imports(path)}, path


def test_the_instrumentation_stands_on_little() -> None:
    """The instrumentation takes names, decorators and the observing of calls from us, and nothing that is upstream."""
    for path in INSTRUMENTATION.rglob("*.py"):
        for name in imports(path):
            assert not name.startswith("snakepit_otel.") or name.startswith(SHARED), f"{path.name} imports {name}"
            assert not name.startswith(("snakepit_bridge", "grpc_server")), f"{path.name} imports {name}"


def test_library_code_uses_the_api_only() -> None:
    """The OpenTelemetry SDK is imported where it is set up, served and exported from, and nowhere else."""
    for path in sources():
        name = str(path.relative_to(PACKAGE.parent)).removeprefix("snakepit_otel/")
        if name not in SDK_ALLOWED and not name.startswith("telemetry/export/"):
            for name in imports(path):
                assert not name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")), f"{path} imports {name}"


def test_nothing_unpickles_or_evaluates() -> None:
    """No code path can run what a peer sent: no pickle, marshal, eval or exec anywhere."""
    for path in sources():
        for name in imports(path):
            assert name.split(".")[0] not in {"pickle", "cloudpickle", "marshal", "shelve", "dill"}, path
        called = {
            node.func.id
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"eval", "exec", "compile", "__import__"}, path


def test_every_module_says_what_it_is_for() -> None:
    """Each module opens with a docstring."""
    for path in sources():
        assert ast.get_docstring(tree(path)), path


def test_only_templates_fork() -> None:
    """No code forks the authority: workers are started by exec, or forked of a template that has one thread."""
    forking = {PACKAGE / "pool" / "workers" / name for name in ("fork_server.py", "fork_template.py")}
    for path in sources():
        assert "multiprocessing" not in {name.split(".")[0] for name in imports(path)}, path
        for node in ast.walk(tree(path)):
            is_fork = isinstance(node, ast.Attribute) and node.attr in {"fork", "forkpty"}
            assert not is_fork or (path in forking or ast.unparse(node) == "self._fork_server.fork"), path
            assert not (is_fork and ast.unparse(node).startswith("os.")), path
            assert not (isinstance(node, ast.keyword) and node.arg == "preexec_fn"), path


def test_private_names_of_others_are_few() -> None:
    """At most 25 private names of other packages are relied on, in the files named here."""
    own = {name for path in sources() for name in defined_names(tree(path))}
    found: dict[str, set[str]] = {}
    for path in sources():
        names = {
            name
            for name in imports(path)
            if not name.startswith(("snakepit_otel", "__future__")) and any(map(is_private, name.split(".")))
        }
        names |= {
            node.attr
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in {*own, *DOCUMENTED}
        }
        if names:
            found[str(path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path.name)] = names
    assert found.keys() == RELYING_ON_PRIVATE_NAMES
    assert len(set().union(*found.values())) <= 25, found


def is_private(name: str) -> bool:
    """Return whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def defined_names(module: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines or imports, attributes of its objects among them."""
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.name for alias in aliases)
