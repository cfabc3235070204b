"""Queries for logs and traces, read by the grammars that Grafana's own editors read them by.

Neither Loki nor Tempo is run. A grammar sees whether a query is one, and what it asks for.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import yaml

from dashboards.build import as_plain, pages
from dashboards.logql import EVENT_NAME, LogQuery
from dashboards.promql import Matcher
from dashboards.registry import STREAM, events, labels_of_records
from semconv.generate import Registry
from tests.collector.conftest import installed
from tests.dashboards.proof.questions import Question, filled_in, logs_filled_in, questions
from tests.processes import ROOT

pytestmark = [pytest.mark.collector, pytest.mark.timeout(600)]

ASKED = [question for page in pages() for question in questions(as_plain(page))]
LOGS = [question for question in ASKED if question.source == "loki"]
TRACES = [question for question in ASKED if question.source == "tempo"]
# What is chosen at the top of a page: all; one; several, as Grafana writes them.
CHOSEN: Mapping[str, Mapping[str, str]] = {
    "all": {},
    "one": {"service_namespace": "web", "service_name": "shop", "instance": "0f-9:a", "session_id": "user-1"},
    "several": {"service_namespace": "(web|)", "service_name": "(shop|till)", "session_id": "Zoë's {1} | 2"},
}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Written:
    """A query as text."""

    where: str
    language: str
    query: str


@dataclass(frozen=True)
class Node:
    """A part of a query, by the grammar's name for it."""

    name: str
    start: int
    text: str
    wrong: bool


Tree = Sequence[Node]


def _documented() -> list[Written]:
    block = re.compile(r"^```(logql|traceql)\n(.*?)\n```", re.MULTILINE | re.DOTALL)
    return [
        Written(str(path.relative_to(ROOT)), language, query)
        for path in DOCUMENTS
        for language, query in block.findall(path.read_text())
    ]


def _provisioned() -> list[Written]:
    """Return what leads from a span to its logs, as Grafana sends it."""
    file = ROOT / "dashboards" / "provisioning" / "datasources.yaml"
    sources = {source["type"]: source for source in yaml.safe_load(file.read_text())["datasources"]}
    query = sources["tempo"]["jsonData"]["tracesToLogsV2"]["query"]
    return [Written(file.name, "logql", query.replace("$${__trace.traceId}", "4bf92f3577b34da6a3ce929d0e0e4736"))]


def _asked() -> list[Written]:
    return [
        Written(f"{question}, {many} chosen", language, filled_in(question, 60, chosen))
        for language, some in (("logql", LOGS), ("traceql", TRACES))
        for question in some
        for many, chosen in CHOSEN.items()
    ]


OTHERS = [*_documented(), *_provisioned()]
OURS = [*_asked(), *OTHERS]
DAMAGES = {
    "a brace is missing": lambda query: re.sub("[{}]", "", query, count=1),
    "a quote is not closed": lambda query: query.replace('"', "", 1) if '"' in query else f'{query}"',
    "nothing is between two bars": lambda query: f"{query} | |",
    "an operator there is not": lambda query: re.sub(r"!=|=~|=|>", "~=", query, count=1),
}
BROKEN = [
    Written(f"{one.where}: {damage}", one.language, broken(one.query))
    for one in OURS
    for damage, broken in DAMAGES.items()
] + [
    Written("no selector", "logql", '| event_name="x"'),
    Written("a selector is not closed", "logql", '{service_name="x"'),
    Written("a stage there is not", "logql", '{service_name="x"} | line_formats `x`'),
    Written("PromQL", "logql", 'sum by (a) (rate(x{service_name="x"}[5m]))'),
    Written("LogQL", "traceql", '{service_name="x"} | json'),
    Written("nothing to compare with", "traceql", "{ span.session.id = }"),
    Written("nothing to select", "traceql", '{ name = "x" } | select()'),
    Written("a scope there is not", "traceql", '{ metric.size = "x" }'),
]


