"""Programs whose workers find what the programs find, however these are started."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import zipapp
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

PROGRAM = """
import asyncio, concurrent.futures, json, logging, multiprocessing, os, pickle, sys, warnings
from dataclasses import dataclass
from snakepit_otel import BaseAdapter, Snakepit, tool

@dataclass
class Point:
    x: int

def square(x):
    return Point(x * x)

class Adapter(BaseAdapter):
    @tool
    def run(self, method: str) -> list[int]:
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return [point.x for point in pool.map(square, [1, 2, 3])]

    @tool
    def pickle(self) -> bytes:
        return pickle.dumps(square(7))

    @tool
    def unpickle(self, data: bytes) -> bool:
        return pickle.loads(data) == Point(5)

    @tool
    def name(self) -> str:
        return __name__

async def main():
    async with Snakepit(Adapter, workers=1) as pit:
        print(json.dumps({
            "name": await pit.execute("name"),
            "children": [await pit.execute("run", {"method": method}) for method in ("spawn", "forkserver")],
            "back": pickle.loads(await pit.execute("pickle")) == Point(49),
            "there": await pit.execute("unpickle", {"data": pickle.dumps(Point(5))}),
        }))

if __name__ == "__main__":
    asyncio.run(main())
"""


async def output(folder: Path, *arguments: str, **environ: str) -> str:
    """Run a program in a folder to its end, which must be a good one; return what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTHON"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env={**clean, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        said, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return said.decode()


def written(folder: Path, *files: str, text: str = PROGRAM) -> Path:
    """Write files with the same text into a folder."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(dedent(text))
    return folder


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["app.py"], "app"),
        (["-m", "around.app"], "around.app"),
        (["-m", "around"], "around.__main__"),
        (["my.app"], "__mp_main__"),
        (["packed.pyz"], "__mp_main__"),
        (["-P", "app.py"], "__mp_main__"),
    ],
    ids=" ".join,
)
async def test_what_a_main_module_has_can_be_pickled(tmp_path: Path, arguments: list[str], name: str) -> None:
    """Functions and objects of a program's main module go to workers, to their children, and back."""
    written(tmp_path, "app.py", "my.app", "around/app.py", "around/__main__.py", "packed/__main__.py")
    written(tmp_path, "around/__init__.py", text="")
    zipapp.create_archive(tmp_path / "packed", tmp_path / "packed.pyz")
    found = json.loads(await output(tmp_path, *arguments))
    assert found == {"name": name, "children": [[1, 4, 9]] * 2, "back": True, "there": True}


