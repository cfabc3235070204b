"""The table of errors in docs/client.md: every error has its row, and each row what the class has."""

from __future__ import annotations

import re

import pytest

from snakepit_otel import errors
from snakepit_otel.errors import SnakepitError
from snakepit_otel.rpc import StatusCode
from tests.processes import ROOT

ROW = re.compile(r"\| `(\w+)` \| (.+) \| (yes|no) \| (yes|no) \| (\d{3}) \| `(\w+)` \|")
ROWS = {found[1]: found for found in map(ROW.fullmatch, (ROOT / "docs/client.md").read_text().splitlines()) if found}


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_its_row(name: str) -> None:
    """A row says what the class's attributes say."""
    kind: type[SnakepitError] = getattr(errors, name)
    assert name in ROWS, f"docs/client.md has no row for {name}"
    _, _, may_have_run, retryable, http_status, grpc_status = ROWS[name].groups()
    assert (may_have_run, retryable) == tuple("yes" if one else "no" for one in (kind.may_have_run, kind.retryable))
    assert (int(http_status), grpc_status) == (kind.http_status, kind.grpc_status)
    assert grpc_status in StatusCode.__members__
    assert 400 <= kind.http_status < 600


def test_every_row_has_its_error() -> None:
    """None is left behind by an error that is gone."""
    assert set(ROWS) == set(errors.__all__)
