"""Checks of Python and the installed packages."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from importlib import metadata
from operator import attrgetter

import wrapt

from snakepit_otel.cli.doctor.report import Check, ok, problem, warning

_OURS = "snakepit-otel"
_SHOWN = re.compile(r"grpcio|opentelemetry-.*|protobuf|wrapt")
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(.*)")
_BOUND = re.compile(r"(>=|<)\s*([\d.]+)")  # the two that pyproject.toml has
_INSTRUMENTED = ("server", "insecure_channel", "secure_channel", "aio.server", "aio.insecure_channel")


def check_packages() -> list[Check]:
    """Check Python, required packages, wrapt's C extension, and other instrumentation of gRPC."""
    try:
        needed_python = metadata.metadata(_OURS)["Requires-Python"]
    except metadata.PackageNotFoundError:
        message = "snakepit-otel is not installed, so the required versions are unknown"
        return [_python(""), warning("packages", message, "pip install .", "not_installed"), _wrapt()]
    required = [check_version(name, wanted) for name, wanted in requirements().items()]
    shown = [check for check in required if check.code or _SHOWN.fullmatch(check.topic)]
    rest = len(required) - len(shown)
    others = [ok("other packages", f"{rest} more are in their required ranges")] if rest else []
    return [_python(needed_python), *shown, *others, _wrapt(), *_grpc_instrumentation()]


def requirements() -> dict[str, str]:
    """Return the required packages, each with its range; those of extras are left out."""
    found = {}
    for line in sorted(metadata.requires(_OURS) or ()):
        match = _REQUIREMENT.match(line)
        if match and "extra ==" not in line:
            found[match[1]] = ",".join(sorted(match[2].split(","), reverse=True))
    return found


def check_version(name: str, wanted: str) -> Check:
    """Check one installed package against the required range."""
    try:
        have = metadata.version(name)
    except metadata.PackageNotFoundError:
        message = f"not installed; {wanted or 'any version'} is needed"
        return problem(name, message, f"pip install '{name}{wanted}'", "missing")
    if not satisfies(have, wanted):
        message = f"{have} is installed, and {wanted} is needed"
        return problem(name, message, f"pip install '{name}{wanted}'", "wrong_version")
    return ok(name, f"{have}, required {wanted}" if wanted else have)


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version is in a range such as `>=1.45,<2`; pre-releases count as the release they precede."""
    have = _numbers(version)
    return all((have >= _numbers(bound)) is (operator == ">=") for operator, bound in _BOUND.findall(wanted))


def _numbers(version: str) -> list[int]:
    leading = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in leading[0].split(".")] if leading else []
    return numbers + [0] * (3 - len(numbers))


def _python(wanted: str) -> Check:
    have = platform.python_version()
    message = f"{have} ({platform.python_implementation()}, {platform.system()} {platform.machine()})"
    if sys.platform != "linux":
        remedy = "run it on Linux, or in a Linux container"
        return problem("Python", f"{message}: only Linux is supported", remedy, "system")
    if not satisfies(have, wanted):
        return problem("Python", f"{message}, and {wanted} is needed", f"install a Python {wanted}", "wrong_version")
    return ok("Python", message)


def _wrapt() -> Check:
    # Without the extension, wrapt falls back on Python silently.
    if type(wrapt.FunctionWrapper).__module__ == "builtins" and "_wrappers" in wrapt.FunctionWrapper.__module__:
        return ok("wrapt's C extension", "in use")
    remedy = "unset WRAPT_DISABLE_EXTENSIONS, or install wrapt from a wheel: pip install --force-reinstall wrapt"
    message = "not in use, so that each lifecycle point costs several times as much"
    return warning("wrapt's C extension", message, remedy, "slow_wrapt")


def _grpc_instrumentation() -> list[Check]:
    topic = "gRPC instrumentation"
    importlib.import_module("grpc.aio")
    grpc = importlib.import_module("grpc")
    if active := [f"grpc.{name}" for name in _INSTRUMENTED if _is_wrapped(attrgetter(name)(grpc))]:
        message = f"something has wrapped {', '.join(active)} in this process: calls may be recorded twice"
        remedy = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=grpc_server,grpc_client,grpc_aio_server,grpc_aio_client"
        return [warning(topic, message, remedy, "instrumented_twice")]
    try:
        version = metadata.version("opentelemetry-instrumentation-grpc")
    except metadata.PackageNotFoundError:
        return []
    message = f"opentelemetry-instrumentation-grpc {version} is installed, and not active in this process; "
    return [ok(topic, f"{message}if you start serve by opentelemetry-instrument, start doctor by it, too")]


def _is_wrapped(function: object) -> bool:
    return hasattr(function, "__wrapped__") or not getattr(function, "__module__", "grpc").startswith("grpc")
