"""Checks without a run: which of the pages' queries are about workers alone, and why others are not."""

from __future__ import annotations

from collections import Counter

import pytest

from dashboards.build import as_plain, pages
from tests.dashboards.proof.questions import Question, questions
from tests.dashboards.proof.workers import ABSENT, absent, concerns, every_metric

ASKED = [question for page in pages() for question in questions(as_plain(page))]
of_each = pytest.mark.parametrize("deployment", ABSENT)


def _about(deployment: str) -> list[Question]:
    return [question for question in ASKED if concerns(question, deployment)]


@of_each
def test_a_metric_has_one_reason(deployment: str) -> None:
    """Each metric that a deployment cannot have is in the registry, and one reason is given for it."""
    reasons = Counter(metric for metrics in ABSENT[deployment].values() for metric in metrics)
    assert [metric.name for metric, count in reasons.items() if count > 1] == []
    assert absent(deployment) < every_metric()


@of_each
def test_a_deployment_can_be_chosen_on_every_page(deployment: str) -> None:
    """Namespace and service are asked for on every page, and the tool where tools are chosen; no pool is."""
    chosen = Counter(question.where for question in _about(deployment) if question.where.startswith("variable "))
    everywhere = len({question.page for question in ASKED})
    assert chosen["variable service_namespace"] == chosen["variable service_name"] == everywhere
    assert chosen["variable instance"] == everywhere - 1  # one session may be in several
    assert chosen["variable tool"] == 1
    assert not chosen["variable pool"]


@of_each
def test_pages_about_workers_are_asked_of_workers(deployment: str) -> None:
    """Most questions of the pages on what workers do concern them; those on sessions and callers have none."""
    of_page = Counter(question.page for question in ASKED if question.panel)
    about = Counter(question.page for question in _about(deployment) if question.panel)
    share = {page: about[page] / count for page, count in of_page.items()}
    assert share["snakepit-adapters"] > 0.9
    assert share["snakepit-rpc"] > 0.7
    assert share["snakepit-sessions"] == share["snakepit-overview"] == 0
    assert 0 < share["snakepit-pools"] < 0.2
