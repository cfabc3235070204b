"""Grafana's own linter finds nothing in the pages, but for what dashboards/.lint gives reasons for."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.build import GRAFANA, HERE

LINTER = shutil.which("dashboard-linter")
EXCEPTIONS = HERE / ".lint"
FILES = sorted(GRAFANA.glob("*.json"))
PAGES: dict[str, Any] = {page["title"]: page for page in (json.loads(file.read_text()) for file in FILES)}
EXCLUSIONS: dict[str, Any] = yaml.safe_load(EXCEPTIONS.read_text())["exclusions"]


@pytest.mark.skipif(LINTER is None, reason="there is no dashboard-linter on the PATH; it is Grafana's, and optional")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_linter_finds_nothing_else(file: Path) -> None:
    """Neither errors nor warnings."""
    done = subprocess.run(
        [str(LINTER), "lint", "--strict", "--verbose", "--config", EXCEPTIONS, file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", EXCLUSIONS)
def test_every_exception_has_a_reason(rule: str) -> None:
    """One that somebody else can judge: a sentence."""
    assert EXCLUSIONS[rule]["reason"].strip().endswith(".")


@pytest.mark.parametrize("rule", EXCLUSIONS)
def test_exceptions_are_of_what_there_is(rule: str) -> None:
    """A page or panel that is gone or renamed leaves the list, so that a new one of that name is not excused."""
    for entry in EXCLUSIONS[rule].get("entries", ()):
        assert entry.keys() <= {"dashboard", "panel"}
        page = PAGES[entry["dashboard"]]
        if "panel" in entry:
            assert entry["panel"] in {panel["title"] for panel in page["panels"]}
