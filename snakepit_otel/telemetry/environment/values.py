"""Values of the variables of a process, and a fault for each invalid one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from snakepit_otel.common.secrets import masked_url
from snakepit_otel.telemetry.environment.display import quoted
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP, invalid_for
from snakepit_otel.telemetry.environment.faults import Fault, warn
from snakepit_otel.telemetry.environment.kinds import Attributes, Headers, InvalidValue, Number, Word
from snakepit_otel.telemetry.environment.variables import ALL, OF_SIGNALS, OTEL, OTLP, PROVIDERS, SIGNALS, Variable

_SHARE = Number(1.0, "traces", allow_zero=True)
_PROTOCOLS = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}
_EXPORTERS = {protocol: exporter for exporter, protocol in _PROTOCOLS.items()}
# Variables removed from `os.environ`; see `imports`.
removed: dict[str, str] = {}


def value(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """Return one variable's value, or its default; log an invalid value."""
    found, fault = examine(name, environ)
    if fault is not None:
        warn([fault], once=True)
    return ALL[name].default if found is None else found


def examine(name: str, environ: Mapping[str, str] | None = None) -> tuple[Any, Fault | None]:
    """Return one variable's value, None without a usable one, and its fault, None without one."""
    text = (os.environ if environ is None else environ).get(name, "").strip()
    return _read(name, ALL[name], text) if text else (None, None)


