"""The reference of the command line is made from the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from documentation import commands


def test_the_page_follows_the_commands() -> None:
    """`make generate` writes it."""
    assert commands.main(["--check"]) == 0


def test_every_command_has_a_section_with_its_options() -> None:
    """Groups are looked into, and names of options are code."""
    page = commands.page()
    assert "\n## snakepit-otel sessions list\n" in page
    assert "| `--timeout FLOAT` |" in page
    assert "[`snakepit-otel serve`](#snakepit-otel-serve)" in page


def test_a_page_that_is_old_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check names what to run."""
    monkeypatch.setattr(commands, "PAGE", tmp_path / "cli.md")
    assert commands.main(["--check"]) == 1
    assert commands.main([]) == 0
    assert commands.main(["--check"]) == 0
