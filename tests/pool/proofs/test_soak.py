"""Everything at once, for a minute; benchmarks/soak.py has it for longer."""

from __future__ import annotations

import pytest

from benchmarks import soak


@pytest.mark.matrix
@pytest.mark.timeout(200)
async def test_a_minute_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Every request and every session is accounted for, with workers killed, worn out and replaced in turn."""
    seen = await soak.soak(60.0)
    with capsys.disabled():
        well = soak.report(seen, 60.0)
    assert well
    half = len(seen.descriptors) // 2
    assert max(seen.descriptors[half:]) <= max(seen.descriptors[:half]) + 5
    assert max(seen.threads[half:]) <= max(seen.threads[:half]) + 2
