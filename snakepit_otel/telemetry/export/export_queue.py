"""A bounded queue of telemetry, one thread that exports it in batches, and a count of every item's outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.export.ledger import (
    DELIVERED,
    ENCODE,
    ENDED,
    FAILED,
    IN_FLIGHT,
    QUEUE_FULL,
    SHUTDOWN,
    Account,
)
from snakepit_otel.telemetry.export.rate_limited_log import Guard
from snakepit_otel.telemetry.export.size_estimate import Joined, count_of, encoded_size

_new = tuple.__new__  # a named tuple's own takes three times as long
LOST = "%d items of telemetry are lost: their export raised %s"


@dataclass(frozen=True)
class BatchSettings:
    """The settings of OpenTelemetry's batch processors, with defaults for many small spans.

    The default queue holds about two seconds of a busy worker. It is 32 768 where OpenTelemetry's is 2 048, since an
    encoded item has a few hundred bytes. `queue_bytes` limits few large items: stack traces, prompts.
    """

    queue_size: int = 32_768
    batch_size: int = 4_096
    delay: float = 1.0  # seconds
    batch_bytes: int = 2 << 20  # gRPC servers accept 4 MiB by default
    queue_bytes: int = 64 << 20

    @classmethod
    def from_environment(cls, prefix: str, read: Environment) -> BatchSettings:
        """Return the values of `OTEL_BSP_*` or `OTEL_BLRP_*`."""
        queue_size = read[f"{prefix}_MAX_QUEUE_SIZE"]
        batch_size = min(read[f"{prefix}_MAX_EXPORT_BATCH_SIZE"], queue_size)
        return cls(queue_size, batch_size, read[f"{prefix}_SCHEDULE_DELAY"] / 1000)


class BatchResult(NamedTuple):
    """The outcome of a batch, in items."""

    delivered: int = 0
    failed: int = 0
    unencodable: int = 0

    def plus(self, other: BatchResult) -> BatchResult:
        return BatchResult(*(sum(figures) for figures in zip(self, other, strict=True)))

    def limited_to(self, count: int) -> BatchResult:
        """Return the result of a batch of `count` items: an item that is missing has failed."""
        delivered = min(max(self.delivered, 0), count)
        unencodable = min(max(self.unencodable, 0), count - delivered)
        return BatchResult(delivered, count - delivered - unencodable, unencodable)


class ExportQueue:
    """Takes items from any thread without waiting, and sends them in batches from a thread of its own.

    `send` exports a batch; `abort` makes a `send` under way return soon; `estimate_size` estimates an item's bytes.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[Any]], BatchResult],
        abort: Callable[[], Any],
        account: Account,
        settings: BatchSettings,
        estimate_size: Callable[[Any], int] = encoded_size,
    ) -> None:
        self.settings = settings
        self._estimate_size = estimate_size
        self._send = send
        self._abort = abort
        self._counts = account.counts
        self._items: list[Any] = []
        self._max_items = settings.queue_size
        self._batch_items = settings.batch_size
        self._batch_bytes = settings.batch_bytes
        self._max_bytes = settings.queue_bytes
        # Up to these nothing is dropped, and nobody woken.
        self._few_items = min(self._batch_items, self._max_items)
        self._few_bytes = min(self._batch_bytes, self._max_bytes)
        self._waiting_items = 0
        self._bytes = 0  # of the queued items, estimated; CPython's lock makes each change atomic
        self._closed = False  # no more items are queued
        self._aborted = False  # no more items are sent; a failure from now on counts as dropped at shutdown
        self._settled = False  # no more outcomes are counted
        self._wake = threading.Event()
        self._progress = threading.Condition()
        self._busy = False
        self._in_flight = 0  # of this queue; the account may be shared with others
        self._done = 0  # items that have left the queue, with any outcome
        self._thread = threading.Thread(target=self._run, name=f"snakepit telemetry {name}", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Queue an item, or count it as dropped."""
        self._put([item], 1, self._estimate_size(item))

    def put_all(self, new: list[bytes]) -> None:
        """Queue encoded items, or count them as dropped."""
        count = len(new)
        size = len(new[0]) if count == 1 else sum(map(len, new))
        if self._closed or self._waiting_items + count >= self._few_items or self._bytes + size >= self._few_bytes:
            self._put(new, count, size)
            return
        # As nearly always: far from any limit, and from a full batch.
        self._counts[ENDED] += count
        self._items.extend(new)
        self._waiting_items += count
        self._bytes += size

    def put_joined(self, data: bytes, count: int) -> None:
        """Queue encoded items that are one after the other in `data`, or count them as dropped."""
        waiting, before, size = self._waiting_items, self._bytes, len(data)
        if self._closed or waiting + count >= self._few_items or before + size >= self._few_bytes:
            self._put([_new(Joined, (data, count))], count, size)
            return
        # As `_put` does it, with less work.
        self._counts[ENDED] += count
        self._items.append(_new(Joined, (data, count)))
        self._waiting_items += count
        self._bytes += size

    def _put(self, new: list[Any], count: int, size: int) -> None:
        self._counts[ENDED] += count
        waiting, before = self._waiting_items, self._bytes
        if self._closed or waiting + count > self._max_items or before + size > self._max_bytes:
            new = self._fitting(new, self._max_items - waiting, self._max_bytes - before)
            count, size = count_of(new), sum(map(self._estimate_size, new))
        self._items.extend(new)
        self._waiting_items += count
        self._bytes += size
        if waiting < self._batch_items <= waiting + count or before < self._batch_bytes <= before + size:
            self._wake.set()

    def _fitting(self, new: list[Any], room: int, room_bytes: int) -> list[Any]:
        # A call on the right of += lets another thread in between its read and its write.
        if self._closed:
            refused = count_of(new)
            self._counts[SHUTDOWN] += refused
            return []
        fitting = []
        for item in new:
            room -= count_of((item,))
            room_bytes -= self._estimate_size(item)
            if room < 0 or room_bytes < 0:
                break
            fitting.append(item)
        refused = count_of(new) - count_of(fitting)
        self._counts[QUEUE_FULL] += refused
        return fitting

    def flush(self, timeout: float) -> bool:
        """Send the items queued now; False if not all of them have an outcome within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._progress:
            goal = self._done + self._waiting()
            while self._done < goal:
                self._wake.set()
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._progress.wait(min(left, 0.05))
        return True

    def close(self, timeout: float) -> bool:
        """Flush, then stop; items left after `timeout` seconds are dropped and counted."""
        deadline = time.monotonic() + timeout
        self._closed = True
        self._wake.set()
        with self._progress:
            while (self._items or self._busy) and self._thread.is_alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._progress.wait(left)
            in_time = not (self._items or self._busy)
            self._aborted = True
        self._abort_send()
        with self._progress:
            while self._busy and self._thread.is_alive() and time.monotonic() < deadline + 0.1:
                self._progress.wait(0.02)
            self._settled = True
            left = self._waiting()
            self._counts[SHUTDOWN] += left
            self._done += left
            self._count_in_flight(0)
            self._items.clear()
            self._waiting_items = 0
        self._wake.set()
        return in_time

    def disable(self) -> None:
        """Do nothing from now on. For the child of a fork, which has the queue but not the thread."""
        self._closed = self._aborted = self._settled = True
        self._items = []
        self._waiting_items = self._bytes = 0
        self._in_flight = 0
        self._counts = Account.unread().counts
        # A thread that only the parent has may hold the lock of the parent's condition.
        self._progress = threading.Condition()

    def _abort_send(self) -> None:
        with Guard("an exporter did not shut down: %s"):
            self._abort()

    def _waiting(self) -> int:
        return self._waiting_items + self._in_flight

    def _count_in_flight(self, count: int) -> None:
        self._counts[IN_FLIGHT] += count - self._in_flight
        self._in_flight = count

    def _run(self) -> None:
        while not self._aborted:
            if self._waiting_items < self._batch_items and self._bytes < self._batch_bytes:
                self._wake.wait(self.settings.delay)
            self._wake.clear()
            # Only the items queued at the start: following the queue's end would send many small batches.
            left = self._waiting_items
            while left > 0 and not self._aborted:
                left -= self._send_next_guarded(left)
            with self._progress:
                self._progress.notify_all()
            if self._closed and not self._items:
                return

    def _send_next_guarded(self, max_items: int) -> int:
        # Without this thread nothing more would be sent.
        with Guard("the export queue failed: %s"):
            return self._send_next(max_items)
        with self._progress:
            lost, self._busy = self._in_flight, False
            if lost and not self._settled:
                self._counts[FAILED] += lost
                self._count_in_flight(0)
                self._done += lost
        return max_items

    def _send_next(self, max_items: int) -> int:
        batch = self._take(min(max_items, self._batch_items))
        if not batch:
            return max_items
        count = count_of(batch)
        result = BatchResult(failed=count)
        with Guard(LOST, count):
            result = self._send(batch).limited_to(count)
        counts = self._counts
        with self._progress:
            self._busy = False
            if not self._settled:
                counts[DELIVERED] += result.delivered
                counts[SHUTDOWN if self._aborted else FAILED] += result.failed
                counts[ENCODE] += result.unencodable
                self._count_in_flight(0)
                self._done += count
            self._progress.notify_all()
        return count

    def _take(self, max_items: int) -> list[Any]:
        size = items = taken = 0
        for item in self._items[:max_items]:
            if item.__class__ is Joined:
                item_bytes, item_count = len(item.data), item.items
            else:
                item_bytes, item_count = self._estimate_size(item), 1
            if taken and (items + item_count > max_items or size + item_bytes > self._batch_bytes):
                break
            size += item_bytes
            items += item_count
            taken += 1
        with self._progress:
            batch = [] if self._aborted else self._items[:taken]
            self._busy = bool(batch)
            self._count_in_flight(items if batch else 0)
            del self._items[: len(batch)]
            if batch:
                self._waiting_items -= items
            self._bytes = self._bytes - size if self._items else 0
        return batch
