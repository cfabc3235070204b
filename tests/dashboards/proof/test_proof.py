"""Dashboards, rules and alerts, held against a real Prometheus, and log records, that real deployments have fed.

Deployments run for some two minutes: one is well, one is well and sends its metrics straight to Prometheus, one is two
authorities that share a session store, of which one is killed; in two others everything goes wrong on purpose, and in a
third its session store; and two are Elixirs, of which nothing is seen but their Python workers: upstream's, which
`opentelemetry-instrument` starts, and ours. Time passes quicker than in the field: see `pace`.

Queries for log records are not read by Loki: the data that they are made from selects among the records that the
collector has sent to where Loki would be, as Loki's documentation says that it keeps them. Their text is read by
Grafana's grammar, in `tests/dashboards/test_grammars.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from dashboards import recording
from dashboards.alerts import alerts
from dashboards.logql import SEVERITY, LogQuery
from dashboards.promql import PRESENT, Matcher, Scope, one_of
from dashboards.registry import known
from dashboards.rules import Recording
from snakepit_otel.telemetry import names as n
from tests.collector.conftest import installed
from tests.dashboards.proof.answers import Answer, answer
from tests.dashboards.proof.deployment import NAMESPACE
from tests.dashboards.proof.elixirs import OURS, UPSTREAMS
from tests.dashboards.proof.questions import Question, filled_in, questions
from tests.dashboards.proof.run import STEADY, WELL, Run, expected, run
from tests.dashboards.proof.sharing import KEPT, SHARING
from tests.dashboards.proof.stack import Programs, numbers
from tests.dashboards.proof.troubles import COLLECTOR, TROUBLED
from tests.dashboards.proof.workers import NEVER, RIGHTLY, absent, concerns, every_metric
from tests.pool.proofs.figures import Say, saying

pytestmark = [pytest.mark.dashboards, pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

OWN = r"(snakepit|rpc|process|cpython)_.*"
of_each_elixir = pytest.mark.parametrize("elixir", [UPSTREAMS, OURS])


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Print what was seen, whatever pytest does with output."""
    return saying(capsys)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def over(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """The run, when it is over."""
    programs = Programs(installed("install-collector"), installed("install-prometheus"))
    async with run(programs, tmp_path_factory.mktemp("proof")) as made:
        yield made


@pytest.fixture(scope="module")
def asked(over: Run) -> list[Question]:
    """All queries of all pages, but for those of traces, which there is no store for here."""
    return [question for page in over.dashboards for question in questions(page) if question.source != "tempo"]


def most_told(over: Run, service: str) -> str:
    """Return the session of a service of which most is told."""
    its = LogQuery({"service_name": Matcher("=", service)}).where(n.SESSION_ID, PRESENT)
    lines = over.stack.lines(its.where(SEVERITY, one_of(["WARN", "ERROR"])), over.span.start, over.span.end)
    return Counter(line.labels["session_id"] for line in lines).most_common(1)[0][0]


@pytest.fixture(scope="module")
def seen(over: Run, asked: list[Question]) -> list[Answer]:
    """What all pages show, with everything chosen."""
    session = most_told(over, TROUBLED)
    return [answer(over.stack, question, over.span, {"session_id": session}) for question in asked]


def report(say: Say, what: str, answers: Iterable[Answer], bad: Iterable[Answer]) -> None:
    """Print of how many panels, annotations and variables of each page this is true; fail if not of all."""
    wrong = list(bad)
    of_page, bad_of_page = (
        Counter(page for page, _ in {(one.question.page, one.question.panel or one.question.where) for one in some})
        for some in (answers, wrong)
    )
    for page, count in sorted(of_page.items()):
        say(f"{page}: {count - bad_of_page[page]}/{count} {what}")
    assert not wrong, "\n".join([f"not {what}:", *map(str, wrong)])


async def test_every_query_has_data(over: Run, seen: list[Answer], say: Say) -> None:
    """Whatever a panel, an annotation or a variable asks for, there has been in the run."""
    traces = [question for page in over.dashboards for question in questions(page) if question.source == "tempo"]
    say(f"queries of traces, which are held against the registry alone: {len(traces)}")
    report(say, "panels, annotations and variables with data", seen, (one for one in seen if not one.has_data))


async def test_panels_of_a_deployment_that_is_well_have_data(over: Run, asked: list[Question], say: Say) -> None:
    """Where nothing is wrong, only those panels are empty that say what this means."""
    chosen = {"service_namespace": NAMESPACE, "service_name": STEADY}
    answers = [
        answer(over.stack, question, over.span, chosen)
        for question in asked
        if not question.may_be_empty and question.source == "prometheus"
    ]
    report(say, f"panels with data of {STEADY} alone", answers, (one for one in answers if not one.has_data))


async def test_every_log_record_is_within_limits(over: Run, say: Say) -> None:
    """Loki would keep each as it is."""
    records = over.stack.intake.records
    say(f"log records: {len(records)}, of {len({record.stream['service_name'] for record in records})} services")
    assert records
    assert not {beyond for record in records for beyond in record.beyond_limits()}


@of_each_elixir
async def test_workers_alone_fill_what_is_about_workers(
    over: Run, asked: list[Question], elixir: str, say: Say
) -> None:
    """Under an Elixir, all has data that asks for what workers say, and points of durations lead to traces."""
    chosen = {"service_namespace": NAMESPACE, "service_name": elixir, "session_id": most_told(over, elixir)}
    answers = [answer(over.stack, question, over.span, chosen) for question in asked if concerns(question, elixir)]
    report(say, f"about workers with data of {elixir}", answers, (one for one in answers if not one.has_data))
    with_exemplars = [one for one in answers if one.question.exemplars]
    assert with_exemplars
    report(say, f"panels with exemplars of {elixir}", with_exemplars, filter(_lacks_traces, with_exemplars))


@of_each_elixir
async def test_a_metric_is_there_or_there_is_a_reason(over: Run, elixir: str, say: Say) -> None:
    """Of workers under an Elixir there is every metric of the registry but those of which it is said why not."""
    series = _series(over, elixir)
    there = {known()[labels["__name__"]].metric for labels in series}
    say(f"metrics of {elixir}: {len(there)}, and {len(absent(elixir))} that it cannot have")
    assert not there & absent(elixir)
    assert there | absent(elixir) == every_metric()
    assert not [labels for labels in series if labels.items() & NEVER[elixir].items()]


async def test_exemplars_lead_to_traces(seen: list[Answer], say: Say) -> None:
    """Panels that show exemplars have some, with the ids of traces."""
    with_exemplars = [one for one in seen if one.question.exemplars]
    assert with_exemplars
    report(say, "panels with exemplars", with_exemplars, filter(_lacks_traces, with_exemplars))


async def test_every_recording_rule_records(over: Run, say: Say) -> None:
    """Each rule has made samples that are numbers, of the deployment that is well, too."""
    rules = [rule for group in recording.groups() for rule in group.rules if isinstance(rule, Recording)]
    silent = []
    for rule in rules:
        found = over.stack.over_time(f'{rule.record}{{service_name="{STEADY}"}}', over.span.start, over.span.end, 1)
        if not any(True for series in found for _ in numbers(series)):
            silent.append(rule.record)
    say(f"recording rules with samples: {len(rules) - len(silent)}/{len(rules)}")
    assert not silent


async def test_every_alert_has_fired(over: Run, say: Say) -> None:
    """Each alert has fired for the deployment in which its trouble was made."""
    known = {alert.full_name for alert in alerts()}
    assert {name for name, _ in expected()} == known
    late = [one for one in expected() if one not in over.fired]
    after = {name: over.fired[name, service] - over.troubles_began for name, service in set(expected()) - set(late)}
    say(", ".join(f"{name.removeprefix('Snakepit')} {seconds:.0f} s" for name, seconds in sorted(after.items())))
    say(f"alerts that fired: {len(known) - len(late)}/{len(known)}")
    assert not late


async def test_no_alert_has_fired_where_nothing_was_wrong(over: Run, say: Say) -> None:
    """For the deployments that are well none has fired in all the run; of the collector, none before the troubles."""
    firing = over.stack.over_time('ALERTS{alertstate="firing"}', over.span.start, over.span.end, 0.5)
    names = {alert.full_name for alert in alerts()}
    loud = set()
    for series in firing:
        labels, first = series["metric"], float(series["values"][0][0])
        service = labels.get("service_name", COLLECTOR)
        if service in (*WELL, SHARING) or (service == COLLECTOR and first < over.troubles_began):
            loud.add((labels["alertname"], service, f"{first - over.span.start:.0f} s"))
    say(f"alerts that were silent: {len(names - {name for name, *_ in loud})}/{len(names)}")
    assert not loud


async def test_two_authorities_over_one_store_are_one_ledger(over: Run, asked: list[Question], say: Say) -> None:
    """At rest the panels have the store's own account, once, although one of the authorities was killed meanwhile."""
    account = over.account
    assert account.live == KEPT
    assert account.created - account.deleted - account.pruned == KEPT
    shown = partial(_shown_at_rest, over, asked)
    assert shown("snakepit-stores", "Live sessions by store") == [(account.store, KEPT)]
    assert shown("snakepit-stores", "Created less ended less live") == [(account.store, 0)]
    assert shown("snakepit-stores", "Authorities") == [("", 2)]
    assert shown("snakepit-sessions", "Live sessions") == [("", KEPT)]
    assert shown("snakepit-overview", "Live sessions") == [("", KEPT)]
    seconds = f"{int(account.at - over.span.start)}s"
    for metric, count in (
        (n.METRIC_SESSION_CREATED, account.created),
        (n.METRIC_SESSION_ENDED, account.deleted + account.pruned),
    ):
        query = Scope({"service_name": Matcher("=", SHARING)}).occurrences(metric, window=seconds)
        ((_, value),) = _of_stores(over.stack.query(query, account.at))
        assert value == count, query
    instances = {labels["instance"] for labels in _series(over, SHARING) if "snakepit_session_store" in labels}
    say(f"sessions of {len(instances)} authorities over {account.store}: {account.created} created, {KEPT} live")
    assert len(instances) == 3, "of which one was killed, and one started in its place"


async def test_alerts_fire_for_workers_alone_where_they_should(over: Run, say: Say) -> None:
    """Of workers under an Elixir those alerts have fired that had a reason, and no others."""
    fired = {(name, service) for name, service in over.fired if service in (UPSTREAMS, OURS)}
    say(", ".join(f"{name.removeprefix('Snakepit')} of {service}" for name, service in sorted(fired)))
    assert fired == RIGHTLY


async def test_names_and_labels_are_the_same_both_ways(over: Run, say: Say) -> None:
    """By the collector and by Prometheus' own receiver, the same metrics come with the same labels and boundaries.

    Only how a whole number is written as a boundary differs: 1.0 where Prometheus has scraped it, 1 where it was sent.
    """
    through, straight = (_labels(over, service) for service in WELL)
    say(f"metrics through the collector {len(through)}, straight to Prometheus {len(straight)}")
    assert through == straight
    scraped, sent = (_boundaries(over, service) for service in WELL)
    assert "1.0" in scraped - sent
    assert "1" in sent - scraped
    assert set(map(float, scraped)) == set(map(float, sent))


def _shown_at_rest(over: Run, asked: list[Question], page: str, panel: str) -> list[tuple[str, float]]:
    """Return what the first query of a panel gives for the authorities that share a store, by store."""
    question = next(one for one in asked if (one.page, one.where) == (page, panel))
    query = filled_in(question, over.span.seconds, {"service_namespace": NAMESPACE, "service_name": SHARING})
    return _of_stores(over.stack.query(query, over.account.at))


def _of_stores(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(one["metric"].get("snakepit_session_store", ""), float(one["value"][1])) for one in found]


def _lacks_traces(one: Answer) -> bool:
    return not any(exemplar["labels"].get("trace_id") for exemplar in one.exemplars)


def _series(over: Run, service: str) -> list[dict[str, str]]:
    return over.stack.series(f'{{__name__=~"{OWN}",service_name="{service}"}}', over.span.start, over.span.end)


def _labels(over: Run, service: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for labels in _series(over, service):
        found.setdefault(labels["__name__"], set()).update(labels)
    return found


def _boundaries(over: Run, service: str) -> set[str]:
    return {labels["le"] for labels in _series(over, service) if "le" in labels}
