"""Secrets, and what is shown in their place.

Whatever leaves for a terminal, a log or a collector, and was not written there on purpose, goes through here: URLs have
users and signatures, headers have tokens, environments have anything, and errors repeat all of them.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

MASK: Final = "***"
_SHORTEST = 6
"""Characters: shorter than this, a value occurs by chance, and masking it would only garble a text."""
_MOST_KNOWN = 1_000
_PROXIES = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy")

_WORDS = (
    "token|secret|passw(?:or)?d|passphrase|pwd|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|secret[_-]?key"
    "|account[_-]?key|credentials?|authorization|signature"
)
_NAME = re.compile(rf"(?:{_WORDS})(?:$|[_.-])|(?:^|[_.-])(?:auth|cookie|dsn|jwt|sas)$", re.IGNORECASE)
# Of variables and headers only: other keys are those of a database, or of a table.
_KEY = re.compile(r"_KEY$|-[Kk][Ee][Yy]$")


class _Kind(NamedTuple):
    """One kind of secret in a text: how it is found, what is put there, and which texts are looked at at all."""

    pattern: re.Pattern[str]
    instead: str
    hints: tuple[str, ...]
    """The text, in small letters, has one of these if it has such a secret."""


_HINTS_OF_WORDS = ("token", "secret", "passw", "passphrase", "pwd", "key", "credential", "authorization", "signature")
_KINDS: Final = (
    _Kind(
        re.compile(
            r"-----BEGIN ([A-Z ]{0,30})PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        MASK,
        ("private key-----",),
    ),
    # The user of a URL, and one with a password where there is no scheme.
    _Kind(re.compile(r"(?<=://)[^\s/'\"<>]{1,1024}@"), rf"{MASK}@", ("://",)),
    _Kind(
        re.compile(r"(?<![\w.+%-])[\w.+%-]{1,100}:[^\s/@:'\"<>,;()]{1,200}@(?=[\w\[])"),
        rf"{MASK}@",
        ("@",),
    ),
    # What signs or opens a URL.
    _Kind(
        re.compile(
            rf"((?:[?&;]|%3f|%26)(?:[\w.%-]{{0,40}}(?:{_WORDS})|sig|key|auth|code|pass|jwt|sas)(?:=|%3d))[^&#\s'\"<>;]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
        ("?", "&", ";", "%3f", "%26"),
    ),
    # A header, by its name; and what is assigned to a name that says it all.
    _Kind(
        re.compile(
            r"(authorization|cookie|\w-(?:key|token|secret))(['\"]?\s{0,4}[:=]\s{0,4}['\"]?)"
            r"(?:(?:bearer|basic|digest|token)(?:\s|%20){1,4})?[^\s,;&'\"<>]+",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
        ("authorization", "cookie", "-key", "-token", "-secret"),
    ),
    _Kind(
        re.compile(rf"((?:{_WORDS})=['\"]?)(?!\*\*\*)[^\s,;&'\"<>()]+", re.IGNORECASE),
        rf"\1{MASK}",
        _HINTS_OF_WORDS,
    ),
    _Kind(
        re.compile(rf"((?:{_WORDS})['\"]\s{{0,4}}:\s{{0,4}}['\"])[^'\"]+", re.IGNORECASE),
        rf"\1{MASK}",
        _HINTS_OF_WORDS,
    ),
    _Kind(
        re.compile(rf"(?<!\S)(--?[\w-]{{0,40}}(?:{_WORDS})\s+)[^\s-]\S*", re.IGNORECASE),
        rf"\1{MASK}",
        _HINTS_OF_WORDS,
    ),
    _Kind(
        re.compile(r"\b(bearer(?:\s|%20){1,4})(?!auth|tokens?\b|scheme|header|\*)[\w.~+/=-]{4,}", re.IGNORECASE),
        rf"\1{MASK}",
        ("bearer",),
    ),
    _Kind(
        re.compile(r"\b(basic(?:\s|%20){1,4})(?=[a-z+/-]{0,200}[\d=])[\w+/=-]{6,}", re.IGNORECASE),
        rf"\1{MASK}",
        ("basic",),
    ),
    # Tokens that can be seen to be ones.
    _Kind(
        re.compile(
            r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}|hf_\w{20,}"
            r"|xox[abprs]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
        ),
        MASK,
        ("akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "glpat-", "sk-", "hf_", "xox", "eyj"),
    ),
)

_known: frozenset[str] = frozenset()
_known_pattern: re.Pattern[str] | None = None


def names_a_secret(name: str) -> bool:
    """Whether what has this name, a variable's or a header's, is better not shown."""
    return _NAME.search(name) is not None or _KEY.search(name) is not None


def learn(environ: Mapping[str, str]) -> None:
    """Have the secrets of an environment masked wherever they occur, from now on.

    These are the values of headers, users, passwords and queries of endpoints and proxies, and what has a telling name.
    """
    found = secrets_of_exports(environ)
    for name, value in environ.items():
        if _is_of_exports(name):
            continue
        if names_a_secret(name):
            # A path to a secret is none.
            found |= {value.strip()} if not value.startswith(("/", "./")) else set()
        elif "://" in value:
            found |= _with_decoded(_user_of(value))
    _remember(found)


def secrets_of_exports(environ: Mapping[str, str]) -> set[str]:
    """Return what is secret in the variables that exports go by: of headers, endpoints and proxies."""
    found: set[str] = set()
    for name, value in environ.items():
        if _is_of_exports(name):
            found |= secrets_in_headers(value) if name.endswith("_HEADERS") else secrets_in_url(value)
    return found


def _is_of_exports(name: str) -> bool:
    is_otel = name.startswith("OTEL_") and (name.endswith("_HEADERS") or "ENDPOINT" in name)
    return is_otel or name.lower() in _PROXIES


def masked_text(text: str) -> str:
    """Return a text without the secrets that are known, or can be seen to be ones."""
    if _known_pattern is not None:
        text = _known_pattern.sub(MASK, text)
    small = text.lower()
    for kind in _KINDS:
        if any(hint in small for hint in kind.hints):
            text = kind.pattern.sub(kind.instead, text)
    return text


def masked_value(name: str, value: Any) -> Any:
    """Return what has a name as it may be shown: a mask for a secret, a text without those that are in it."""
    if isinstance(value, str):
        return MASK if names_a_secret(name) and value else masked_text(value)
    if isinstance(value, list | tuple):
        return masked_arguments(value) if all(isinstance(each, str) for each in value) else value
    return value


def masked_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments of a program without secrets: also those that follow an option such as `--token`."""
    shown = []
    after_option = False
    for argument in arguments:
        shown.append(MASK if after_option and not argument.startswith("-") else masked_text(argument))
        after_option = argument.startswith("-") and "=" not in argument and names_a_secret(argument)
    return tuple(shown)


