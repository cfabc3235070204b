"""Ratchets of language and size: what a stranger has to put up with, bounded by numbers that only go down."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from tests.source import PUBLIC, ROOT, modules, product, sources, tree

# fmt: off
SPEECH = frozenset(
    (
        "announce", "announced", "announcer", "announces", "ask", "asked", "asking", "asks", "complain",
        "complained", "complains", "complaint", "complaints", "hear", "heard", "hearing", "hears", "knew",
        "know", "knows", "mind", "minded", "minds", "obey", "obeys", "said", "say", "saying", "says", "speak",
        "speaks", "spoke", "tell", "telling", "tells", "told",
    )
)
"""Words of speech and feeling, which are no names for what machines do."""
# fmt: on
ALLOWED = {"snakepit_otel/zero_copy/formats/arrow.py": {"tell"}}
"""Names that another's contract prescribes: PyArrow calls a file's methods."""
HEAD = re.compile(r"(How|What|When|Where|Whether|Which|Who|Whose)\b")
MAX_ATTRIBUTE_DOCSTRINGS = 80
MAX_PUBLIC_NAMES = 300
MAX_NOQA_PER_THOUSAND_LINES = 2.0
MAX_LINES = 400
LONG_FILES: dict[str, str] = {}
"""Files over 400 lines, with the reason of each."""


def defined(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that a module defines, at any depth, with its line."""
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno


def words(name: str) -> set[str]:
    """Return the words of an identifier, in small letters."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+", name)}


def attribute_docstrings(module: ast.Module) -> Iterator[int]:
    """Yield the lines of strings that document the assignment before them."""
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        for before, after in itertools.pairwise(body) if isinstance(body, list) else ():
            match before, after:
                case ast.Assign() | ast.AnnAssign(), ast.Expr(value=ast.Constant(value=str())):
                    yield after.lineno


def place(path: Path, line: int = 1) -> str:
    """Return where a finding is, for people."""
    return f"{path.relative_to(ROOT)}:{line}"


def test_names_have_no_verbs_of_speech() -> None:
    """No identifier of the product tells, says, hears, asks, minds, obeys or knows."""
    found = [
        f"{place(path, line)}: {name}"
        for path in product()
        for name, line in defined(tree(path))
        if words(name) & SPEECH and name not in ALLOWED.get(str(path.relative_to(ROOT)), ())
    ]
    assert not found


def test_heads_begin_with_a_noun_or_a_verb() -> None:
    """No module, of tests either, has a head that begins with a question word."""
    files = [*product(), *sorted((ROOT / "tests").rglob("*.py"))]
    assert not [place(path) for path in files if HEAD.match(ast.get_docstring(tree(path)) or "")]


def test_attributes_are_understood_by_their_names() -> None:
    """At most 80 attributes and constants have a docstring, for a unit, a range or a reason."""
    found = [place(path, line) for path in sources() for line in attribute_docstrings(tree(path))]
    assert len(found) <= MAX_ATTRIBUTE_DOCSTRINGS, found


def test_lint_rules_are_seldom_switched_off() -> None:
    """At most two `noqa` stand in a thousand lines."""
    lines = [line for path in sources() for line in path.read_text().splitlines()]
    assert 1_000 * sum("# noqa" in line for line in lines) / len(lines) <= MAX_NOQA_PER_THOUSAND_LINES


def test_long_files_have_a_reason() -> None:
    """A file over 400 lines is named here with its reason, and no other is."""
    long = {str(path.relative_to(ROOT)) for path in product() if path.read_text().count("\n") > MAX_LINES}
    assert long == LONG_FILES.keys()


def test_public_names_are_few() -> None:
    """What users may import is at most 300 names; generated names of telemetry are the registry's."""
    found: set[str] = set()
    for module, path in modules().items():
        _, *inside = module.split(".")
        if inside and (inside[0] not in PUBLIC or (len(inside) > 1 and _is_private(inside[1:], path))):
            continue
        if module != "snakepit_otel.telemetry.names":
            found |= {f"{module}.{name}" for name in _public_names(tree(path))}
    assert 100 < len(found) <= MAX_PUBLIC_NAMES, sorted(found)


def _is_private(inside: list[str], path: Path) -> bool:
    # A folder inside of a public room exports nothing.
    return any(part.startswith("_") for part in inside) or path.name == "__init__.py" or len(inside) > 1


def _public_names(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if not name.startswith("_"):
                    yield name
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                yield from (one.value for one in ast.walk(value) if isinstance(one, ast.Constant))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if not name.startswith("_"):
                    yield name
