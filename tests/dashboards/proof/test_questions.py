"""Checks of the pages' queries without a run: none is left out, and those of traces name what there is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dashboards.build import as_plain, pages, promql_of
from semconv.generate import Registry
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Point
from tests.dashboards.proof.questions import Question, filled_in, questions

PAGES = [as_plain(page) for page in pages()]
ASKED = [question for page in PAGES for question in questions(page)]
TRACES = [question for question in ASKED if question.source == "tempo"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["uid"])
def test_no_query_is_left_out(page: dict[str, Any]) -> None:
    """As many queries are asked of Prometheus as are held against the registry."""
    asked = [question for question in questions(page) if question.source == "prometheus"]
    assert len(asked) == len(list(promql_of(page)))


@pytest.mark.parametrize("question", ASKED, ids=str)
def test_variables_are_those_of_the_page(question: Question) -> None:
    """No query has a variable that its page lacks; Grafana would send the name as it is, as it does with `$1`."""
    assert not re.findall(r"\$[A-Za-z_]\w*|\$\{.*?\}", filled_in(question, 60, {}))


def test_there_are_queries_of_traces() -> None:
    """They are held against the registry alone: there is no store for traces that could be run here."""
    assert TRACES


@pytest.mark.parametrize("question", TRACES, ids=str)
def test_queries_of_traces_name_what_there_is(question: Question) -> None:
    """Their attributes are the registry's, and the names of spans are those of our spans."""
    registry = Registry.load()
    attributes = re.findall(r"\b(?:span|resource|event|link)\.([a-z_][\w.]*)", question.query)
    assert attributes
    assert set(attributes) <= set(registry.attributes)
    spans = {value.span for value in vars(names).values() if isinstance(value, Point)}
    for named in re.findall(r'(?<![\w.])name\s*=~?\s*"([^"]*)"', question.query):
        assert set(named.split("|")) <= spans
