"""The package index that pip is configured with: files, releases and vulnerabilities."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_SIMPLE = "application/vnd.pypi.simple.v1+json"
_MOST_BYTES = 64 << 20
# Seconds without a byte.
_TIMEOUT = 60.0
# A release that nobody maintains, and whose holes have been published for years: an index that has none of them has no
# data.
KNOWN_TO_BE_VULNERABLE = ("pycrypto", "2.6.1")


class NoData(Exception):
    """The index does not answer, or not in a way that can be understood."""


def files(name: str) -> dict[str, Any]:
    """Return what the index has of a package, by PEP 691 and 700. Raises `NoData`."""
    page = _json(f"{_index()}/{name}/", _SIMPLE)
    if not isinstance(page.get("files"), list) or not all("upload-time" in file for file in page["files"]):
        raise NoData("the index does not give the times of releases (PEP 700)")
    return page


def vulnerabilities(name: str, version: str) -> list[dict[str, Any]]:
    """Return the known vulnerabilities of a release. Raises `NoData`.

    Some mirrors have those of the newest release only.
    """
    root = _index().removesuffix("/simple")
    try:
        answer = _json(f"{root}/pypi/{name}/{version}/json", "application/json")
    except NoData:
        answer = _json(f"{root}/pypi/{name}/json", "application/json")
        newest = (answer.get("info") or {}).get("version")
        if newest != version:
            raise NoData(f"the index has vulnerabilities of the newest release only, which is {newest}") from None
    found = answer.get("vulnerabilities")
    if not isinstance(found, list):
        raise NoData("the index gives no vulnerabilities")
    return [one for one in found if isinstance(one, dict) and not one.get("withdrawn")]


@cache
def has_vulnerability_data() -> bool:
    """Say whether the index has such data at all, by a release that is known to have some."""
    try:
        return bool(vulnerabilities(*KNOWN_TO_BE_VULNERABLE))
    except NoData:
        return False


def host() -> str:
    """Return the index's host, for people; its address may have a password in it."""
    return urlsplit(_index()).hostname or "?"


@cache
def _index() -> str:
    return (os.environ.get("PIP_INDEX_URL") or _of_pip("global.index-url") or "https://pypi.org/simple").rstrip("/")


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or _of_pip("global.cert") or None)


def _of_pip(setting: str) -> str:
    completed = subprocess.run(  # noqa: S603 - pip of this environment
        [sys.executable, "-m", "pip", "config", "get", setting], capture_output=True, text=True, check=False
    )
    return completed.stdout.strip() if completed.returncode == 0 else ""


def _json(address: str, accepted: str) -> dict[str, Any]:
    parts = urlsplit(address)
    if parts.scheme != "https":
        raise NoData("the index is not https")
    if parts.username is not None:
        raise NoData("the index wants a password, which is not sent from here")
    request = urllib.request.Request(urlunsplit(parts), headers={"Accept": accepted})  # noqa: S310 - https
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=_trust()) as response:  # noqa: S310
            content = response.read(_MOST_BYTES + 1)
        found = json.loads(content) if len(content) <= _MOST_BYTES else None
    except urllib.error.HTTPError as error:
        raise NoData(f"{parts.hostname} answers {error.code}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise NoData(f"{parts.hostname}: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise NoData(f"{parts.hostname} does not answer in JSON objects")
    return found
