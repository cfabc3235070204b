"""TLS files of both sides: checked before they are used, and reloaded by a server when they change."""

from __future__ import annotations

import logging
import os
import select
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc

from snakepit_otel import telemetry
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.tls")

_MAX_FILE_BYTES: Final = 1 << 20  # a bundle of all public authorities has a quarter of that
_PIPE_TIMEOUT_S: Final = 5.0
_OPENSSL_EXPIRED: Final = 10
_OPENSSL_NOT_YET_VALID: Final = 9

# Of each file its device, inode, size, and times of change.
FileStates = tuple[tuple[int, int, int, int, int], ...]


@dataclass(frozen=True)
class Tls:
    """Files with the server's certificate chain and key, and the authority that signs clients' certificates."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> str | None:
        """Return until when the certificate is valid, if known. Raises `ConfigurationError` naming an unusable file."""
        return self.read().valid_until

    def read(self) -> TlsContents:
        """Return what the files have. Raises as `check`."""
        chain, key = _bytes_of(self.certificate), _bytes_of(self.key)
        clients = None if self.client_ca is None else _bytes_of(self.client_ca)
        server = _checked_pair(self.certificate, chain, self.key, key)
        if self.client_ca is not None and clients is not None:
            _check_authorities(self.client_ca, clients)
        valid_until, problem = _validity(server, chain)
        return TlsContents(
            grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=clients),
            valid_until,
            problem,
        )

    def paths(self) -> tuple[Path, ...]:
        """Return the files."""
        return (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)


@dataclass(frozen=True)
class TlsContents:
    """Contents of TLS files that can be used. `problem` is why callers will refuse the certificate, if they will."""

    configuration: grpc.ServerCertificateConfiguration
    valid_until: str | None
    problem: str | None


class ReloadingCredentials:
    """Credentials of a server from the newest usable TLS files, at each handshake.

    Changed files that cannot be used are logged once and counted, and those before stay in use. The constructor raises
    `ConfigurationError` naming a file that cannot be read or used.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        # Taken before they are read: what changes in between is read once more.
        self._states = _states(tls)
        self._contents = tls.read()
        self._problem = ""
        _warn_of_key(tls.key)
        self._report_validity()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one address; gRPC's threads read each of them anew when a client connects."""
        given = self._contents

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            newest = self._newest()
            if newest is given:
                return None
            given = newest
            return newest.configuration

        return grpc.dynamic_ssl_server_credentials(
            given.configuration,
            changed,  # type: ignore[arg-type]  # None stands for no change, which its types lack
            require_client_authentication=self._tls.client_ca is not None,
        )

    def _newest(self) -> TlsContents:
        with self._lock:
            states = _states(self._tls)
            if states != self._states:
                self._states = states
                self._take(states)
            return self._contents

    def _take(self, states: FileStates) -> None:
        try:
            if not states:
                missing = next((path for path in self._tls.paths() if not path.is_file()), self._tls.certificate)
                raise ConfigurationError(f"TLS file {missing} is gone, or no regular file")
            self._contents = self._tls.read()
        except ConfigurationError as error:
            telemetry.record(names.METRIC_SERVER_TLS_RELOADS, 1, {names.ERROR_TYPE: "unusable_files"})
            if str(error) != self._problem:
                _log.error(
                    "the TLS files have changed and cannot be used; those before stay: %s", printable_error(error)
                )
            self._problem = str(error)
            return
        self._problem = ""
        telemetry.record(names.METRIC_SERVER_TLS_RELOADS, 1, {})
        _log.info("the TLS files have changed, and new connections have what is in them")
        self._report_validity()

    def _report_validity(self) -> None:
        certificate, contents = self._tls.certificate, self._contents
        if contents.problem:
            _log.warning(
                "the TLS certificate %s %s: clients refuse it; put a new one in its place, which needs no restart",
                printable(certificate),
                printable(contents.problem),
            )
        elif contents.valid_until:
            _log.info(
                "the TLS certificate %s is valid until %s", printable(certificate), printable(contents.valid_until)
            )


