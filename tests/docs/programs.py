"""Pages of the documentation as programs: the definitions of a page as a module, and the rest of it as statements.

What a page leaves out, because its readers have it, stands in `tests/docs/pages/PAGE.py`: what comes before the page's
own code, and after a line `# The page's own code.` what comes behind it. A function `surroundings` there is an
asynchronous context manager with the names that the page's statements use.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.testing import run_tool
from tests.docs.blocks import DOCS, Block
from tests.processes import ROOT

HERE = Path(__file__).with_name("pages")
SEPARATOR = "# The page's own code.\n"
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(page: Path) -> str:
    """Return a page's name as that of a module."""
    return str(page.relative_to(DOCS).with_suffix("")).replace("/", "_").replace("-", "_")


def parsed(block: Block) -> ast.Module:
    """Return a block's syntax, with the lines of its page."""
    tree = ast.parse(block.code, str(block.page))
    ast.increment_lineno(tree, block.line - 1)
    return tree


def is_program(block: Block) -> bool:
    """Whether a block is a whole program."""
    return "asyncio.run(" in block.code or 'if __name__ == "__main__"' in block.code


class PageProgram:
    """A page's blocks, to be run in a module of their own."""

    def __init__(self, page: Path, blocks: list[Block], folder: Path) -> None:
        self.name = f"page_{name_of(page)}"
        self.folder = folder
        own = HERE / f"{name_of(page)}.py"
        before, _, behind = (own.read_text() if own.is_file() else "").partition(SEPARATOR)
        defined: dict[str, ast.stmt] = {}
        self.statements: list[tuple[Block, list[ast.stmt]]] = []
        imports: list[ast.stmt] = []
        for block in blocks:
            rest: list[ast.stmt] = []
            for node in parsed(block).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    imports.append(node)
                elif _is_definition(node) and (name := _name(node)) not in defined:
                    defined[name] = node
                else:
                    rest.append(node)
            self.statements.append((block, rest))
        code = ast.unparse(ast.Module([*imports, *defined.values()], []))
        (folder / f"{self.name}.py").write_text(f"{before}\n{code}\n{behind}")

    async def run(self) -> None:
        """Import the page's definitions, and run its statements and its tests."""
        sys.path.insert(0, str(self.folder))
        try:
            module = importlib.import_module(self.name)
            async with _surroundings(module) as names:
                vars(module).update(names)
                for block, statements in self.statements:
                    await _run(block, statements, module)
                for name, test in list(vars(module).items()):
                    if name.startswith("test_") and not inspect.signature(test).parameters:
                        result = test()
                        if inspect.isawaitable(result):
                            await result
        finally:
            sys.path.remove(str(self.folder))
            sys.modules.pop(self.name, None)


def _is_definition(node: ast.stmt) -> bool:
    is_constant = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Dict | ast.List)
    return isinstance(node, _DEFINITIONS) or (is_constant and isinstance(node.targets[0], ast.Name))


def _name(node: ast.stmt) -> str:
    return node.targets[0].id if isinstance(node, ast.Assign) else node.name  # type: ignore[attr-defined]


@asynccontextmanager
async def _surroundings(module: ModuleType) -> AsyncIterator[dict[str, Any]]:
    make = getattr(module, "surroundings", None)
    if make is None:
        yield {}
        return
    async with make() as names:
        yield names


async def _run(block: Block, statements: list[ast.stmt], module: ModuleType) -> None:
    # A definition that a page has had already is shown in part, and does not replace the whole.
    for shown in [node for node in statements if _is_definition(node)]:
        exec(compile(ast.Module([shown], []), str(block.page), "exec"), dict(vars(module)))
    statements = [node for node in statements if not _is_definition(node)]
    if not statements:
        return
    code = compile(ast.Module(statements, []), str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if any(isinstance(node, ast.Name) and node.id == "self" for node in _at_top(statements)):
        await run_tool(_inside(code, module), "run", authority_tools=getattr(module, "authority_tools", ()))
        return
    result = eval(code, vars(module))
    if inspect.isawaitable(result):
        await asyncio.wait_for(result, 60)


def _inside(code: CodeType, module: ModuleType) -> type:
    """Return an adapter whose tool `run` is what a page shows of a tool's inside."""
    if code.co_flags & inspect.CO_COROUTINE:

        class Waiting(BaseAdapter):
            @tool
            async def run(self) -> None:
                await eval(code, {**vars(module), "self": self})

        return Waiting

    class Plain(BaseAdapter):
        @tool
        def run(self) -> None:
            eval(code, {**vars(module), "self": self})

    return Plain


def _at_top(statements: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield what is in statements, but not in the functions and classes among them."""
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def examples() -> str:
    """Return the text of all examples, for excerpts to be found in."""
    files = sorted(path for path in (ROOT / "examples").rglob("*.py") if "__pycache__" not in path.parts)
    return "\n".join(_without_indent(path.read_text()) for path in files)


def is_excerpt(block: Block, text: str) -> bool:
    """Whether a block stands in an example, which has a test of its own."""
    return _without_indent(block.code).strip() in text


def _without_indent(code: str) -> str:
    return "\n".join(line.strip() for line in code.splitlines() if line.strip())