SEEING = """
from snakepit_otel import BaseAdapter, tool
from . import beside
import far

class Seeing(BaseAdapter):
    @tool
    def see(self) -> dict:
        import os, sys
        return {
            "path": [os.fsencode(entry).hex() for entry in sys.path],
            "PYTHONPATH": os.environ.get("PYTHONPATH"),
            "flags": [sys.flags.optimize, sys.flags.dev_mode, sys.flags.dont_write_bytecode, sys.flags.isolated],
            "warnings": [option for option in sys.warnoptions if "Pending" in option],
            "beside": beside.__name__,
        }
"""
LOOKING = """
import asyncio, json, os, sys
from pathlib import Path
here = Path(__file__).parent
sys.path.insert(0, str(here / "late.zip"))
sys.path.insert(0, str(here / "hiding"))
from around.seeing import Seeing
from snakepit_otel import Snakepit
sys.path += [Path("/a/path"), b"/bytes", None, 7, "/nowhere", "relative", "", "/not\\udcffutf8", "__a_hook__"]

async def main():
    async with Snakepit(Seeing, workers=1, pool={"environment": json.loads(sys.argv[1])}) as pit:
        seen = await pit.execute("see")
    expected = [entry for entry in sys.path if isinstance(entry, str)]
    expected[expected.index("relative")] = str(Path("relative").absolute())
    expected[expected.index("")] = os.getcwd()
    seen["path"] = [os.fsdecode(bytes.fromhex(entry)) for entry in seen["path"]]
    print(json.dumps([seen, expected]))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def looking(tmp_path: Path) -> Path:
    """A folder with a program that looks at what its worker sees; modules of ours lie about with other contents."""
    written(tmp_path, "app/looking.py", text=LOOKING)
    written(
        tmp_path, "app/around/__init__.py", "app/around/beside.py", "zipped/far.py", "elsewhere/relative/x", text=""
    )
    written(tmp_path, "app/around/seeing.py", text=SEEING)
    # On the path since the program began, but not before it had imported ours.
    written(tmp_path, "elsewhere/orjson.py", "elsewhere/grpc/__init__.py", text="raise ImportError('not this one')")
    zipapp.create_archive(tmp_path / "zipped", tmp_path / "app" / "late.zip", main="far:none")
    return tmp_path


async def seen_by(folder: Path, *options: str, pool: dict[str, str] | None = None, **environ: str) -> tuple[Any, Any]:
    """Run the program that looks, from another folder; return what its worker sees, and the path it should have."""
    said = await output(
        folder / "elsewhere", *options, str(folder / "app" / "looking.py"), json.dumps(pool or {}), **environ
    )
    seen, expected = json.loads(said)
    return seen, expected


async def test_workers_have_the_import_path_of_the_program(looking: Path) -> None:
    """All entries that count are there, in order, made absolute; and nothing else, least of all the current folder."""
    seen, expected = await seen_by(looking, "-O", "-X", "dev", "-B", "-W", "ignore::PendingDeprecationWarning")
    assert seen["path"] == expected
    assert seen["PYTHONPATH"] is None
    assert seen["flags"] == [1, True, 1, 0]
    assert seen["warnings"] == ["ignore::PendingDeprecationWarning"]
    assert seen["beside"] == "around.beside"


async def test_the_import_path_of_the_environment_is_what_it_was(looking: Path) -> None:
    """`PYTHONPATH` reaches tools as the user has set it; what a pool adds counts for its workers."""
    more = str(looking / "more")
    seen, expected = await seen_by(looking, pool={"PYTHONPATH": more}, PYTHONPATH=str(looking))
    assert seen["PYTHONPATH"] == more
    assert seen["path"] == [expected[0], more, *expected[1:]]


async def test_an_isolated_program_has_isolated_workers(looking: Path) -> None:
    """What an interpreter was told not to look at, workers' do not look at either."""
    program = looking / "app" / "looking.py"
    program.write_text(
        program.read_text().replace(
            "import asyncio, json, os, sys",
            "import asyncio, json, os, sys\nsys.path.insert(0, __file__.rpartition('/')[0])",
        )
    )
    seen, expected = await seen_by(looking, "-I", PYTHONPATH=str(looking / "elsewhere"))
    assert seen["path"] == expected
    assert str(looking / "elsewhere") not in seen["path"][:4]
    assert seen["flags"][3] == 1


async def test_a_program_without_a_guard_gets_the_advice_to_have_one(tmp_path: Path) -> None:
    """What a main module does when it is run is not done by workers, and the error says where it goes."""
    written(tmp_path, "app.py", text=PROGRAM.replace('if __name__ == "__main__":', "if True:"))
    with pytest.raises(AssertionError, match="goes under if __name__ == '__main__'"):
        await output(tmp_path, "app.py")


@pytest.mark.parametrize("adapter", ["near.Near", "near:Near", "near.py:Near", "inner/near.py:Near"])
async def test_commands_load_alike(tmp_path: Path, adapter: str) -> None:
    """What `serve` finds from the current folder, `worker` and `doctor` find there, too."""
    near = """
        from snakepit_otel import BaseAdapter, tool
        class Near(BaseAdapter):
            @tool
            def hello(self) -> str:
                return "hello"
    """
    written(tmp_path, "near.py", "inner/near.py", text=near)
    await output(tmp_path, "-P", "-m", "snakepit_otel", "worker", "--health-check", "--adapter", adapter)
    said = await output(tmp_path, "-P", "-m", "snakepit_otel", "doctor", "--adapter", adapter, "--json")
    assert f"adapter {adapter}" in said
