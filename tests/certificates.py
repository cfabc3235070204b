"""Certificates for tests, signed by authorities of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
# Python 3.13 and later take an authority and a certificate for none without these.
_SIGNS = ("-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign")
_SIGNED = "authorityKeyIdentifier=keyid\n"
LOCAL = "DNS:localhost,IP:127.0.0.1,IP:::1"


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def authority(directory: Path, name: str) -> None:
    """Make NAME.pem and NAME.key, which can sign others' certificates."""
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    _openssl(directory, "req", "-x509", *_NEW_KEY, *files, "-days", "1", "-subj", f"/CN={name}", *_SIGNS)


def signed(directory: Path, name: str, by: str, names: str | None = LOCAL, *, days: int = 1, subject: str = "") -> None:
    """Make NAME.pem, signed by an authority, and NAME.key. `names` are other names than the subject's."""
    request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject or f"/CN={name}")
    _openssl(directory, "req", "-new", *_NEW_KEY, *request)
    others = "" if names is None else f"subjectAltName={names}\n"
    (directory / f"{name}.extensions").write_text(_SIGNED + others)
    extensions = ("-extfile", f"{name}.extensions")
    signer = ("-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial")
    _openssl(
        directory,
        *("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem", "-days", str(days), *extensions),
    )


def files(directory: Path, name: str) -> tuple[Path, Path]:
    """Return a certificate and its key."""
    return directory / f"{name}.pem", directory / f"{name}.key"
