"""The environment variables that mean something to us, to OpenTelemetry in Python, or to neither."""

from __future__ import annotations

import re
from collections.abc import Iterable

from snakepit_otel.common.validation import SettingPath, dotted
from snakepit_otel.settings._environment import OTHER_VARIABLES, PREFIX, is_setting, setting_of, variables
from snakepit_otel.telemetry.environment import variables as telemetry

OTEL: dict[str, str] = {name: variable.meaning for name, variable in telemetry.OTEL.items()}
"""What OpenTelemetry's Python packages read, and what for."""

OTHERS = re.compile(
    r"OTEL_(INSTRUMENTATION_\w+|EXPORTER_(PROMETHEUS|ZIPKIN|JAEGER)_\w+|PYTHON_\w+_EXCLUDED_URLS"
    r"|PYTHON_INSTRUMENTATION_\w+|PYTHON_EXPORTER_OTLP_\w+|PYTHON_(DJANGO|FLASK|FASTAPI|URLLIB3?|REQUESTS|HTTPX)_\w+)"
)
"""Variables of packages that we do not know one by one."""

FOREIGN = {
    "OTEL_JAVAAGENT_": "Java",
    "OTEL_JAVA_": "Java",
    "OTEL_DOTNET_": ".NET",
    "OTEL_NODE_": "Node.js",
    "OTEL_GO_": "Go",
    "OTEL_PHP_": "PHP",
    "OTEL_RUBY_": "Ruby",
}
"""Prefixes that other languages' packages read, and none of Python's."""

_OURS = {**OTHER_VARIABLES, **{name: variable.meaning for name, variable in telemetry.OURS.items()}}


def ours(environ: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that we read, and what for; with those of pools and such that `environ` names."""
    settings = variables()
    for name in environ:
        if name.startswith(PREFIX) and is_setting(name) and (path := setting_of(name)):
            settings.setdefault(name, (path, False))
    kubernetes = [name for name in environ if name.startswith(PREFIX) and not is_setting(name)]
    return {
        **dict.fromkeys(kubernetes, "what Kubernetes says of a service; no setting"),
        **{name: _meaning(*setting) for name, setting in settings.items()},
        **_OURS,
    }


def _meaning(path: SettingPath, group: bool) -> str:
    # A whole group may be given as JSON.
    return f"the settings {dotted(path)}, as JSON" if group else f"the setting {dotted(path)}"
