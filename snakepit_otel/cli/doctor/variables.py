"""Table of the environment variables of this library and of OpenTelemetry in Python."""

from __future__ import annotations

import re
from collections.abc import Iterable

from snakepit_otel.common.validation import SettingPath, dotted
from snakepit_otel.settings._environment import OTHER_VARIABLES, PREFIX, is_setting, setting_of, variables
from snakepit_otel.telemetry.environment import variables as telemetry

OTEL: dict[str, str] = {name: variable.meaning for name, variable in telemetry.OTEL.items()}
# Variables of packages that have no table here.
OTHERS = re.compile(
    r"OTEL_(INSTRUMENTATION_\w+|EXPORTER_(PROMETHEUS|ZIPKIN|JAEGER)_\w+|PYTHON_\w+_EXCLUDED_URLS"
    r"|PYTHON_INSTRUMENTATION_\w+|PYTHON_EXPORTER_OTLP_\w+|PYTHON_(DJANGO|FLASK|FASTAPI|URLLIB3?|REQUESTS|HTTPX)_\w+)"
)
# Prefixes of other languages' packages.
FOREIGN = {
    "OTEL_JAVAAGENT_": "Java",
    "OTEL_JAVA_": "Java",
    "OTEL_DOTNET_": ".NET",
    "OTEL_NODE_": "Node.js",
    "OTEL_GO_": "Go",
    "OTEL_PHP_": "PHP",
    "OTEL_RUBY_": "Ruby",
}

_OURS = {**OTHER_VARIABLES, **{name: variable.meaning for name, variable in telemetry.OURS.items()}}


def ours(environ: Iterable[str] = ()) -> dict[str, str]:
    """Return this library's variables and their meaning, with those of pools that `environ` names."""
    settings = variables()
    for name in environ:
        if name.startswith(PREFIX) and is_setting(name) and (path := setting_of(name)):
            settings.setdefault(name, (path, False))
    kubernetes = [name for name in environ if name.startswith(PREFIX) and not is_setting(name)]
    return {
        **dict.fromkeys(kubernetes, "a service's address, by Kubernetes; no setting"),
        **{name: _meaning(*setting) for name, setting in settings.items()},
        **_OURS,
    }


def _meaning(path: SettingPath, group: bool) -> str:
    # A whole group may be given as JSON.
    return f"the settings {dotted(path)}, as JSON" if group else f"the setting {dotted(path)}"
