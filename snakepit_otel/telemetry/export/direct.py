"""Exports to a collector on this machine, which no proxy of the environment is for."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from snakepit_otel.common.loopback import leads_here
from snakepit_otel.telemetry.export.timed_http import TimedAdapter


def direct_options(endpoint: str) -> tuple[tuple[str, Any], ...]:
    """Return the options that a gRPC channel to an endpoint has for that."""
    return (("grpc.enable_http_proxy", 0),) if leads_here(endpoint) else ()


def go_direct(session: requests.Session, url: str) -> None:
    """Have a session go to a URL of this machine without a proxy; one with means of its own is left alone."""
    if type(session.get_adapter(url)) in (HTTPAdapter, TimedAdapter) and leads_here(urlsplit(url).hostname or ""):
        session.mount(f"{urlsplit(url).scheme}://", _Direct())


class _Direct(TimedAdapter):
    """Sends without a proxy; all else that requests takes from the environment stays."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        return super().send(request, *args, **{**options, "proxies": None})