def masked_url(url: str) -> str:
    """Return a URL without the user, password and query it may have."""
    scheme, separator, rest = url.rpartition("://")
    rest, question, _ = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}{separator}{'***@' if at or user else ''}{host}{slash}{path}{'?***' if question else ''}"


def secrets_in_headers(text: str) -> set[str]:
    """Return what is secret in a variable such as OTEL_EXPORTER_OTLP_HEADERS: all of the headers' values."""
    values = {text.strip()}
    for entry in text.split(","):
        value = entry.partition("=")[2].strip() or entry.strip()
        for form in (value, unquote(value).strip()):
            values |= {form, *form.split()[1:]}
            values |= _decoded(form.rpartition(" ")[2])
    return values


def secrets_in_url(text: str) -> set[str]:
    """Return what is secret in a URL: user, password and the values of its query."""
    try:
        query = urlsplit(text).query
    except ValueError:
        query = ""
    return _with_decoded({*_user_of(text), query, *(pair.partition("=")[2] for pair in query.split("&"))})


def _user_of(url: str) -> set[str]:
    user = url.rpartition("://")[2].partition("/")[0].rpartition("@")[0]
    return {user, user.partition(":")[2]}


def _with_decoded(parts: set[str]) -> set[str]:
    return parts | {unquote(part) for part in parts}


def _decoded(text: str) -> set[str]:
    try:
        user = b64decode(text, validate=True).decode()
    except ValueError:
        return set()
    return {user, user.partition(":")[2]}


def _remember(values: Iterable[str]) -> None:
    global _known, _known_pattern
    new = {value for value in values if len(value) >= _SHORTEST and not value.isalpha() | value.isdecimal()}
    new |= {value for value in values if len(value) >= 2 * _SHORTEST}
    if new <= _known:
        return
    _known = frozenset(sorted(_known | new)[:_MOST_KNOWN])
    # The longest first, as one may be part of another.
    _known_pattern = re.compile("|".join(map(re.escape, sorted(_known, key=len, reverse=True))))
