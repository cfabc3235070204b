"""Python in the documentation runs: programs by themselves, the rest of a page as one."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, Block, blocks, blocks_of
from tests.docs.programs import HERE, PageProgram, examples, is_excerpt, is_program, name_of
from tests.processes import ROOT, program
from tests.test_promises import names_of_tests

# Pages whose Python has tests of its own.
ELSEWHERE = {
    "README.md": "tests/test_examples.py::test_readme_program_runs",
    "testing.md": "tests/test_examples.py::test_the_page_on_testing_runs",
    "elixir-upstream-worker.md": (
        "tests/instrumentation/test_elixir_upstream_page.py::test_hooks_of_the_page_run_in_a_worker"
    ),
}
EXAMPLES = examples()


def of(page: Path) -> list[Block]:
    """Return the blocks of a page that are run here."""
    python = (block for block in blocks_of(page) if block.language == "python" and not block.directive)
    return [block for block in python if not is_excerpt(block, EXAMPLES)]


HERE_RUN = [page for page in PAGES if page.name not in ELSEWHERE and of(page)]
PROGRAMS = [block for page in HERE_RUN for block in of(page) if is_program(block)]


def test_tests_elsewhere_are_there() -> None:
    """A page that is left out here has a test that runs it."""
    for test in ELSEWHERE.values():
        file, _, name = test.partition("::")
        assert name in names_of_tests(ROOT / file), test


def test_every_preparation_has_its_page() -> None:
    """None is left behind by a page that is gone."""
    assert {path.stem for path in HERE.glob("*.py")} <= {name_of(page) for page in HERE_RUN}


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_it_is_python(block: Block) -> None:
    """Also what is not run."""
    compile(block.code, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.place)
async def test_programs_run(block: Block, tmp_path: Path) -> None:
    """A whole program ends well, and complains of nothing."""
    file = tmp_path / "main.py"
    file.write_text(block.code)
    async with program(str(file)) as started:
        _, complaints = await started.process.communicate()
    assert complaints.decode() == ""
    assert started.process.returncode == 0


@pytest.mark.parametrize("page", HERE_RUN, ids=name_of)
async def test_pages_run(page: Path, tmp_path: Path) -> None:
    """What a page shows one after the other runs one after the other, with what its readers have."""
    await PageProgram(page, [block for block in of(page) if not is_program(block)], tmp_path).run()


async def test_what_fails_on_a_page_is_named_by_its_line(tmp_path: Path) -> None:
    """A failure of a page's code is at the page's line."""
    page = ROOT / "docs" / "index.md"
    broken = Block(page, 1_000, "python", "[].append(1)\n[].nothing")
    running = PageProgram(page, [broken], tmp_path)
    with pytest.raises(AttributeError) as caught:
        await running.run()
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno) == (page, 1_000)
    assert running.name not in sys.modules
