"""Generated files equal committed ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semconv import generate

ROOT = Path(__file__).resolve().parent.parent


def test_names_and_reference_follow_the_registry() -> None:
    """Constants and reference page are those of the registry as it is."""
    assert generate.main(["--check"]) == 0


def test_a_rename_in_the_registry_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With one metric renamed, the check fails and says what to run."""
    for file in generate.REGISTRY.glob("*.yaml"):
        text = file.read_text().replace("snakepit.session.rejected", "snakepit.session.refused")
        (tmp_path / file.name).write_text(text)
    renamed = generate.Registry.load(tmp_path)
    monkeypatch.setattr(generate.Registry, "load", lambda: renamed)
    assert generate.main(["--check"]) == 1


def test_reference_to_nothing_is_refused(tmp_path: Path) -> None:
    """A group that refers to an attribute the registry lacks cannot be generated from."""
    for file in generate.REGISTRY.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text().replace("- id: snakepit.phase", "- id: snakepit.fase"))
    with pytest.raises(ValueError, match=r"snakepit\.phase"):
        generate.Registry.load(tmp_path)


def test_stubs_follow_the_proto_files(tmp_path: Path) -> None:
    """The committed protobuf code is what the committed definitions generate."""
    subprocess.run(
        [ROOT / "scripts" / "generate-stubs", tmp_path],
        check=True,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
    )
    definitions = ROOT / "snakepit_otel" / "bridge" / "proto"
    made = sorted((tmp_path / "snakepit_otel" / "bridge" / "proto").iterdir())
    assert len(made) == 3 * len(list(definitions.glob("*.proto")))
    for file in made:
        committed = definitions / file.name
        assert committed.read_text() == file.read_text(), f"{file.name} is stale: run make generate"
