"""OpenTelemetry's own tool accepts the registry."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.test_generated import ROOT, generate

NOT_HERE = 69


def check(folder: Path = generate.REGISTRY, **environ: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [ROOT / "scripts" / "check-registry", folder],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )
    if done.returncode == NOT_HERE and not environ:
        pytest.skip(done.stderr.splitlines()[0])
    return done


def test_weaver_accepts_the_registry() -> None:
    """Weaver finds nothing wrong with the registry, nor anything that it will find wrong one day."""
    done = check()
    assert done.returncode == 0, done.stdout + done.stderr


def test_weaver_refuses_what_is_wrong(tmp_path: Path) -> None:
    """The check is one: a reference to nothing, and a metric without its unit, do not pass."""
    for number, (right, wrong) in enumerate([("- id: snakepit.phase", "- id: snakepit.fase"), ("    unit: s\n", "")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file in generate.REGISTRY.glob("*.yaml"):
            (folder / file.name).write_text(file.read_text().replace(right, wrong))
        done = check(folder)
        assert done.returncode == 1, done.stdout + done.stderr


def test_without_weaver_the_check_says_so(tmp_path: Path) -> None:
    """Where Weaver is not, the check neither passes nor fails: it says how to have it."""
    done = check(PATH="/usr/bin:/bin", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == NOT_HERE
    assert "cargo build" in done.stderr
