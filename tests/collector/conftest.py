"""The programs that these tests run: built once per machine, or the tests that need them skip and say why."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.collector.landscape import Landscape, landscape
from tests.processes import ROOT

NOTHING_TO_INSTALL_WITH = 69


def installed(script: str) -> Path:
    """Return the path that the script prints; it installs at the first call on a machine, and waits for others."""
    done = subprocess.run([ROOT / "scripts" / script], capture_output=True, text=True, check=False)
    if done.returncode == NOTHING_TO_INSTALL_WITH:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """A collector of exactly the components that otel-collector.yaml uses."""
    return installed("install-collector")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """The folder of prometheus and promtool."""
    return installed("install-prometheus")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def land(otelcol: Path, prometheus: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Landscape]:
    """A collector that keeps every trace, with a back end behind it and a Prometheus that scrapes it."""
    async with landscape(otelcol, tmp_path_factory.mktemp("land"), prometheus=prometheus, percentage=100) as running:
        yield running
