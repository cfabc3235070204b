"""Checks of Python and the installed packages."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from collections.abc import Callable, Iterable
from importlib import metadata

from snakepit_otel.cli.doctor.report import Check, ok, problem, warning

_OURS = "snakepit-otel"
_SHOWN = re.compile(r"grpcio|opentelemetry-.*|protobuf|wrapt")
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(;.*)?")
_BOUND = re.compile(r"\s*(>=|<=|==|!=|~=|>|<)\s*([\d.]+)[^,]*")
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": lambda have, want: have >= want,
    "<=": lambda have, want: have <= want,
    "==": lambda have, want: have == want,
    "!=": lambda have, want: have != want,
    "~=": lambda have, want: have >= want and have[: len(want) - 1] == want[:-1],
    ">": lambda have, want: have > want,
    "<": lambda have, want: have < want,
}
_INSTRUMENTED = ("server", "insecure_channel", "secure_channel", "aio.server", "aio.insecure_channel")


def check_packages() -> list[Check]:
    """Check Python, required packages, wrapt's C extension, and other instrumentation of gRPC."""
    try:
        about = metadata.metadata(_OURS)
    except metadata.PackageNotFoundError:
        message = "snakepit-otel is not installed, so the required versions are unknown"
        return [_python(None), warning("packages", message, "pip install .", "not_installed"), _wrapt()]
    found, unremarkable = [], 0
    for name, wanted in _requirements(metadata.requires(_OURS) or ()):
        check = check_version(name, wanted)
        if check.code or _SHOWN.fullmatch(name):
            found.append(check)
        else:
            unremarkable += 1
    rest = [ok("other packages", f"{unremarkable} more are in their required ranges")] if unremarkable else []
    checks = [_python(about["Requires-Python"]), *found, *rest, _one_release(), _wrapt(), _grpc_instrumentation()]
    return [check for check in checks if check]


def check_version(name: str, wanted: str) -> Check:
    """Check one installed package against the required range."""
    try:
        have = metadata.version(name)
    except metadata.PackageNotFoundError:
        return problem(
            name, f"not installed; {wanted or 'any version'} is needed", f"pip install '{name}{wanted}'", "missing"
        )
    if not satisfies(have, wanted):
        message = f"{have} is installed, and {wanted} is needed"
        return problem(name, message, f"pip install '{name}{wanted}'", "wrong_version")
    return ok(name, f"{have}, required {wanted}" if wanted else have)


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version is in a range such as `>=1.45,<2`; pre-releases count as the release they precede."""
    have = _numbers(version)
    for operator, bound in _BOUND.findall(wanted):
        want = _numbers(bound)
        width = max(len(have), len(want)) if operator != "~=" else len(want)
        left = have + (0,) * (width - len(have))
        right = want + (0,) * (width - len(want))
        if not _COMPARE[operator](left, right):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()


def _requirements(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in sorted(lines):
        found = _REQUIREMENT.fullmatch(line.strip())
        if found and "extra ==" not in (found[3] or ""):
            bounds = [part.strip() for part in found[2].split(",") if part.strip()]
            yield found[1], ",".join(sorted(bounds, reverse=True))


def _python(wanted: str | None) -> Check:
    have = platform.python_version()
    message = f"{have} ({platform.python_implementation()}, {platform.system()} {platform.machine()})"
    if sys.platform != "linux":
        return problem(
            "Python", f"{message}: only Linux is supported", "run it on Linux, or in a Linux container", "system"
        )
    if wanted and not satisfies(have, wanted):
        return problem("Python", f"{message}, and {wanted} is needed", f"install a Python {wanted}", "wrong_version")
    return ok("Python", message)


def _one_release() -> Check | None:
    """Find packages of OpenTelemetry of different releases; they rely on each other's internals."""
    names = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc")
    versions = {}
    for name in (*names, "opentelemetry-exporter-otlp-proto-http"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            remedy = "pip install opentelemetry-exporter-otlp"
            return problem("OpenTelemetry", f"{name} is not installed", remedy, "missing")
    if len(set(versions.values())) == 1:
        return None
    message = "its parts are of different releases: " + ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )
    remedy = "pip install --upgrade opentelemetry-api opentelemetry-sdk opentelemetry-exporter-otlp"
    return warning("OpenTelemetry", message, remedy, "mixed_releases")


def _wrapt() -> Check:
    import wrapt

    # Without the extension, wrapt falls back on Python silently.
    if type(wrapt.FunctionWrapper).__module__ == "builtins" and "_wrappers" in wrapt.FunctionWrapper.__module__:
        return ok("wrapt's C extension", "in use")
    remedy = "unset WRAPT_DISABLE_EXTENSIONS, or install wrapt from a wheel: pip install --force-reinstall wrapt"
    message = "not in use, so that each lifecycle point costs several times as much"
    return warning("wrapt's C extension", message, remedy, "slow_wrapt")


def _grpc_instrumentation() -> Check | None:
    """Check whether another instrumentation of gRPC is installed, or active in this process."""
    topic = "gRPC instrumentation"
    active = [f"grpc.{name}" for name in _INSTRUMENTED if _is_wrapped(name)]
    if active:
        message = f"something has wrapped {', '.join(active)} in this process: calls may be recorded twice"
        remedy = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=grpc_server,grpc_client,grpc_aio_server,grpc_aio_client"
        return warning(topic, message, remedy, "instrumented_twice")
    try:
        version = metadata.version("opentelemetry-instrumentation-grpc")
    except metadata.PackageNotFoundError:
        return None
    message = (
        f"opentelemetry-instrumentation-grpc {version} is installed, and not active in this process; if you start "
    )
    return ok(topic, message + "serve by opentelemetry-instrument, start doctor by it, too")


def _is_wrapped(name: str) -> bool:
    grpc = importlib.import_module("grpc")
    importlib.import_module("grpc.aio")
    found: object = grpc
    for part in name.split("."):
        found = getattr(found, part)
    return hasattr(found, "__wrapped__") or not getattr(found, "__module__", "grpc").startswith("grpc")
