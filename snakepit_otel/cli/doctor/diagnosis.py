"""What is wrong with one signal's way out: from what was answered and what the probes found, to words and a remedy."""

from __future__ import annotations

from snakepit_otel.cli.doctor.answers import grpc_answer, http_answer, partial_success, rejected
from snakepit_otel.cli.doctor.canary import Outcome
from snakepit_otel.cli.doctor.connection import broken_connection, understands_us
from snakepit_otel.cli.doctor.finding import Found
from snakepit_otel.cli.doctor.masking import Masking
from snakepit_otel.cli.doctor.probes import Facts
from snakepit_otel.cli.doctor.report import Check, ok
from snakepit_otel.cli.doctor.target import Target

_SAID_BY_PEER = {
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "ALREADY_EXISTS",
    "OUT_OF_RANGE",
    "DATA_LOSS",
}
"""Codes that gRPC itself does not make up when it cannot talk to a peer."""


def needs_probes(outcome: Outcome) -> bool:
    """Whether the answer leaves open what is wrong, so that the peer is to be asked itself."""
    if outcome.unbuildable or outcome.grpc_code == "OK" or outcome.grpc_code in _SAID_BY_PEER:
        return False
    # To a request without TLS, some TLS servers answer 400.
    return outcome.http_status in (0, 400)


def diagnose(target: Target, outcome: Outcome, facts: Facts | None, masking: Masking) -> Check:
    """Return what became of a canary, with a remedy unless it was taken."""
    found = _found(target, outcome, facts or Facts(), masking)
    topic = f"{target.signal} over {'gRPC' if target.is_grpc else 'HTTP'}"
    if found is None:
        return ok(topic, f"taken by {target.shown}", endpoint=target.shown)
    said = found.said if target.peer in found.said else f"{target.shown}: {found.said}"
    return Check(topic, found.status, said, found.remedy, found.code, found.evidence, {"endpoint": target.shown})


def _found(target: Target, outcome: Outcome, facts: Facts, masking: Masking) -> Found | None:
    if outcome.unbuildable:
        return Found(
            "exporter_refused",
            f"the exporter cannot be made: {masking.said(outcome.said)}",
            "correct the variable that it names; snakepit-otel doctor without --telemetry looks at each",
        )
    if outcome.rejected or outcome.message:
        return partial_success(target, outcome, masking)
    if outcome.grpc_code == "OK":
        return None
    if needs_probes(outcome):
        return broken_connection(target, facts, masking) or _peer_said(target, outcome, facts, masking)
    return grpc_answer(target, outcome, masking) if target.is_grpc else http_answer(target, outcome, masking)


def _peer_said(target: Target, outcome: Outcome, facts: Facts, masking: Masking) -> Found:
    """Return the diagnosis where nothing but the export itself is known to fail."""
    said = masking.said(outcome.said)
    if outcome.http_status == 400:
        return rejected(target, said)
    understood = understands_us(target, facts)
    if outcome.timed_out and understood:
        return Found(
            "slow",
            "the server speaks the right protocol, and did not answer the export in time",
            "look at the collector: its own exporters may be stuck; --timeout gives it longer",
            said or "no answer to the export",
        )
    if outcome.grpc_code == "UNAVAILABLE" and understood:
        return Found(
            "unavailable",
            "the server answers, and says that it cannot take telemetry now",
            "look at the collector's log; a memory limiter or a stopped pipeline says this",
            said,
        )
    return Found(
        "failed",
        "the export failed" + (f" with {outcome.grpc_code}" if outcome.grpc_code else ""),
        "look at the receiver's log, and at whatever stands between",
        said or "no answer in time",
    )
