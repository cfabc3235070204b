"""Keeping secrets out of what is printed."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from snakepit_otel.telemetry.environment.masking import header_names, masked_url, without_users

__all__ = ["Masking", "header_names", "masked_url"]

_SHORTEST = 4
"""Shorter than this, a value occurs by chance, and masking it would only garble what is said."""
_LONGEST_SAID = 300
_PROXIES = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy")


class Masking:
    """Knows the secrets of an environment, and takes them out of what others say."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        found: set[str] = set()
        for name, value in environ.items():
            if name.startswith("OTEL_") and name.endswith("_HEADERS"):
                found |= _in_headers(value)
            elif (name.startswith("OTEL_") and "ENDPOINT" in name) or name.lower() in _PROXIES:
                found |= _in_url(value)
        self._secrets = sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True)

    def said(self, text: object) -> str:
        """Return what a peer or a library said: one line, no secrets, no control characters, not too long."""
        line = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
        for secret in self._secrets:
            line = line.replace(secret, "***")
        line = without_users(line[: 4 * _LONGEST_SAID])
        return line if len(line) <= _LONGEST_SAID else f"{line[:_LONGEST_SAID]}…"


def _in_headers(text: str) -> set[str]:
    values = {text.strip()}
    for entry in text.split(","):
        value = entry.partition("=")[2].strip() or entry.strip()
        for form in (value, unquote(value).strip()):
            values |= {form, *form.split()[1:]}
            values |= _decoded(form.rpartition(" ")[2])
    return values


def _decoded(text: str) -> set[str]:
    try:
        user = b64decode(text, validate=True).decode()
    except (NotBase64, ValueError):
        return set()
    return {user, user.partition(":")[2]}


def _in_url(text: str) -> set[str]:
    user = text.rpartition("://")[2].partition("/")[0].rpartition("@")[0]
    try:
        query = urlsplit(text).query
    except ValueError:
        query = ""
    parts = {user, *user.split(":"), query, *(pair.partition("=")[2] for pair in query.split("&"))}
    return parts | {unquote(part) for part in parts}
