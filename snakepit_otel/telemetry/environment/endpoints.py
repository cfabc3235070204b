"""Endpoints of OTLP, as gRPC and HTTP accept them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from snakepit_otel.telemetry.environment.kinds import InvalidValue, Kind

GRPC = "grpc"
HTTP = "http/protobuf"
_AUTHORITY = re.compile(r"(?:[^@]*@)?(?:\[[\w:.%]+\]|[^\s:\[\]/?#@]+)(?::([0-9]{1,5}))?")
_RESOLVED_BY_GRPC = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "vsock:", "xds:", "passthrough:")


class Endpoint(Kind):
    """An OTLP endpoint of any protocol; `invalid_for` checks it for one protocol."""

    code = "bad_endpoint"

    def read(self, text: str) -> str:
        if re.search(r"[\s\x00-\x1f\x7f]", text) or not text.isascii():
            raise InvalidValue("has characters that no URL has")
        if text.startswith(_RESOLVED_BY_GRPC):
            return text
        try:
            authority = urlsplit(text).netloc if "://" in text else text.partition("/")[0]
        except ValueError as error:
            raise InvalidValue(f"is no URL ({error})") from None
        match = _AUTHORITY.fullmatch(authority)
        if not match or int(match[1] or 0) > 65_535:
            raise InvalidValue("has no HOST:PORT")
        return text


def invalid_for(protocol: str, endpoint: str) -> str | None:
    """Return the reason why a protocol does not accept a valid endpoint; None if it does."""
    if protocol == HTTP and not endpoint.lower().startswith(("http://", "https://")):
        return "has no http:// or https://, which http/protobuf needs"
    return None
