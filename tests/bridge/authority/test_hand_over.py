"""Hand-over: to whom addresses are offered, and when an offer ends."""

from __future__ import annotations

import asyncio
import os

import pytest

from snakepit_otel.bridge.authority import hand_over
from snakepit_otel.bridge.authority.hand_over import HandOver
from snakepit_otel.errors import HandOverRefused
from tests.waiting import until

NOBODY = 1 << 22  # above the kernel's highest pid


class Addresses:
    """The server's and the memory's part of it; `shared` and `replaced` are what they were set to."""

    def __init__(self) -> None:
        self.shared = self.replaced = False
        self.taken_by: list[int] = []

    def share_ports(self, *, shared: bool) -> None:
        self.shared = shared

    def set_replaced(self, replaced: bool) -> None:
        self.replaced = replaced


@pytest.fixture
async def addresses() -> Addresses:
    """Addresses that are not shared."""
    return Addresses()


@pytest.fixture
async def handing(addresses: Addresses) -> HandOver:
    """A hand-over that notes who has taken the addresses."""
    return HandOver(addresses, addresses, addresses.taken_by.append)


async def test_the_addresses_are_taken(handing: HandOver, addresses: Addresses) -> None:
    """They are shared from the offer on, and taken once, by the process that they were offered to."""
    handing.offer(os.getpid())
    assert (addresses.shared, addresses.replaced, addresses.taken_by) == (True, True, [])
    handing.complete(os.getpid())
    assert addresses.taken_by == [os.getpid()]
    handing.withdraw()
    assert (addresses.shared, handing.is_taken) == (True, True)
    with pytest.raises(HandOverRefused, match=f"has handed over to process {os.getpid()} already"):
        handing.offer(NOBODY)


async def test_one_at_a_time(handing: HandOver, addresses: Addresses) -> None:
    """While a process takes over, another is refused; one that has died is in nobody's way."""
    handing.offer(os.getppid())
    with pytest.raises(HandOverRefused, match=f"process {os.getppid()} is taking over"):
        handing.offer(os.getpid())
    handing.withdraw()
    handing.offer(NOBODY)
    handing.offer(os.getpid())
    with pytest.raises(HandOverRefused, match="is taking over"):
        handing.complete(NOBODY)
    handing.complete(os.getpid())
    assert addresses.taken_by == [os.getpid()]


async def test_an_offer_ends(handing: HandOver, addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not listen in time gets nothing; the port is this server's alone again."""
    monkeypatch.setattr(hand_over, "_OFFER_S", 0.0)
    handing.offer(os.getpid())
    await until(lambda: not addresses.shared)
    assert not addresses.replaced
    with pytest.raises(HandOverRefused, match="are not offered to process"):
        handing.complete(os.getpid())
    await asyncio.sleep(0)


async def test_a_program_that_does_not_hand_over(addresses: Addresses) -> None:
    """Without somebody who would stop the server, nothing is offered."""
    with pytest.raises(HandOverRefused, match="is no 'snakepit-otel serve'"):
        HandOver(addresses, addresses, None).offer(os.getpid())
    assert not addresses.shared
