"""The page on configuration says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from snakepit_otel.cli.effective_settings import effective, written
from snakepit_otel.settings import Settings
from snakepit_otel.settings._loading import load
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "configuration.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w.]+)`[^|]* \| (.+?) \| .+ \|$", PAGE, re.MULTILINE))
IN_WORDS = {
    "pool.size": "2 × cores",
    "server.socket": "one per user",
    "server.trust_trace_context": "by caller",
    "server.limits.max_connections": "¼ of the descriptors, ≤ 256",
}
"""Defaults that are made where the program runs."""
ELSEWHERE = {"pools.NAME": "none", "server.tls.certificate": "none"}
"""Groups whose settings have no row each."""


def test_every_setting_is_documented_with_its_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table has a row for each setting, and for nothing else."""
    monkeypatch.chdir(tmp_path)
    settings = {row.name: written(row.default) for row in effective(load(environ={}))}
    del settings["pools"], settings["server.tls"]
    assert settings | IN_WORDS | ELSEWHERE == ROWS


def test_the_example_file_is_taken() -> None:
    """The file on the page can be copied as it stands."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    settings = Settings.model_validate(tomllib.loads(example))
    assert settings.pools["gpu"].concurrency == 4


def test_the_variables_on_the_page_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables on the page can be copied as they stand, beside the file on it."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "snakepit.toml"
    file.write_text(example)
    environ = dict(re.findall(r"^\$ export (\w+)='?([^'\n]*?)'?(?: +#.*)?$", PAGE, re.MULTILINE))
    assert len(environ) == 5
    settings = load(file, environ=environ).settings
    assert settings.session_store.max_sessions == 500
    assert settings.pool.environment == {"TOKENIZERS_PARALLELISM": "false"}
    assert {name: pool.size for name, pool in settings.pools.items() if name == "gpu"} == {"gpu": 2}
    assert settings.pools["big-1"].adapter == "shop.adapters:Big"


def test_lines_and_words_of_the_complaints_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page shows of `config check` is what the page's file gives, spoilt in these three ways."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    spoilt = example.replace("size = 4", "sise = 4").replace('adapter = "shop.adapters:Painter"', "spares = 1")
    Path("snakepit.toml").write_text(spoilt)
    with pytest.raises(ValueError, match="sise") as caught:
        load(environ={"SNAKEPIT_OTEL_POOL__SIZE": "0"})
    assert sorted(str(caught.value).splitlines()) == sorted(shown.splitlines())