def client_credentials(
    root_certificates: Path | None, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials | None:
    """Return what a client calls with, None without files. Raises `ConfigurationError` for bad or missing ones."""
    if (certificate is None) != (key is None):
        raise ConfigurationError(
            "a client's certificate and its key go together: give both (certificate, key), or none"
        )
    if root_certificates is None:
        if certificate is not None:
            raise ConfigurationError(
                "without the authority that signed the server's certificate (root_certificates) there is no TLS, "
                "and the client's certificate would not be used; give it, too"
            )
        return None
    roots = _bytes_of(root_certificates)
    _check_authorities(root_certificates, roots)
    if certificate is None or key is None:
        return grpc.ssl_channel_credentials(roots)
    chain, private = _bytes_of(certificate), _bytes_of(key)
    _checked_pair(certificate, chain, key, private)
    return grpc.ssl_channel_credentials(roots, private, chain)


def advice(details: str, *, secure: bool) -> str | None:
    """Return what to do about a connection over TCP that failed, as gRPC's details show it."""
    if not secure:
        return (
            "if the server speaks TLS, give the authority that signed its certificate (root_certificates; --tls-ca)"
            if "Socket closed" in details or "reset by peer" in details
            else None
        )
    for words, meaning in _MEANINGS:
        if words in details:
            return meaning
    return None


_MEANINGS: Final = (
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS at that port"),
    ("certificate has expired", "the server's certificate has expired; it needs a new one"),
    ("certificate is not yet valid", "the server's certificate is not valid yet; compare the clocks"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the server's certificate is not signed by the authority given (root_certificates; --tls-ca)",
    ),
    (
        "Hostname Verification",
        "the server's certificate is not for the name in the address; call it by a name that it has",
    ),
    (
        "Socket closed",
        "if the server wants clients' certificates, give one that its client CA has signed and that has not expired",
    ),
)


def _bytes_of(path: Path) -> bytes:
    try:
        # Opening a pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            content = _read(descriptor)
        finally:
            os.close(descriptor)
    except TimeoutError:
        raise ConfigurationError(f"TLS file {path} does not end within {_PIPE_TIMEOUT_S} seconds") from None
    except OSError as error:
        raise ConfigurationError(f"TLS file {path}: {error.strerror}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"TLS file {path} has more than {_MAX_FILE_BYTES} bytes")
    return content


def _read(descriptor: int) -> bytes:
    """Return what a file has, or a little more than may be; raise `TimeoutError` where more does not come."""
    content, deadline = b"", time.monotonic() + _PIPE_TIMEOUT_S
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while len(content) <= _MAX_FILE_BYTES:
        try:
            chunk = os.read(descriptor, _MAX_FILE_BYTES + 1)
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                raise TimeoutError from None
            continue
        if not chunk:
            break
        content += chunk
    return content


def _checked_pair(certificate: Path, chain: bytes, key: Path, private: bytes) -> ssl.SSLContext:
    """Return a server's context with the pair. Of unusable files gRPC reports only that it could not listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # What was read is what is checked: the files may be others by now.
        with _in_memory(chain) as chain_path, _in_memory(private) as private_path:
            context.load_cert_chain(chain_path, private_path, password="")
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"TLS certificate {certificate} and key {key} are not PEM, or not a pair, "
            f"or the key is encrypted ({error.reason or error})"
        ) from None
    return context


def _check_authorities(path: Path, content: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with _in_memory(content) as copy:
            context.load_verify_locations(copy)
    except ssl.SSLError as error:
        raise ConfigurationError(f"TLS file {path} has no PEM certificates ({error.reason or error})") from None


def _validity(server: ssl.SSLContext, chain: bytes) -> tuple[str | None, str | None]:
    """Return until when a certificate is valid, or why not, by a handshake in memory; Nones if that is unknown."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        with _in_memory(chain) as copy:
            client.load_verify_locations(copy)
        moment = ssl.cert_time_to_seconds(_end_of_certificate(client, server))
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC"), None
    except ssl.SSLCertVerificationError as error:
        problems = {_OPENSSL_EXPIRED: "has expired", _OPENSSL_NOT_YET_VALID: "is not valid yet"}
        return None, problems.get(error.verify_code)
    except (OSError, ValueError):
        return None, None


def _end_of_certificate(client: ssl.SSLContext, server: ssl.SSLContext) -> str:
    """Let two contexts shake hands in memory; return the end of the server's certificate, in OpenSSL's words."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(back, there)
    called = server.wrap_bio(there, back, server_side=True)
    for _ in range(10):
        for side in (caller, called):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        if caller.version() is not None:
            break
    return str((caller.getpeercert() or {}).get("notAfter", ""))


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Give bytes a path for as long as a block runs, for Python's OpenSSL reads private keys from files only."""
    with os.fdopen(os.memfd_create("tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _states(tls: Tls) -> FileStates:
    """Return the states of the files; none where one is no regular file: a pipe can be read only once."""
    states = []
    for path in tls.paths():
        try:
            status = path.stat()
        except OSError:
            return ()
        if not stat.S_ISREG(status.st_mode):
            return ()
        states.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(states)


def _warn_of_key(key: Path) -> None:
    with suppress(OSError):
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & stat.S_IROTH:
            _log.warning(
                "the TLS key %s is readable by everybody on this machine (mode %s): chmod 600 it, and have a new one "
                "made if others may have read it",
                printable(key),
                printable(f"{mode:04o}"),
            )
