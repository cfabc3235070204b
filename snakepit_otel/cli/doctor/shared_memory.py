"""Check of shared memory between processes, for references."""

from __future__ import annotations

import resource

from snakepit_otel.cli.doctor.report import Check, ok, problem, warning
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy import _memory as memory

_TOPIC = "shared memory"


def check_shared_memory(settings: ZeroCopySettings) -> Check:
    """Check for sealed memfds, and for descriptors for all references that the settings allow."""
    if not settings.enabled:
        return ok(_TOPIC, "switched off by zero_copy.enabled: bytes are copied over gRPC")
    if not memory.can_share():
        message = "this machine has no sealed memfds, so the bytes of references are copied over gRPC"
        remedy = "use a Linux kernel whose sandbox allows memfd_create with sealing, or set zero_copy.enabled = false"
        if not settings.allow_fallback:
            message = "this machine has no sealed memfds, and zero_copy.allow_fallback forbids copying"
            return problem(_TOPIC, message, remedy, "no_shared_memory")
        return warning(_TOPIC, message, remedy, "no_shared_memory")
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = settings.max_host_references
    if descriptors != resource.RLIM_INFINITY and descriptors // 2 < most:
        message = (
            f"{descriptors} descriptors allow for {descriptors // 2} references at a time, fewer than the {most} set"
        )
        remedy = f"raise the limit to {2 * most} (ulimit -n, LimitNOFILE=), or lower zero_copy.max_host_references"
        return warning(_TOPIC, message, remedy, "few_descriptors")
    return ok(_TOPIC, "sealed memfds can be shared")
