"""Usage of a buffer store: counted and reserved references, and the limits on them."""

from __future__ import annotations

import resource
import threading
from typing import Self

from snakepit_otel.errors import ZeroCopyLimitExceeded
from snakepit_otel.zero_copy._limits import Limits


class StoreUsage:
    """Bytes and number of the references that are stored, reserved, or removed while they are read.

    `lock` guards it, and the buffer store that it belongs to.
    """

    def __init__(self, limits: Limits) -> None:
        self.lock = threading.RLock()
        self.bytes = 0
        self.count = 0
        self._limits = limits
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_references = limits.max_host_references
        if descriptors != resource.RLIM_INFINITY:
            self._max_references = min(self._max_references, descriptors // 2)

    def add(self, size: int, count: int = 1) -> None:
        """Count `count` references of `size` bytes, which is negative for the end of one."""
        self.bytes += size * count
        self.count += count

    def check_request(self, size: int, request_bytes: int, request_count: int) -> None:
        """Raise `ZeroCopyLimitExceeded` if a request with so many bytes and references cannot have one more."""
        limits = self._limits
        _check("bytes in one request", request_bytes + size, size, "max_request_bytes", limits.max_request_bytes)
        _check(
            "references in one request", request_count + 1, 1, "max_request_references", limits.max_request_references
        )

    def check_store(self, size: int) -> None:
        """Raise `ZeroCopyLimitExceeded` if the store cannot have one more reference."""
        _check("bytes held by the authority", self.bytes + size, size, "max_host_bytes", self._limits.max_host_bytes)
        _check("references held by the authority", self.count + 1, 1, "max_host_references", self._max_references)


class Reservation:
    """Bytes reserved for a reference that is being received; a context manager that releases them."""

    def __init__(self, usage: StoreUsage, size: int) -> None:
        self._usage = usage
        self._size = size
        self._is_reserved = True
        usage.add(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the bytes; a second time does nothing."""
        with self._usage.lock:
            if self._is_reserved:
                self._is_reserved = False
                self._usage.add(self._size, -1)


def _check(quantity: str, wanted: int, alone: int, setting: str, limit: int) -> None:
    """Raise if `wanted` is over the limit; a later attempt may succeed if `alone` is not."""
    if wanted > limit:
        error = ZeroCopyLimitExceeded.of(quantity, wanted, setting, limit)
        error.retryable = alone <= limit
        raise error
