"""Lines of the keys in a TOML file."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from snakepit_otel.settings._sources import flattened
from snakepit_otel.settings._toml_lines import toml_lines

DOCUMENT = '''\
# what = "a comment is"
adapter = "shop:A" # adapter = 2
tools = [ # one
  "a]",
  # two = 2
  "b", ]

[pool]  # [pools]
size=4
"queue_timeout" = 5
text = """
[server]
size = 9 \\"""
"""""
'literal key' = \'\'\'
listen = "x"\'\'\'
after = 1
environment = { A = "1", B.C = [ {D = 4}, "]" ], "E\\u0046" = '}' }
dated = 1979-05-27 07:32:00
[pools . "big gpu"]
server . tls.key = 1e3

[[points]]
x = 1
[[points.inner]]
[points.inner.deep]
y = inf
[[points]]
x = 2'''
LINES = {
    "adapter": 2,
    "tools": 3,
    "tools 0": 4,
    "tools 1": 6,
    "pool": 8,
    "pool size": 9,
    "pool queue_timeout": 10,
    "pool text": 11,
    "pool literal key": 15,
    "pool after": 17,
    "pool environment": 18,
    "pool environment B C 0 D": 18,
    "pool environment EF": 18,
    "pool dated": 19,
    "pools": 20,
    "pools big gpu": 20,
    "pools big gpu server tls": 21,
    "points": 23,
    "points 0 x": 24,
    "points 0 inner 0": 25,
    "points 0 inner 0 deep y": 27,
    "points 1": 28,
    "points 1 x": 29,
}

plain = st.text("abcXYZ_-019", min_size=1, max_size=4)
odd = st.text("a .=#[]{}'\"\\\n\té,", max_size=4)
scalars = st.one_of(
    st.sampled_from(["1", "-0.5e3", "inf", "true", "1979-05-27 07:32:00Z", "07:32:00", "0xFF", '""', "''"]),
    odd.map(lambda text: '"""' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""'),
    odd.map(lambda text: '"""\n' + text.replace("\\", "\\\\").replace('"', '\\"') + 'a"""""'),
    odd.filter(lambda text: "'" not in text).map(lambda text: f"'''{text}'''"),
    odd.filter(lambda text: not set(text) & {"'", "\n"}).map(lambda text: f"'{text}'"),
)


def basic(text: str) -> str:
    """Return text as a basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


keys = st.one_of(plain, plain.map(basic), odd.map(basic), plain.map(lambda text: f"'{text}'"))
dotted = st.lists(keys, min_size=1, max_size=3).map(
    lambda parts: " . ".join(parts) if len(parts) > 2 else ".".join(parts)
)
gaps = st.sampled_from(["", " ", "\n", " # ]}\n", "\n\n\t"])


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """Return an array, over several lines perhaps."""
    items = [draw(gaps) + draw(inner) + draw(gaps) for _ in range(draw(st.integers(0, 3)))]
    return "[" + ",".join(items) + (draw(st.sampled_from(["", ","])) if items else "") + draw(gaps) + "]"


@st.composite
def inline_tables(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """Return an inline table."""
    return "{ " + ", ".join(f"{draw(dotted)} = {draw(inner)}" for _ in range(draw(st.integers(0, 3)))) + " }"


contents = st.recursive(scalars, lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=6)
statements = st.one_of(
    st.sampled_from(["", "# a = 1", "  # [b]"]),
    dotted.map(lambda name: f"[{name}] # ]"),
    dotted.map(lambda name: f"[[ {name} ]]"),
    st.builds(lambda name, value: f"{name} = {value} # z = 1", dotted, contents),
    st.builds(lambda name, value: f"  {name}={value}\t", dotted, contents),
)


def parsed(text: str) -> dict[str, Any] | None:
    """Return what TOML says, or None if it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


@st.composite
def documents(draw: st.DrawFn) -> list[str]:
    """Return statements that are TOML together."""
    document: list[str] = []
    for statement in draw(st.lists(statements, max_size=10)):
        if parsed("\n".join([*document, statement])) is not None:
            document.append(statement)
    return document


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", LINES)
def test_every_key_is_found_on_its_line(name: str, newline: str) -> None:
    """Tables, dotted and quoted keys, inline tables and arrays are found; comments and texts do not mislead."""
    lines = toml_lines(DOCUMENT.replace("\n", newline))
    where = tuple(int(part) if part.isdigit() else part for part in name.replace("big gpu", "big~gpu").split())
    where = tuple(part.replace("~", " ") if isinstance(part, str) else part for part in where)
    if name.startswith("pool literal"):
        where = ("pool", "literal key")
    assert lines[where] == LINES[name]


@given(documents())
@example(["a = 1", "", "[b]", 'c = """', '"""'])
def test_what_is_found_is_what_there_is(document: list[str]) -> None:
    """The keys found are those that the parser finds, no more and no less."""
    text = "\n".join(document)
    values = parsed(text)
    assume(values is not None)
    assert set(toml_lines(text)) == set(flattened(values))


@given(documents())
def test_a_key_is_within_the_statement_that_first_names_it(document: list[str]) -> None:
    """Of a document that grows, each statement has the lines of what is new by it."""
    lines = toml_lines("\n".join(document))
    known: set[tuple[str | int, ...]] = set()
    begin = 1
    for number, statement in enumerate(document, 1):
        end = begin + statement.count("\n")
        found = set(flattened(parsed("\n".join(document[:number]))))
        assert all(begin <= lines[where] <= end for where in found - known)
        known, begin = known | found, end + 1
