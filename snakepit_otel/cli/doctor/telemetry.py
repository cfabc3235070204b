"""Sends canaries where the environment says, and tells what became of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from snakepit_otel.cli.doctor.deadline import Deadline, side_by_side
from snakepit_otel.cli.doctor.diagnosis import diagnose, needs_probes
from snakepit_otel.cli.doctor.masking import Masking, masked_url
from snakepit_otel.cli.doctor.report import Check, Status, ok, problem, warning
from snakepit_otel.cli.doctor.target import PROTOCOLS, SIGNALS, Target, effective, target_of
from snakepit_otel.telemetry.environment import Environment

_FOR_CANARIES = 0.6
"""The share of the time that canaries may take; the rest is for probes."""


def check_telemetry(timeout: float) -> list[Check]:
    """Send a canary of each signal and diagnose those that were not taken, in `timeout` seconds in all."""
    environ, read = os.environ, Environment()
    for name, value in (("OTEL_SDK_DISABLED", True), ("SNAKEPIT_TELEMETRY_LEVEL", "off")):
        if read[name] == value:
            said = f"{name}={environ[name].strip()} switches all of it off; nothing was sent"
            return [problem("telemetry", said, "unset it", "disabled")]
    checks: list[Check] = []
    targets: list[Target] = []
    for signal in SIGNALS:
        checks += _faults(signal, read)
        for exporter in read.exporters(signal):
            if exporter in PROTOCOLS:
                _add_target(targets, checks, signal, PROTOCOLS[exporter], effective(signal, read, environ))
            else:
                checks.append(ok(signal, f"go to the exporter {exporter!r}, which is not OTLP; no canary was sent"))
    silent = [signal for signal in SIGNALS if not read.exporters(signal)]
    if len(silent) == len(SIGNALS) and not checks:
        said = "no endpoint is set, so nothing is exported"
        return [problem("telemetry", said, "export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317", "no_endpoint")]
    wrong = {check.topic for check in checks}
    checks += [_not_exported(signal, environ) for signal in silent if signal not in wrong]
    return [*_sent(targets, timeout, environ, read), *checks] if targets else checks


def _faults(signal: str, read: Environment) -> list[Check]:
    """Return what keeps a signal from going where it was meant to: a wrong exporter, or a wrong endpoint."""
    exporter = f"OTEL_{signal.upper()}_EXPORTER"
    endpoints = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    unsent = not read.exporters(signal) and read.given(exporter) is None
    checks = []
    for fault in read.faults:
        if fault.variable == exporter:
            checks.append(problem(signal, str(fault), fault.remedy, "unknown_exporter"))
        elif fault.variable in endpoints and unsent:
            remedy = "write http://HOST:PORT, or https:// where the server speaks TLS"
            checks.append(problem(signal, f"not sent: {fault}", remedy, "bad_endpoint"))
    return checks


def _add_target(
    targets: list[Target], checks: list[Check], signal: str, protocol: str, environ: Mapping[str, str]
) -> None:
    try:
        targets.append(target_of(signal, protocol, environ))
    except ValueError as error:
        said = f"the endpoint is no address: {Masking(environ).said(masked_url(str(error)))}"
        remedy = "write http://HOST:PORT, or https:// where the server speaks TLS"
        checks.append(problem(signal, said, remedy, "bad_endpoint"))


def _not_exported(signal: str, environ: Mapping[str, str]) -> Check:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    if environ.get(variable):
        return ok(signal, f"not sent: {variable} says none")
    remedy = f"set OTEL_EXPORTER_OTLP_ENDPOINT, for all signals, or OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    return warning(signal, "not sent: the endpoints that are set are for other signals", remedy, "not_exported")


def _sent(targets: list[Target], timeout: float, environ: Mapping[str, str], read: Environment) -> list[Check]:
    # Imported here, so that the other checks work where the SDK is what is broken.
    from snakepit_otel.cli.doctor.canary import METRIC_NAME, Canary, Outcome, hushed
    from snakepit_otel.cli.doctor.probes import certificate_problem, gather

    deadline = Deadline(timeout)
    masking = Masking(environ)
    canary = Canary(read)
    checks = []
    with hushed():
        usable = []
        for target in targets:
            if wrong := certificate_problem(target) if target.secure else "":
                said = f"{target.shown}: {masking.said(wrong)}"
                checks.append(problem(target.signal, said, "correct the path or the file", "bad_certificate_file"))
            else:
                usable.append(target)
        for_canaries = timeout * _FOR_CANARIES
        sending = {str(number): partial(canary.send, target, for_canaries) for number, target in enumerate(usable)}
        outcomes = side_by_side(sending, Deadline(for_canaries + 0.1 * timeout))
        sent = [(target, outcomes[str(number)] or Outcome(timed_out=True)) for number, target in enumerate(usable)]
        # Signals that go the same way share their probes.
        open_questions = {str(_way(target)): target for target, outcome in sent if needs_probes(outcome)}
        probing_time = Deadline(deadline.left * 0.8)
        asking = {way: partial(gather, target, probing_time) for way, target in open_questions.items()}
        facts = side_by_side(asking, deadline)
    diagnosed = [diagnose(target, outcome, facts.get(str(_way(target))), masking) for target, outcome in sent]
    if any(check.status is not Status.PROBLEM for check in diagnosed):
        found = f"{canary.id} - look for it as a trace id, as service.instance.id of the metric "
        found += f"{METRIC_NAME!r}, and in the body of a log record"
        diagnosed.append(ok("canary", found, canary=canary.id, trace_id=canary.id))
    return [*checks, *diagnosed]


def _way(target: Target) -> tuple[object, ...]:
    pem = (target.certificate, target.client_certificate, target.client_key)
    return (target.peer, target.protocol, target.secure, pem, target.proxy)
