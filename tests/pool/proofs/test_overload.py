"""Three times what a pool can do: it goes on doing what it can, in time, and refuses the rest at once."""

from __future__ import annotations

import pytest

from benchmarks import overload
from tests.pool.proofs.figures import percentile, saying, spread


@pytest.mark.matrix
@pytest.mark.parametrize("where", [overload.in_this_process, overload.in_another_process])
async def test_three_times_what_it_can_do(where: overload.Where, capsys: pytest.CaptureFixture[str]) -> None:
    """What is answered is answered in time, and is most of what could be."""
    seen = await overload.measure(10.0, where)
    saying(capsys)(
        f"{overload.TIMES} times capacity ({seen.capacity:.0f}/s), {where.__name__}: useful {seen.useful:.1%} "
        f"(target 85%), {spread(seen.answered)}; refused: {spread(seen.refused)} (target 20 ms); "
        f"others: {dict(seen.others) or 'none'}"
    )
    assert seen.useful >= 0.6
    assert percentile(seen.answered, 0.99) <= overload.DEADLINE
    assert percentile(seen.refused, 0.9) <= 0.2
