"""Checks of the settings, and of the sockets, ports, files and shared memory that they need."""

from __future__ import annotations

import resource
import socket
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from snakepit_otel.cli.doctor.report import Check, ok, problem, warning
from snakepit_otel.cli.effective_settings import effective, written
from snakepit_otel.common.loopback import is_loopback
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.addresses import split
from snakepit_otel.settings import Settings, TlsSettings
from snakepit_otel.settings._loading import load
from snakepit_otel.system.daemon_thread import start_daemon_thread
from snakepit_otel.system.default_socket import default_socket
from snakepit_otel.system.private_directory import PrivateDirectory
from snakepit_otel.system.socket_files import checked_socket_directory
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy import _memory as memory

_LOOKUP_TIMEOUT_S = 5.0
_LONGEST_WORKER_SOCKET = "default-99999.99999.sock"


def check_settings(config: Path | None, given: dict[str, Any]) -> tuple[list[Check], Settings | None]:
    """Check the settings that serve would use, and return them if they are valid."""
    try:
        loaded = load(config, given)
    except ConfigurationError as error:
        wrong = [
            problem("settings", line, "correct it; docs/configuration.md has every setting", "bad_setting")
            for line in str(error).splitlines()
        ]
        return wrong, None
    set_here = {row.name: written(row.value) for row in effective(loaded) if row.changed}
    message = ", ".join(f"{name}={value}" for name, value in set_here.items()) or "the defaults"
    if loaded.file is not None:
        message = f"{loaded.file}: {message}"
    return [ok("settings", message, settings=set_here)], loaded.settings


def check_sockets(settings: Settings) -> list[Check]:
    """Check that the sockets of callers and workers can be made."""
    checks = [_callers(settings.server.socket or default_socket()), _workers(), _transport(settings)]
    return [*checks, _tls_files(settings.server.tls)] if settings.server.tls else checks


def _transport(settings: Settings) -> Check:
    topic = "transport over Unix sockets"
    if settings.server.local_transport == "grpc":
        return ok(topic, "gRPC, by server.local_transport")
    return ok(topic, "ttrpc; gRPC beside it, for callers that speak it")


def check_listen(address: str, *, certified: bool, insecure: bool) -> Check:
    """Check an address by listening on it; `certified` callers have client certificates."""
    topic = f"listen on {address}"
    try:
        host, port = split(address)
        look_up = partial(socket.getaddrinfo, host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        candidates = start_daemon_thread(look_up).result(_LOOKUP_TIMEOUT_S)
    except ConfigurationError as error:
        return problem(topic, str(error), "write HOST:PORT, such as 127.0.0.1:50051", "bad_address")
    except TimeoutError:
        return problem(topic, "the name server does not answer", "give an address instead of a name", "bad_address")
    except OSError as error:
        return problem(topic, f"the host {host!r} is unknown: {error.strerror}", "correct the host", "bad_address")
    family, kind, _, _, place = candidates[0]
    with socket.socket(family, kind) as listener:
        # As gRPC does: recent connections do not block a port, a listener does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
            listener.listen(1)
        except OSError as error:
            remedy = "choose another port, or stop its process, which ss -ltnp shows"
            return problem(topic, f"not possible: {error.strerror}", remedy, "cannot_listen")
    if not certified and not insecure and not all(is_loopback(str(found[4][0])) for found in candidates):
        message = "free, but other machines can reach it, which serve refuses without TLS and client certificates"
        remedy = "give TLS files (server.tls, client_ca among them), or listen on 127.0.0.1"
        return problem(topic, message, remedy, "insecure")
    return ok(topic, "free")


def check_shared_memory(settings: ZeroCopySettings) -> Check:
    """Check for sealed memfds, and for descriptors for all references that the settings allow."""
    topic = "shared memory"
    if not settings.enabled:
        return ok(topic, "switched off by zero_copy.enabled: bytes are copied over gRPC")
    if not memory.can_share():
        message = "this machine has no sealed memfds, so the bytes of references are copied over gRPC"
        remedy = "use a Linux kernel whose sandbox allows memfd_create with sealing, or set zero_copy.enabled = false"
        if not settings.allow_fallback:
            message = "this machine has no sealed memfds, and zero_copy.allow_fallback forbids copying"
            return problem(topic, message, remedy, "no_shared_memory")
        return warning(topic, message, remedy, "no_shared_memory")
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = settings.max_host_references
    if descriptors != resource.RLIM_INFINITY and descriptors // 2 < most:
        message = (
            f"{descriptors} descriptors allow for {descriptors // 2} references at a time, fewer than the {most} set"
        )
        remedy = f"raise the limit to {2 * most} (ulimit -n, LimitNOFILE=), or lower zero_copy.max_host_references"
        return warning(topic, message, remedy, "few_descriptors")
    return ok(topic, "sealed memfds can be shared")


def _tls_files(tls: TlsSettings) -> Check:
    topic = "TLS for callers"
    try:
        valid_until = tls.files().check()
    except ConfigurationError as error:
        return problem(topic, str(error), "correct the paths, or the files", "bad_tls_files")
    if valid_until is None:
        message = f"{tls.certificate} and its key are a pair, but a client does not accept the certificate now"
        remedy = "look at its dates: openssl x509 -noout -dates -in FILE"
        return problem(topic, message, remedy, "bad_tls_dates")
    return ok(topic, f"{tls.certificate} and its key can be used until {valid_until}")


def _callers(path: Path) -> Check:
    topic = "socket for callers"
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        checked_socket_directory(path)
    except ConfigurationError as error:
        return problem(topic, str(error), "chmod 700 the directory, or choose another by --socket", "bad_directory")
    try:
        if wrong := _bind(path.with_name("d" * len(path.name))):
            remedy = "choose a shorter path by --socket, or set XDG_RUNTIME_DIR to a short one"
            return problem(topic, f"{path}: {wrong}", remedy, "bad_socket")
    finally:
        # Leave nothing behind.
        for directory in made:
            with suppress(OSError):
                directory.rmdir()
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.2)
        is_served = probe.connect_ex(str(path)) == 0
    return ok(topic, f"{path}, where a server runs" if is_served else f"{path} can be made, with mode 0700")


def _workers() -> Check:
    topic = "sockets for workers"
    try:
        with closing(PrivateDirectory()) as directory:
            if wrong := _bind(directory.path / _LONGEST_WORKER_SOCKET):
                remedy = "set XDG_RUNTIME_DIR to a shorter path"
                return problem(topic, f"{directory.path}: {wrong}", remedy, "bad_socket")
            return ok(topic, f"a private directory can be made in {directory.path.parent}, with mode 0700")
    except ConfigurationError as error:
        message, _, remedy = str(error).partition("; ")
        return problem(topic, message, remedy, "no_directory")


def _bind(path: Path) -> str:
    """Make and remove a socket; return the error's text, or the empty text."""
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            return error.strerror or str(error)
        path.unlink(missing_ok=True)
    return ""
