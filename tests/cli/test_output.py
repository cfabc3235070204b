"""Output of the commands for people."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.cli import output
from snakepit_otel.errors import ConfigurationError


@given(st.text(alphabet="\\[]/ax", max_size=12))
def test_a_complaint_is_printed_as_it_is(words: str) -> None:
    """Whatever an error's text has in it, none of it is taken for markup."""
    with output.error_console.capture() as said, pytest.raises(typer.Exit):
        output.fail(ConfigurationError(f"<{words}>"))
    assert f"<{words}>" in said.get()
