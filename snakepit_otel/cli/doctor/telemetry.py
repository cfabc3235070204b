"""Checks of the telemetry's way: a canary for each signal, and a hint for each one that was not accepted."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from snakepit_otel.cli.doctor.report import Check, Status, ok, problem, warning
from snakepit_otel.cli.doctor.target import EXPORTERS, Target, connect
from snakepit_otel.common.secrets import learn, masked_text, masked_url
from snakepit_otel.system.daemon_thread import start_daemon_thread
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.variables import OTLP, SIGNALS

if TYPE_CHECKING:
    from snakepit_otel.cli.doctor.canary import Outcome

# The share of the time that canaries have; connection attempts have the rest.
_CANARY_SHARE = 0.7
_LONGEST_EVIDENCE = 300


def check_telemetry(timeout: float) -> list[Check]:
    """Send a canary for each signal, and give a hint for each one not accepted, in `timeout` seconds in all."""
    environment = Environment()
    for name, value in (("OTEL_SDK_DISABLED", True), ("SNAKEPIT_TELEMETRY_LEVEL", "off")):
        if environment[name] == value:
            message = f"{name}={os.environ[name].strip()} switches all of it off; nothing was sent"
            return [problem("telemetry", message, "unset it", "disabled")]
    checks: list[Check] = []
    targets: list[Target] = []
    for signal in SIGNALS:
        faults = _faults(signal, environment)
        checks += faults
        exporters = environment.exporters(signal)
        targets += [Target.of(signal, name, environment) for name in exporters if name in EXPORTERS]
        others = [name for name in exporters if name not in EXPORTERS]
        checks += [ok(signal, f"exporter {name!r} is not OTLP; no canary was sent") for name in others]
        if not exporters and not faults:
            checks.append(_not_exported(signal))
    if not targets and all(check.code == "not_exported" for check in checks):
        remedy = "export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317"
        return [problem("telemetry", "no endpoint is set, so nothing is exported", remedy, "no_endpoint")]
    return [*_send(targets, timeout, environment), *checks] if targets else checks


def _faults(signal: str, environment: Environment) -> list[Check]:
    """Return the faults of variables for which a signal is not exported."""
    exporter = f"OTEL_{signal.upper()}_EXPORTER"
    unsent = not environment.exporters(signal) and environment.given(exporter) is None
    checks = []
    for fault in environment.faults:
        if fault.variable == exporter:
            checks.append(problem(signal, str(fault), fault.remedy, "unknown_exporter"))
        elif fault.variable in (f"{OTLP}{signal.upper()}_ENDPOINT", f"{OTLP}ENDPOINT") and unsent:
            remedy = "write http://HOST:PORT, or https:// where the server speaks TLS"
            checks.append(problem(signal, f"not sent: {fault}", remedy, "bad_endpoint"))
    return checks


def _not_exported(signal: str) -> Check:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    if os.environ.get(variable):
        return ok(signal, f"not sent: {variable}=none")
    remedy = f"set OTEL_EXPORTER_OTLP_ENDPOINT, for all signals, or OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    return warning(signal, "not sent: the endpoints that are set are for other signals", remedy, "not_exported")


def _send(targets: list[Target], timeout: float, environment: Environment) -> list[Check]:
    # Imported here, so that the other checks work where the SDK is broken.
    from snakepit_otel.cli.doctor.canary import METRIC_NAME, Canary, silenced

    learn(os.environ)
    end = time.monotonic() + timeout
    canary = Canary(environment)
    with silenced():
        sent = [start_daemon_thread(partial(canary.send, target, timeout * _CANARY_SHARE)) for target in targets]
        pairs = [(target, _outcome(future, end - 0.2 * timeout)) for target, future in zip(targets, sent, strict=True)]
        unclear = {target.address for target, outcome in pairs if _is_open(outcome)}
        left = max(end - time.monotonic(), 0.01)
        connecting = {each: start_daemon_thread(partial(connect, each, left)) for each in unclear if each is not None}
        errors: dict[object, BaseException | None] = {each: _error(future, end) for each, future in connecting.items()}
    checks = [_check(target, outcome, errors.get(target.address)) for target, outcome in pairs]
    if any(check.status is not Status.PROBLEM for check in checks):
        message = f"{canary.id} - look for it as a trace id, as service.instance.id of the metric "
        message += f"{METRIC_NAME!r}, and in the body of a log record"
        checks.append(ok("canary", message, canary=canary.id, trace_id=canary.id))
    return checks


def _outcome(sent: Future[Outcome], end: float) -> Outcome | BaseException:
    error = _error(sent, end)
    return sent.result() if error is None else error


def _error(future: Future[Outcome] | Future[None], end: float) -> BaseException | None:
    try:
        return future.exception(max(end - time.monotonic(), 0.01))
    except TimeoutError as error:
        return error


def _is_open(outcome: Outcome | BaseException) -> bool:
    """Whether the outcome leaves open if there is a peer at all."""
    from snakepit_otel.cli.doctor.hints import hint_of_answer

    if isinstance(outcome, BaseException):
        return isinstance(outcome, TimeoutError)
    return not outcome.accepted and hint_of_answer(outcome) is None


def _check(target: Target, outcome: Outcome | BaseException, error: BaseException | None) -> Check:
    from snakepit_otel.cli.doctor.canary import Outcome
    from snakepit_otel.cli.doctor.hints import hint_of_answer, hint_of_connection, hint_of_error

    topic = f"{target.signal} over {'gRPC' if target.is_grpc else 'HTTP'}"
    url = masked_url(target.endpoint)
    if isinstance(outcome, TimeoutError):
        outcome = Outcome("", "no answer in time", timed_out=True)
    if isinstance(outcome, BaseException):
        message = f"the exporter cannot be made: {_evidence(f'{type(outcome).__name__}: {outcome}')}"
        return problem(topic, message, "correct the variable that the message names", "exporter_refused")
    evidence = _evidence(outcome.text)
    if outcome.rejected:
        remedy = "exporters do not notice this; see the receiver's message, its limits and its schema"
        message = f"{url}: success, and the canary was thrown away"
        return problem(topic, message, remedy, "partial_success", evidence or "no reason given")
    if outcome.accepted and outcome.text:
        remedy = "see the receiver's message; everything arrived"
        return warning(topic, f"{url}: accepted, with a warning", remedy, "partial_success_warning", evidence)
    if outcome.accepted:
        return ok(topic, f"accepted by {url}", endpoint=url)
    hint = hint_of_answer(outcome) or hint_of_connection(target, error) or hint_of_error(target, outcome)
    fields = {**vars(target), "signal": target.signal, "SIGNAL": target.signal.upper()}
    if error is not None:
        evidence = _evidence(f"{type(error).__name__}: {error}; {outcome.text}")
    message = f"{url}: {hint.message.format_map(fields)}"
    return problem(topic, message, hint.remedy.format_map(fields), hint.code, evidence)


def _evidence(text: str) -> str:
    line = masked_text(" ".join("".join(char if char.isprintable() else " " for char in text).split()))
    return line if len(line) <= _LONGEST_EVIDENCE else f"{line[:_LONGEST_EVIDENCE]}…"
