"""Values of variables for people: one short line, without secrets."""

from __future__ import annotations

import re

from snakepit_otel.common.secrets import masked_text, masked_url

_MAX_CHARACTERS = 80
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]{1,64}", re.ASCII)


def masked(name: str, value: str) -> str:
    """Return a variable's value without headers' values and passwords."""
    if name.endswith("_HEADERS"):
        return ", ".join(f"{header}=***" for header in header_names(value)) or "***"
    if name == "OTEL_RESOURCE_ATTRIBUTES":
        return ", ".join(_cut(pair.partition("=")[0].strip()) for pair in value.split(",")[:20])
    return _cut(
        masked_url(value) if name.endswith(("ENDPOINT", "ADDRESS")) else masked_text(value[: 10 * _MAX_CHARACTERS])
    )


def quoted(name: str, value: str) -> str:
    """Return the masked value in quotation marks, with escapes for characters that are not printable."""
    return ascii(masked(name, value)) if not value.isprintable() else repr(masked(name, value))


def header_names(text: str) -> list[str]:
    """Return the names of the headers in a variable such as OTEL_EXPORTER_OTLP_HEADERS, without their values."""
    names = [entry.partition("=")[0].strip().lower() for entry in text.split(",") if "=" in entry]
    # An invalid name may be half of a value that had a comma in it.
    return [name if _HEADER_NAME.fullmatch(name) else "***" for name in names]


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