def read(some: Sequence[Written]) -> dict[Written, Tree]:
    """Return the trees of queries, all by one process."""
    folder = installed("install-grammars")
    node = shutil.which("node")
    assert node is not None
    done = subprocess.run(
        [node, ROOT / "tests" / "dashboards" / "grammars" / "read.mjs", folder],
        input=json.dumps([{"language": one.language, "query": one.query} for one in some]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    trees = json.loads(done.stdout)
    return {
        one: [Node(node["name"], node["from"], one.query[node["from"] : node["to"]], node["error"]) for node in tree]
        for one, tree in zip(some, trees, strict=True)
    }


@pytest.fixture(scope="module")
def trees() -> dict[Written, Tree]:
    """Return the trees of all queries here."""
    return read([*OURS, *BROKEN])


def faults(tree: Tree) -> list[str]:
    """Return where the grammar finds something else than it expects."""
    return [f"at {node.start}: {node.text!r}" for node in tree if node.wrong]


def asks_for(tree: Tree) -> tuple[dict[str, Matcher], list[tuple[str, Matcher]], str]:
    """Return what a tree of LogQL chooses streams by, what it filters records by, and how it shows them."""
    selector = next(node for node in tree if node.name == "Selector")
    end = selector.start + len(selector.text)
    found = [
        (label.start, label.text, Matcher(operator.text, _unquoted(value.text)))
        for node, label, operator, value in zip(tree, tree[1:], tree[2:], tree[3:], strict=False)
        if node.name == "Matcher"
    ]
    formats = [tree[number + 2].text for number, node in enumerate(tree) if node.name == "LineFormatExpr"]
    return (
        {label: matcher for start, label, matcher in found if start < end},
        [(label, matcher) for start, label, matcher in found if start > end],
        _unquoted(formats[0]) if formats else "",
    )


def _unquoted(text: str) -> str:
    assert text[0] == text[-1], text
    return text[1:-1]


def test_there_are_queries_of_every_kind() -> None:
    """Of both languages, in pages and in documents; and one that leads from a trace to its logs."""
    assert len(LOGS) >= 6
    assert len(TRACES) >= 5
    assert {one.language for one in _documented()} == {"logql", "traceql"}
    assert len(_provisioned()) == 1


@pytest.mark.parametrize("one", OURS, ids=lambda one: one.where)
def test_a_query_is_one(one: Written, trees: dict[Written, Tree]) -> None:
    """Its grammar takes it, whatever is chosen at the top of the page."""
    assert faults(trees[one]) == [], one.query


@pytest.mark.parametrize("one", BROKEN, ids=lambda one: f"{one.language}: {one.where}")
def test_what_is_broken_is_not(one: Written, trees: dict[Written, Tree]) -> None:
    """Any of them, once damaged, is refused, so that to be taken says something."""
    assert faults(trees[one]), one.query


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize("question", LOGS, ids=str)
def test_text_and_data_are_the_same_query(
    question: Question, chosen: Mapping[str, str], trees: dict[Written, Tree]
) -> None:
    """What the grammar reads in the text is what the proof of the dashboards selects log records by."""
    assert question.logs is not None
    made_of: LogQuery = logs_filled_in(question.logs, question, 60, chosen)
    (tree,) = {one.query: tree for one, tree in trees.items() if one.query == made_of.text}.values()
    shown = "".join(map(str, made_of.line))
    assert asks_for(tree) == (made_of.stream, list(made_of.filters), shown)


@pytest.mark.parametrize("one", [one for one in OTHERS if one.language == "logql"], ids=lambda one: one.where)
def test_documented_queries_for_logs_name_what_there_is(one: Written, trees: dict[Written, Tree]) -> None:
    """Labels that log records have, streams by labels of streams, and events of the registry."""
    stream, filters, _ = asks_for(trees[one])
    assert stream.keys() <= STREAM
    assert {label for label, _ in filters} <= labels_of_records()
    for label, matcher in filters:
        if label == EVENT_NAME:
            for pattern in matcher.text.split("|"):
                assert any(re.fullmatch(pattern, event) for event in events()), pattern


@pytest.mark.parametrize("one", [one for one in OURS if one.language == "traceql"], ids=lambda one: one.where)
def test_queries_for_traces_name_what_there_is(one: Written, trees: dict[Written, Tree]) -> None:
    """Each attribute is one of the registry, with the scope that it has there: a resource's, or a span's."""
    tree = trees[one]
    named = [node.text for node in tree if node.name == "AttributeField"]
    registry = Registry.load()
    for scope, _, attribute in (text.partition(".") for text in named):
        assert attribute in registry.attributes, attribute
        assert scope == ("resource" if attribute.startswith("service.") else "span"), attribute
