"""Keeping secrets out of what is printed."""

from __future__ import annotations

from collections.abc import Mapping

from snakepit_otel.common.secrets import masked_text, masked_url, secrets_of_exports
from snakepit_otel.telemetry.environment.masking import header_names

__all__ = ["Masking", "header_names", "masked_url"]

_SHORTEST = 4
"""Shorter than this, a value occurs by chance, and masking it would only garble what is said."""
_LONGEST_SAID = 300


class Masking:
    """Knows the secrets of an environment, and takes them out of what others say."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        found = secrets_of_exports(environ)
        self._secrets = sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True)

    def said(self, text: object) -> str:
        """Return what a peer or a library said: one line, no secrets, no control characters, not too long."""
        line = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
        for secret in self._secrets:
            line = line.replace(secret, "***")
        line = masked_text(line[: 4 * _LONGEST_SAID])
        return line if len(line) <= _LONGEST_SAID else f"{line[:_LONGEST_SAID]}…"