class Environment:
    """The values of all known variables."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        given = {**removed, **os.environ} if environ is None or environ is os.environ else environ
        self.faults: list[Fault] = []
        self._values: dict[str, Any] = {}
        for name in sorted(ALL.keys() & given.keys()):
            text = given[name].strip()
            if text:
                found, fault = _read(name, ALL[name], text)
                self._note(fault)
                if found is not None:
                    self._values[name] = found
        self._read_share()
        self._of_signals: dict[tuple[str, str], Any] = {}
        self._exporters = {signal: self._choose(signal) for signal in SIGNALS}

    def __getitem__(self, name: str) -> Any:
        return self._values.get(name, ALL[name].default)

    def given(self, name: str) -> Any:
        """Return a variable's value; None if it has no usable one."""
        return self._values.get(name)

    def exporters(self, signal: str) -> tuple[str, ...]:
        """Return the names of a signal's exporters, each once; OTLP's with their protocol."""
        return self._exporters[signal]

    def of_signal(self, signal: str, name: str) -> Any:
        """Return the value of a signal's own variable, such as `TIMEOUT`, or else of the common one."""
        return self._of_signals[signal, name]

    def has_own(self, signal: str, name: str) -> bool:
        """Return whether a variable of the signal's own is set, such as its `ENDPOINT`."""
        return f"{OTLP}{signal.upper()}_{name}" in self._values

    def texts(self, signal: str | None = None) -> dict[str, str]:
        """Return the OTEL_ variables in the spelling that the SDK accepts.

        For the exporter of a `signal` its own variables and the common ones have the same values.
        """
        texts = {
            name: variable.kind.write(self._values[name]) if variable.kind else self._values[name]
            for name, variable in OTEL.items()
            if name in self._values
        }
        for name in PROVIDERS.values():
            if texts.get(name, "").startswith("sdk_"):
                # Set up by us with exporters; the API would make the SDK's without any.
                del texts[name]
        for what in OF_SIGNALS if signal is not None else ():
            found, kind = self._of_signals[signal or "", what], ALL[OTLP + what].kind
            names = (f"{OTLP}{(signal or '').upper()}_{what}", OTLP + what)
            if found is None or found == "none":
                for name in names:
                    texts.pop(name, None)
            elif kind is not None and what != "ENDPOINT":
                texts.update(dict.fromkeys(names, kind.write(found)))
        return texts

    def _note(self, fault: Fault | None) -> None:
        if fault is not None and all(fault.variable != other.variable for other in self.faults):
            self.faults.append(fault)

    def _read_share(self) -> None:
        name, sampler = "OTEL_TRACES_SAMPLER_ARG", self["OTEL_TRACES_SAMPLER"]
        if sampler not in ("traceidratio", "parentbased_traceidratio"):
            return
        text = self._values.get(name, "1.0")
        try:
            self._values[name] = _SHARE.write(_SHARE.read(text))
        except InvalidValue as invalid:
            self._note(_fault(name, text, str(invalid), "1.0 is used"))
            self._values[name] = "1.0"

    def _choose(self, signal: str) -> tuple[str, ...]:
        own = f"{OTLP}{signal.upper()}_"
        for what in OF_SIGNALS:
            self._of_signals[signal, what] = self._values.get(own + what, self._values.get(OTLP + what))
        by_default = _EXPORTERS[self._of_signals[signal, "PROTOCOL"] or GRPC]
        chosen = self._values.get(f"OTEL_{signal.upper()}_EXPORTER", ("otlp",))
        exporters = tuple(dict.fromkeys(by_default if name == "otlp" else name for name in chosen if name != "none"))
        for protocol in (_PROTOCOLS[name] for name in exporters if name in _PROTOCOLS):
            self._reconcile(signal, protocol)
        if f"OTEL_{signal.upper()}_EXPORTER" in self._values or self._of_signals[signal, "ENDPOINT"]:
            return exporters
        # Nothing listens at the default endpoint on most machines.
        return ()

    def _reconcile(self, signal: str, protocol: str) -> None:
        """Remove values that are valid, but not for this protocol."""
        endpoint, name = self._source(signal, "ENDPOINT")
        if endpoint and (reason := invalid_for(protocol, endpoint)):
            remedy = f"{name}=http://{masked_url(endpoint)}"
            self._note(_fault(name, endpoint, reason, "no endpoint is used", "no_scheme", remedy))
            self._of_signals[signal, "ENDPOINT"] = None
        compression, name = self._source(signal, "COMPRESSION")
        if compression == "deflate" and protocol == GRPC:
            reason = "is not supported over gRPC"
            self._note(_fault(name, compression, reason, "none is used", "bad_compression", "use gzip or none"))
            self._of_signals[signal, "COMPRESSION"] = None
        if protocol == GRPC and endpoint and not endpoint.lower().startswith("http://"):
            self._remove_half_a_pair(signal)

    def _remove_half_a_pair(self, signal: str) -> None:
        # gRPC's library ends the process over a certificate without its key, or a key without its certificate.
        for what, other in (("CLIENT_CERTIFICATE", "CLIENT_KEY"), ("CLIENT_KEY", "CLIENT_CERTIFICATE")):
            path, name = self._source(signal, what)
            if path and not self._of_signals[signal, other]:
                reason, remedy = f"is of no use without {OTLP}{other}", f"set {OTLP}{other} too"
                self._note(
                    _fault(name, path, reason, f"{ALL[OTLP + what].default_for_people} is used", "half_a_pair", remedy)
                )
                self._of_signals[signal, what] = None
                return

    def _source(self, signal: str, what: str) -> tuple[Any, str]:
        own = f"{OTLP}{signal.upper()}_{what}"
        return self._of_signals[signal, what], own if own in self._values else OTLP + what


def _read(name: str, variable: Variable, text: str) -> tuple[Any, Fault | None]:
    if variable.unhonoured:
        return None, _fault(name, text, "is not honoured here", variable.unhonoured, "not_honoured", "unset it")
    if variable.kind is None:
        return text, None
    try:
        return variable.kind.read(text), None
    except InvalidValue as invalid:
        if invalid.usable is None:
            used = f"{variable.default_for_people} is used"
        elif isinstance(variable.kind, Headers | Attributes):
            used = "the others are used"
        else:
            used = f"{variable.kind.write(invalid.usable)} is used"
        words = variable.kind.words if isinstance(variable.kind, Word) else ()
        remedy = f"use {' or '.join(words)}" if words else "correct it, or unset it"
        return invalid.usable, _fault(name, text, str(invalid), used, variable.kind.code, remedy)


def _fault(
    name: str, text: str, reason: str, used: str, code: str = "bad_value", remedy: str = "correct it, or unset it"
) -> Fault:
    return Fault(name, text, quoted(name, text), reason, used, code, remedy)
