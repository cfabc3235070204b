"""Settings: files, variables, addresses on the command line; OpenTelemetry's variables and heartbeats."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from snakepit_otel.bridge.worker.heartbeat import HeartbeatSettings
from snakepit_otel.cli.arguments import arguments_of
from snakepit_otel.common.loopback import is_loopback
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.addresses import split
from snakepit_otel.rpc.targets import target_of
from snakepit_otel.settings import load_settings
from snakepit_otel.settings._environment import variables
from snakepit_otel.settings._file import read_file
from snakepit_otel.settings._sources import flattened
from snakepit_otel.system.settings_file import SettingsFile
from snakepit_otel.telemetry.environment.values import Environment
from snakepit_otel.telemetry.environment.variables import ALL
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, refusing, target

_VARIABLES = [
    *sorted(variables(["web"])),
    "SNAKEPIT_OTEL_POOLS__A__ENVIRONMENT__X",
    "SNAKEPIT_OTEL_X",
    "SNAKEPIT_OTEL_",
]
_VALUES = ("1", "0", "-1", "true", "nan", "1e400", "{}", "[]", '{"a": 1}', "[[[", "a.b:C", "", " ", "9" * 30, "inf")
_OTEL = sorted(ALL)
_OTEL_VALUES = (
    *("http://localhost:4318", "https://u:p@h:1/x?y#z", "unix:/x", "localhost", "http://[::1", "http/protobuf", "grpc"),
    *("a=1,b=2", "a=%zz", "=", "1000", "-1", "1e9", "inf", "parentbased_traceidratio", "otlp,console", "none,none"),
)


@target(steps=3_000)
def settings_file(data: bytes) -> None:
    """Any file is settings, or an error that begins with the file; every key of TOML has its line."""
    with tempfile.NamedTemporaryFile(dir=_directory(), suffix=".toml") as made:
        made.write(data)
        made.flush()
        file = Path(made.name)
        source = read_file(SettingsFile(file, named=True))
        if source.readable:
            insist(set(source.locations) == set(flattened(tomllib.loads(data.decode()))), "keys without a line")
        with refusing(ConfigurationError, ours=True) as refused:
            load_settings(file, environ={})
        if refused:
            insist(all(line.startswith((str(file), " ")) or ": " in line for line in str(refused[0]).split("\n")))


def _directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@target(steps=3_000)
def settings_variables(data: bytes) -> None:
    """Any values of our variables are settings, or errors that begin with the variable."""
    choices = Choices(data)
    environ: dict[str, str] = {}
    for _ in range(choices.below(5)):
        name = choices.pick(_VARIABLES) if choices.below(8) else f"SNAKEPIT_OTEL_{choices.text()}".replace("\0", "")
        value = choices.pick(_VALUES) if choices.chance() else choices.text()
        environ[name] = value.replace("\0", "")
    environ.pop("SNAKEPIT_OTEL_CONFIG", None)
    with refusing(ConfigurationError, ours=True):
        load_settings(environ=environ)


@target(steps=1_000)
def otel_variables(data: bytes) -> None:
    """Any values of OpenTelemetry's variables come to what the SDK takes, and to faults in a line."""
    choices = Choices(data)
    environ: dict[str, str] = {}
    for _ in range(choices.below(6)):
        value = choices.pick(_OTEL_VALUES) if choices.chance() else choices.text()
        environ[choices.pick(_OTEL)] = value.replace("\0", "")
    found = Environment(environ)
    for fault in found.faults:
        insist(len(str(fault)) < 2_000 and "\n" not in str(fault), "a fault is more than a line:", str(fault))
    for signal in (None, "traces", "metrics", "logs"):
        insist(all(isinstance(text, str) for text in found.texts(signal).values()))


@target()
def heartbeat_settings(data: bytes) -> None:
    """Heartbeat settings are whole and within their bounds, or `ConfigurationError`."""
    choices = Choices(data)
    flags: dict[str, Any] = {}
    for _ in range(choices.below(4)):
        flags[choices.pick(["interval_ms", "timeout_ms", "enabled", "dependent", "x"])] = choices.json()
    text = choices.rest().decode("utf-8", "surrogateescape")
    with refusing(ConfigurationError):
        settings = HeartbeatSettings.read(flags, text or None)
        insist(settings.interval_ms >= 10 and settings.timeout_ms >= 10 and settings.max_missed_heartbeats >= 1)
        insist(isinstance(settings.enabled, bool) and isinstance(settings.dependent, bool))


@target()
def command_line(data: bytes) -> None:
    """Addresses and parameters of the command line are what they say, or `ConfigurationError`."""
    choices = Choices(data)
    address = choices.pick(["127.0.0.1:1", "[::1]:70000", "unix:/x", ":", "h:", "h:²", "localhost:0"])
    if choices.chance():
        address = choices.text()
    with refusing(ConfigurationError, ours=True):
        host, port = split(address)
        insist(0 <= port <= 65_535)
        insist(isinstance(is_loopback(host), bool))
    with refusing(ConfigurationError, ours=True):
        insist(isinstance(target_of(address), str))
    with refusing(ConfigurationError, ours=True):
        # Not from files, whose names would be anything.
        pairs = [choices.text(), choices.rest().decode("utf-8", "surrogateescape")]
        insist(isinstance(arguments_of([pair.replace("=@", "=") for pair in pairs], None), dict))
