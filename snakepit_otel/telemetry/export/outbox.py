"""A bounded queue with one thread that sends, and an account of every item."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit_otel.common.printable import printable_error
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.export import quiet
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
from snakepit_otel.telemetry.export.weights import of_bytes


@dataclass(frozen=True)
class Batching:
    """How items are gathered: the variables of OpenTelemetry's batch processors, with defaults for many small spans.

    `delay` is in seconds. The queue's default holds about two seconds of a busy worker; it is 32 768 where
    OpenTelemetry's is 2 048, since an item of ours is a few hundred bytes, and not an object.
    """

    queue_size: int = 32_768
    batch_size: int = 4_096
    delay: float = 1.0
    batch_bytes: int = 2 << 20
    """Below the 4 MiB that gRPC servers take by default."""
    queue_bytes: int = 64 << 20
    """For few large items: exceptions with their messages and stack traces, prompts."""

    @classmethod
    def read(cls, prefix: str, read: Environment) -> Batching:
        """Return what `OTEL_BSP_*` or `OTEL_BLRP_*` come to."""
        queue_size = read[f"{prefix}_MAX_QUEUE_SIZE"]
        batch_size = min(read[f"{prefix}_MAX_EXPORT_BATCH_SIZE"], queue_size)
        return cls(queue_size, batch_size, read[f"{prefix}_SCHEDULE_DELAY"] / 1000)


class Sent(NamedTuple):
    """What became of a batch."""

    delivered: int = 0
    failed: int = 0
    unencodable: int = 0

    def of(self, count: int) -> Sent:
        """Return it for a batch of so many items: what does not add up to that has failed."""
        delivered = min(max(self.delivered, 0), count)
        unencodable = min(max(self.unencodable, 0), count - delivered)
        return Sent(delivered, count - delivered - unencodable, unencodable)


class Outbox:
    """Takes items from any thread without waiting, and sends them in batches from one of its own.

    `send` gets a list of items and says what became of them; `abort` makes a `send` under way return soon.
    `weigh` gives about how many bytes an item has.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[Any]], Sent],
        abort: Callable[[], Any],
        account: Account,
        batching: Batching,
        weigh: Callable[[Any], int] = of_bytes,
    ) -> None:
        self.batching = batching
        self._weigh = weigh
        self._send = send
        self._abort = abort
        self._figures = account.figures
        self._items: list[Any] = []
        self._limit = batching.queue_size
        self._batch = batching.batch_size
        self._batch_bytes = batching.batch_bytes
        self._limit_bytes = batching.queue_bytes
        self._bytes = 0
        """How much waits, about; changed in steps that CPython's lock keeps whole."""
        self._closed = False
        self._over = False
        """Nothing more is sent; what still fails was cut off by us."""
        self._settled = False
        """Nothing more is counted."""
        self._wake = threading.Event()
        self._progress = threading.Condition()
        self._busy = False
        self._in_flight = 0
        """Ours, of the account's, which other outboxes may share."""
        self._done = 0
        """How many have left the queue, wherever they went."""
        self._thread = threading.Thread(target=self._run, name=f"snakepit telemetry {name}", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Queue an item, or count it as dropped."""
        self._put([item], self._weigh(item))

    def put_all(self, new: list[bytes]) -> None:
        """Queue encoded items, or count them as dropped."""
        self._put(new, sum(map(len, new)))

    def _put(self, new: list[Any], size: int) -> None:
        items, count = self._items, len(new)
        self._figures[ENDED] += count
        waiting, before = len(items), self._bytes
        if self._closed or waiting + count > self._limit or before + size > self._limit_bytes:
            new = self._that_fit(new, self._limit - waiting, self._limit_bytes - before)
            size = sum(map(self._weigh, new))
        items.extend(new)
        self._bytes += size
        if waiting < self._batch <= waiting + count or before < self._batch_bytes <= before + size:
            self._wake.set()

    def _that_fit(self, new: list[Any], room: int, room_bytes: int) -> list[Any]:
        if self._closed:
            self._figures[SHUTDOWN] += len(new)
            return []
        fitting = []
        for item in new[: max(0, room)]:
            room_bytes -= self._weigh(item)
            if room_bytes < 0:
                break
            fitting.append(item)
        self._figures[QUEUE_FULL] += len(new) - len(fitting)
        return fitting

    def flush(self, timeout: float) -> bool:
        """Send what is queued now; False if it is not all settled within `timeout` seconds."""
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
        """Flush, then stop; what is left after `timeout` seconds is dropped, and counted so."""
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
            self._over = True
        self._stop_sending()
        with self._progress:
            while self._busy and self._thread.is_alive() and time.monotonic() < deadline + 0.1:
                self._progress.wait(0.02)
            self._settled = True
            self._figures[SHUTDOWN] += self._waiting()
            self._done += self._waiting()
            self._note_in_flight(0)
            self._items.clear()
        self._wake.set()
        return in_time

    def forget(self) -> None:
        """Do nothing from now on. For the child of a fork, which has the queue but not the thread."""
        self._closed = self._over = self._settled = True
        self._items = []
        self._bytes = 0
        self._in_flight = 0
        self._figures = Account.unread().figures
        # The parent's may be locked, by a thread that there is not here.
        self._progress = threading.Condition()

    def _stop_sending(self) -> None:
        try:
            self._abort()
        except BaseException as error:  # noqa: BLE001 - whatever an exporter's end raises, ours goes on
            quiet.warn("an exporter of telemetry did not stop: %s", printable_error(error))

    def _waiting(self) -> int:
        return len(self._items) + self._in_flight

    def _note_in_flight(self, count: int) -> None:
        self._figures[IN_FLIGHT] += count - self._in_flight
        self._in_flight = count

    def _run(self) -> None:
        while not self._over:
            if len(self._items) < self._batch and self._bytes < self._batch_bytes:
                self._wake.wait(self.batching.delay)
            self._wake.clear()
            # What was there at the start of the turn: who chases the queue's end sends many small batches.
            left = len(self._items)
            while left > 0 and not self._over:
                left -= self._send_one_surely(left)
            with self._progress:
                self._progress.notify_all()
            if self._closed and not self._items:
                return

    def _send_one_surely(self, most: int) -> int:
        try:
            return self._send_one(most)
        except BaseException as error:  # noqa: BLE001 - without its thread nothing more would be sent
            quiet.warn("a fault in the sending of telemetry: %s", printable_error(error))
            with self._progress:
                lost, self._busy = self._in_flight, False
                if lost and not self._settled:
                    self._figures[FAILED] += lost
                    self._note_in_flight(0)
                    self._done += lost
            return most

    def _send_one(self, most: int) -> int:
        batch = self._take(min(most, self._batch))
        if not batch:
            return most
        try:
            sent = self._send(batch).of(len(batch))
        except BaseException as error:  # noqa: BLE001 - whatever an exporter raises, the items are lost and the thread stays
            quiet.warn(
                "%d items of telemetry are lost, since their export raised: %s", len(batch), printable_error(error)
            )
            sent = Sent(failed=len(batch))
        figures = self._figures
        with self._progress:
            self._busy = False
            if not self._settled:
                figures[DELIVERED] += sent.delivered
                figures[SHUTDOWN if self._over else FAILED] += sent.failed
                figures[ENCODE] += sent.unencodable
                self._note_in_flight(0)
                self._done += len(batch)
            self._progress.notify_all()
        return len(batch)

    def _take(self, most: int) -> list[Any]:
        size = 0
        count = 0
        for item in self._items[:most]:
            weight = self._weigh(item)
            if count and size + weight > self._batch_bytes:
                break
            size += weight
            count += 1
        with self._progress:
            batch = [] if self._over else self._items[:count]
            self._busy = bool(batch)
            self._note_in_flight(len(batch))
            del self._items[: len(batch)]
            self._bytes = self._bytes - size if self._items else 0
        return batch
