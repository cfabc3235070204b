"""Blocks of settings, data and queries in the documentation can be copied as they stand."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import promql_parser
import pytest
import yaml

from snakepit_otel.settings import load_settings
from tests.docs.blocks import PAGES, Block, blocks, blocks_of
from tests.processes import ROOT

# What there are tests for. `text` is what programs print.
LANGUAGES = {"console", "python", "toml", "json", "yaml", "sh", "elixir", "promql", "logql", "traceql", "text", "ini"}
# With their own tests, by their grammars: tests/dashboards/test_grammars.py.
MOST_NOT_RUN = 8
each = {
    language: pytest.mark.parametrize("block", blocks(language), ids=lambda block: block.place)
    for language in ("toml", "json", "yaml", "promql")
}


def test_every_block_has_a_language() -> None:
    """So that none is left out, and all are coloured."""
    others = [block.place for block in blocks() if block.language not in LANGUAGES]
    assert others == []


def test_every_fence_is_found() -> None:
    """One that is not closed would hide what follows."""
    for page in PAGES:
        fences = [line for line in page.read_text().splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(list(blocks_of(page))), page.name


def test_few_blocks_are_not_run() -> None:
    """Each has a reason on its page."""
    skipped = [block for block in blocks() if block.not_run]
    assert len(skipped) <= MOST_NOT_RUN
    assert all(len(block.not_run) > 10 for block in skipped)


@each["toml"]
def test_settings_are_taken(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is a file of settings."""
    monkeypatch.chdir(tmp_path)
    if block.not_run:
        tomllib.loads(block.code)
        return
    file = tmp_path / "snakepit.toml"
    file.write_text(block.code)
    load_settings(file)


@each["json"]
def test_json_is_json(block: Block) -> None:
    """One document, or one in each line."""
    try:
        json.loads(block.code)
    except ValueError:
        assert [json.loads(line) for line in block.code.splitlines()]


@each["yaml"]
def test_yaml_is_yaml(block: Block) -> None:
    """With no key twice for the eye, and no tabs."""
    assert list(yaml.safe_load_all(block.code))


@each["promql"]
def test_queries_are_promql(block: Block) -> None:
    """Those of the runbooks also name what there is: tests/dashboards/test_runbook_pages.py."""
    promql_parser.parse(block.code)


def test_scripts_are_scripts(tmp_path: Path) -> None:
    """A shell can read them."""
    for block in blocks("sh"):
        subprocess.run(["sh", "-n"], input=block.code, text=True, check=True)


@pytest.mark.skipif(shutil.which("elixir") is None, reason="there is no Elixir")
def test_elixir_is_elixir(tmp_path: Path) -> None:
    """All blocks are read by its parser, and the example with them."""
    files = [tmp_path / f"{number}.ex" for number, _ in enumerate(blocks("elixir"))]
    for file, block in zip(files, blocks("elixir"), strict=True):
        file.write_text(block.code)
    files += sorted((ROOT / "examples" / "elixir").glob("*.ex"))
    program = "for f <- System.argv(), do: Code.string_to_quoted!(File.read!(f), file: f)"
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "ELIXIR_ERL_OPTIONS": "+fnu", "HOME": str(tmp_path)}
    subprocess.run(["elixir", "-e", program, *map(str, files)], check=True, capture_output=True, env=environ)
