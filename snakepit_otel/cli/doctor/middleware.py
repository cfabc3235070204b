"""Checks of middleware: each is imported and made in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from snakepit_otel.cli.doctor.report import Check, ok, problem
from snakepit_otel.middleware import _check
from snakepit_otel.middleware._settings import MiddlewareSettings

_TIMEOUT_S = 30.0


def check_middleware(settings: MiddlewareSettings) -> list[Check]:
    """Check that the middleware of both sides can be made, each once."""
    listed = dict.fromkeys([*settings.authority, *settings.worker])
    return [_check_one(spec, settings.options.get(spec, {}), _sides(settings, spec)) for spec in listed]


def _sides(settings: MiddlewareSettings, spec: str) -> str:
    sides = {"the authority": spec in settings.authority, "the workers": spec in settings.worker}
    return " and ".join(side for side, has_it in sides.items() if has_it)


def _check_one(spec: str, options: Mapping[str, Any], sides: str) -> Check:
    topic = f"middleware {spec}"
    try:
        child = subprocess.run(  # noqa: S603 - our own program; the user's middleware is what it is to import
            [sys.executable, "-P", _check.__file__, spec],
            input=json.dumps(options, default=str).encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        error = json.loads(child.stdout)["error"]
    except subprocess.TimeoutExpired:
        return problem(topic, f"was not made within {_TIMEOUT_S:g} s", "look for what it waits for", "slow_middleware")
    except ValueError:
        return problem(topic, "its process ended while it was made", "look for exit calls", "middleware_died")
    if error:
        return problem(topic, error, "correct the name, the class or its options", "bad_middleware")
    return ok(topic, f"can be made, for {sides}")
