"""Licences of what is installed, built and run: none asks for the source of what only stands beside it."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from supply_chain import licences
from supply_chain.audit import GRAMMARS
from supply_chain.licences import IMAGES, Part
from tests.processes import ROOT

PARTS = ("receivers", "processors", "exporters", "extensions", "providers")
# Those whose programs and libraries are all under Apache-2.0.
OWNERS = ("go.opentelemetry.io", "github.com/open-telemetry", "github.com/prometheus")


@pytest.mark.parametrize("part", [*licences.python(), *licences.node()], ids=lambda part: part.name)
def test_packages_are_free_of_copyleft(part: Part) -> None:
    """Each that the lock files have says under what it is, and that is neither GPL nor AGPL."""
    if not part.ours:
        pytest.skip("not for this Python or machine")
    assert part.licence is not None
    assert not part.is_wrong, part.licence


def test_node_packages_are_exact() -> None:
    """Node.js packages are in exact versions, with their hashes, and from no machine's own address."""
    lock = json.loads((GRAMMARS / "package-lock.json").read_text())["packages"]
    packages = {name: package for name, package in lock.items() if name}
    assert packages
    for package in packages.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package
    assert lock[""]["dependencies"] == {
        name.removeprefix("node_modules/"): package["version"] for name, package in packages.items()
    }


def test_go_programs_are_free_of_copyleft() -> None:
    """What scripts build is of those of whom we have looked; Grafana's own servers, under AGPL, are not among them."""
    texts = [path.read_text() for path in (ROOT / "scripts").glob("install-*")]
    built = {module for text in texts for module in re.findall(r"\b(?:github\.com|go\.\w+\.\w+)/[\w./-]+", text)}
    manifest = yaml.safe_load((ROOT / "collector" / "builder.yaml").read_text())
    parts = {entry["gomod"] for kind in PARTS for entry in manifest[kind]}
    assert built
    assert parts
    for module in built | parts:
        assert module.startswith(tuple(f"{owner}/" for owner in OWNERS)), module


def test_go_modules_are_free_of_copyleft() -> None:
    """Each module in the programs that were built here has a licence that is known, and is no copyleft."""
    modules = [part for part in licences.go() if part.licence is not None]
    if not modules:
        pytest.skip("no program was built here, or its modules are not here any more")
    assert len(modules) > 50
    assert [part for part in modules if part.is_wrong] == []


def test_images_are_nothing_that_we_start() -> None:
    """Every image that the compose file names has its licence listed; those under AGPL are for its users to start."""
    named = {part.name for part in licences.images()}
    assert named == set(IMAGES)
    started = "\n".join(path.read_text() for path in (ROOT / "scripts").iterdir() if path.is_file())
    assert not [name for name, licence in IMAGES.items() if "AGPL" in licence and name in started]


@pytest.mark.parametrize(
    ("licence", "wrong"),
    [
        ("MIT", False),
        ("MPL-2.0", False),
        ("GPL-3.0-only", True),
        ("AGPL-3.0-or-later", True),
        ("License :: OSI Approved :: GNU Affero General Public License v3", True),
        ("SSPL-1.0", True),
        ("", True),
        (None, False),
    ],
)
def test_what_is_wrong(licence: str | None, wrong: bool) -> None:
    """Strong copyleft is, and what has no licence; what is not on this machine is not known."""
    part = Part("Python", "some", "1", licence)
    assert part.is_wrong is wrong
    assert licences.status_of([part]) == (1 if wrong else 69 if licence is None else 0)
    assert not Part("image", "some", "1", licence, ours=False).is_wrong
