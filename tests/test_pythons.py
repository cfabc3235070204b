"""The Pythons that are supported: what the distributions state, and how a machine's are found."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.processes import ROOT

PROJECTS = [ROOT / "pyproject.toml", *ROOT.glob("instrumentation/*/pyproject.toml")]
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("file", PROJECTS, ids=lambda file: file.parent.name)
def test_distributions_state_what_is_supported(file: Path) -> None:
    """Classifiers name each supported version, and the least is what installers ask for."""
    project = tomllib.loads(file.read_text())["project"]
    assert re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"])) == VERSIONS
    assert project["requires-python"] == f">={VERSIONS[0]}"


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose pyenv has two releases of 3.12, and in whose PATH is a broken 3.13."""

    def interpreter(file: Path, status: int) -> None:
        file.parent.mkdir(parents=True)
        file.write_text(f"#!/bin/sh\nexit {status}\n")
        file.chmod(0o755)

    interpreter(tmp_path / "versions/3.12.9/bin/python3.12", 0)
    interpreter(tmp_path / "versions/3.12.10/bin/python3.12", 0)
    interpreter(tmp_path / "shims/python3.13", 127)
    return {"PYENV_ROOT": str(tmp_path), "PATH": f"{tmp_path / 'shims'}:/usr/bin:/bin"}


def test_the_newest_of_pyenvs_is_found_and_what_does_not_run_is_not(machine: dict[str, str]) -> None:
    """Each supported version has a line, with an interpreter if there is one that runs."""
    lines = subprocess.check_output([ROOT / "scripts" / "find-pythons"], env=machine, text=True).splitlines()
    found = {version: python for version, _, python in (line.partition(" ") for line in lines)}
    assert list(found) == VERSIONS
    assert found["3.12"] == f"{machine['PYENV_ROOT']}/versions/3.12.10/bin/python3.12"
    assert machine["PYENV_ROOT"] not in found["3.13"]
