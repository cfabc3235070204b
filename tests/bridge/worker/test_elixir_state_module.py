"""The Elixir module that keeps session state, held against what a worker of ours calls."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from snakepit_otel.adapters._tool import make_tool
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from tests.processes import ROOT

MODULE = ROOT / "examples" / "elixir" / "session_state.ex"
TEXT = MODULE.read_text()
TOOLS = {made.name: made for made in map(make_tool, STATE_TOOLS)}


def test_it_registers_the_tools_of_the_authority() -> None:
    """Each tool by which adapters reach session state is registered, exposed to Python, and no other."""
    assert set(re.findall(r'\{"(\w+)", :\w+, "', TEXT)) == set(TOOLS)
    assert "exposed_to_python: true" in TEXT


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_it_takes_their_parameters(name: str) -> None:
    """A tool reads every parameter that ours takes, and the session by its id."""
    (operation,) = re.findall(rf'\{{"{name}", :(\w+), "', TEXT)
    clause = TEXT.split(f"defp operate(:{operation}, session_id,")[1].split("\n  defp ")[0]
    for parameter in TOOLS[name].parameters:
        assert f'"{parameter.name}"' in clause
    assert 'defp run(operation, %{"session_id" => session_id} = parameters)' in TEXT


def test_a_conflict_is_an_error_of_ours() -> None:
    """What it raises names errors that our side of the bridge makes again, with what they carry."""
    assert '{:error, "StateConflict"' in TEXT
    assert '{:error, "NoSession"' in TEXT
    assert "%{expected: expected, current: current}" in TEXT
    assert "snakepit_error" in TEXT


@pytest.mark.skipif(shutil.which("elixir") is None, reason="there is no Elixir here")
def test_it_is_elixir() -> None:
    """Elixir can read it; to compile it takes Snakepit."""
    program = "Code.string_to_quoted!(File.read!(hd(System.argv())))"
    subprocess.run(["elixir", "-e", program, str(MODULE)], check=True, timeout=60)
