"""Endpoints of OTLP: what gRPC takes for one, and what HTTP does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from snakepit_otel.telemetry.environment.kinds import Unfit

GRPC = "grpc"
HTTP = "http/protobuf"
_PLACE = re.compile(r"(?:[^@]*@)?(?:\[[\w:.%]+\]|[^\s:\[\]/?#@]+)(?::([0-9]{1,5}))?")
_RESOLVED_BY_GRPC = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "vsock:", "xds:", "passthrough:")


@dataclass(frozen=True)
class Endpoint:
    """Where telemetry goes; which of them a protocol takes, `unfit_for` decides."""

    code: str = "bad_endpoint"

    def read(self, text: str) -> str:
        """See `Kind`."""
        if re.search(r"[\s\x00-\x1f\x7f]", text) or not text.isascii():
            raise Unfit("has characters that no URL has")
        if text.startswith(_RESOLVED_BY_GRPC):
            return text
        try:
            place = urlsplit(text).netloc if "://" in text else text.partition("/")[0]
        except ValueError as error:
            raise Unfit(f"is no URL ({error})") from None
        found = _PLACE.fullmatch(place)
        if not found or int(found[1] or 0) > 65_535:
            raise Unfit("has no HOST:PORT")
        return text

    def write(self, value: str) -> str:
        """See `Kind`."""
        return value


def unfit_for(protocol: str, endpoint: str) -> str | None:
    """Return what is wrong with a legal endpoint for a protocol; None if nothing is."""
    if protocol == HTTP and not endpoint.lower().startswith(("http://", "https://")):
        return "has no http:// or https://, which http/protobuf needs"
    return None
