"""The conformance suite itself: it finds what is wrong with a backend, and needs packages only where it is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from examples.dict_backend import DictBackend
from snakepit_otel.errors import StateConflict
from snakepit_otel.sessions import Limits, Session, Stats
from snakepit_otel.sessions.backends import Claim, Clock, Created, Deleted, NewSession, Pruned, WarningReason
from snakepit_otel.testing.backends import BackendTests


class AnyIncarnation(DictBackend):
    """Takes a later session of an id for the earlier one."""

    async def delete(self, session_id: str, *, owner: str | None = None, incarnation: int | None = None) -> Deleted:
        return await super().delete(session_id, owner=owner)


class NoTokens(DictBackend):
    """Takes a repeated create for another one."""

    async def create(self, new: NewSession) -> Created:
        return await super().create(new._replace(token=0))


class NoWriteTokens(DictBackend):
    """Writes again what is repeated."""

    async def write(self, session_id: str, changes: Mapping[str, bytes | None], **conditions: Any) -> int:
        return await super().write(session_id, changes, **conditions | {"token": 0})


class NoQuiet(DictBackend):
    """Lets every claim succeed."""

    async def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        return await super().claim(reason, count, 0.0, owners)


class NoOrder(DictBackend):
    """Lists in order of UTF-16, as some languages compare texts."""

    async def page(self, after: str | None, limit: int, *, owner: str | None = None) -> Sequence[Session]:
        return sorted(await super().page(after, limit, owner=owner), key=lambda one: one.id.encode("utf-16-be"))


class NotConfirmed(DictBackend):
    """Forgets which events were reported."""

    async def prune(self, limit: int, *, reported: int = 0) -> Pruned:
        return await super().prune(limit)


class OldLedger(DictBackend):
    """Has the ledger of its last answer to `stats`."""

    seen = Stats()

    @property
    def last_stats(self) -> Stats:
        return self.seen

    async def stats(self) -> Stats:
        self.seen = DictBackend.last_stats.fget(self)  # type: ignore[attr-defined]
        return self.seen


class OwnLimits(DictBackend):
    """Has limits that are not the store's."""

    async def open(self) -> None:
        pass


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (AnyIncarnation, BackendTests.test_an_earlier_incarnation_finds_nothing),
        (AnyIncarnation, BackendTests.test_a_lease_never_ends_a_later_session),
        (NoTokens, BackendTests.test_a_repeated_create_is_one_create),
        (NoWriteTokens, BackendTests.test_a_repeated_write_is_one_write),
        (NoQuiet, BackendTests.test_one_claim_in_an_interval),
        (NoQuiet, BackendTests.test_one_claim_of_both),
        (NoOrder, BackendTests.test_pages_are_in_order_of_id),
        (NotConfirmed, BackendTests.test_reported_events_are_counted),
        (OldLedger, BackendTests.test_a_create_at_the_quota_is_refused),
        (OwnLimits, BackendTests.test_other_limits_are_refused),
    ],
)
def test_it_finds_what_is_wrong(broken: type[DictBackend], test: Callable[[BackendTests], None]) -> None:
    """A backend that breaks one promise fails the test of that promise."""

    class Suite(BackendTests):
        def make_backend(self, limits: Limits, clock: Clock) -> DictBackend:
            return broken(limits, clock=clock)

        def make_second(self, first: DictBackend, limits: Limits) -> DictBackend:
            return broken(limits, store=first.store)

    with pytest.raises((AssertionError, StateConflict, pytest.fail.Exception)):
        test(Suite())


def test_what_cannot_be_done_is_skipped() -> None:
    """Without a second backend, and without a clock."""

    class Suite(BackendTests):
        has_clock = False

        def make_backend(self, limits: Limits, clock: Clock) -> DictBackend:
            return DictBackend(limits)

    Suite().test_versions_never_come_back()
    for test, reason in (
        (Suite.test_it_expires_at_the_instant_of_its_ttl, "takes no clock"),
        (Suite.test_properties_of_a_store_that_evicts, "takes no clock"),
        (Suite.test_suspects_of_both, "make_second is not defined"),
    ):
        with pytest.raises(pytest.skip.Exception, match=reason):
            test(Suite())


def test_its_packages_are_needed_where_it_is_used() -> None:
    """And named where they are missing; the other helpers of tests do without."""
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import snakepit_otel.testing, snakepit_otel.testing.backends\n"
        "snakepit_otel.testing.FakeClock()\n"
        "assert 'pytest' not in sys.modules\n"
        "from snakepit_otel.testing.backends import BackendTests\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "ImportError: snakepit_otel.testing.backends needs hypothesis: pip install 'snakepit-otel[testing]'"
    )
