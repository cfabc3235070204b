"""The search is tried with the questions that people come with."""

from __future__ import annotations

from pathlib import Path

import pytest

from documentation import questions


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the search finds, by question; at first, the right page for each."""
    answers = {question: [page] for question, page in questions.QUESTIONS.items()}
    monkeypatch.setattr(questions, "found", lambda index, queries: [answers[query] for query in queries])
    return answers


def test_all_pages_among_the_first(asked: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """Each question is printed with the place of its page."""
    asked["retry"] = ["other.html"] * (questions.FIRST - 1) + ["pools.html"]
    assert questions.main(["index.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(questions.QUESTIONS)
    assert next(line for line in lines if line.startswith("retry")).endswith(f"{questions.FIRST}.")


def test_a_page_too_far_down(asked: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """It fails, and shows what came first instead."""
    asked["retry"] = [f"other-{number}.html" for number in range(questions.FIRST)] + ["pools.html"]
    assert questions.main(["index.json"]) == 1
    assert "first are other-0.html, other-1.html" in capsys.readouterr().out


def test_a_page_that_is_not_found(asked: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """The same."""
    asked["retry"] = []
    assert questions.main(["index.json"]) == 1
    assert "not found   first are none" in capsys.readouterr().out


def test_without_nodejs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said that nothing was tried."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert questions.main([str(Path("index.json"))]) == 0
    assert "not tried" in capsys.readouterr().out
