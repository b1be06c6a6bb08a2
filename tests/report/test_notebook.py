"""What a notebook shows of a job: harmless, readable without its styles, and never typeset as mathematics."""

import re
import sys

import pytest

from aiopplx import Job, JobFailed, JobStatus
from aiopplx._job import Answer, Source, Usage
from aiopplx.report._notebook import card

SOURCES = [Source(url="https://a.example/1", title="One", date="2026-03-01T10"), Source(url="javascript:alert(1)")]


class Answered:
    def __init__(self, text: str, reasoning: str = "Let me think.") -> None:
        self._answer = Answer(text=text, sources=SOURCES, usage=Usage(cost=0.94), reasoning=reasoning)

    def answer(self) -> Answer:
        return self._answer

    def consumed(self) -> Usage | None:
        return self._answer.usage

    def is_on_the_way(self) -> bool:
        return False


def job_of(text: str, question: str = "Why?", job_id: str = "id-1") -> Job:
    return Job(
        id=job_id, status=JobStatus.COMPLETED, question=question, tag="t", seconds=61.0, response=Answered(text, text)
    )


def test_card_has_question_answer_and_sources() -> None:
    html = job_of("It was **top-heavy** [1].")._repr_html_()
    assert html.startswith('<div class="mathjax_ignore"')
    assert "Why?" in html
    assert "<strong>top-heavy</strong>" in html
    assert 'href="#aiopplx-id-1-s1"' in html
    assert 'id="aiopplx-id-1-s1"' in html
    assert '<a href="https://a.example/1"' in html
    assert "$0.94 \N{MIDDLE DOT} 1 min 1 s \N{MIDDLE DOT} 2 sources, 1 cited \N{MIDDLE DOT} t" in html


def test_a_job_without_an_answer_says_why() -> None:
    html = Job(status=JobStatus.FAILED, question="Why?", error=JobFailed("no <luck>"))._repr_html_()
    assert "no &lt;luck&gt;" in html
    assert "FAILED" in html


def test_a_card_without_markdown_it_py_shows_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    html = job_of("**a** <b>b</b> [1]")._repr_html_()
    assert '<pre style="white-space:pre-wrap">**a** &lt;b&gt;b&lt;/b&gt; [1]</pre>' in html


def test_a_job_is_never_shown_as_markdown() -> None:
    assert not hasattr(Job(status=JobStatus.STOPPED), "_repr_markdown_")


@pytest.mark.parametrize("job_id", ["a/b c", "resp_1", "'>", ""])
def test_ids_of_a_card_are_safe(job_id: str) -> None:
    html = job_of("a [1]", job_id=job_id)._repr_html_()
    assert re.findall(r'id="([^"]*)"', html)
    assert all(re.fullmatch(r"aiopplx-[A-Za-z0-9-]*", name) for name in re.findall(r'id="([^"]*)"', html))


def test_a_card_hides_nothing_and_turns_nothing() -> None:
    html = job_of("a\u202eb\u200b", "w\u2066hy\x00?", "i\u202ed")._repr_html_()
    assert "ab</p>" in html
    assert ">why?</div>" in html


def test_card_does_not_say_the_question_twice() -> None:
    shown = card(
        name="i", question="Why did it sink?", facts=[], text="# Why did it sink\n\nTop-heavy.\n\n# Later\n\nx"
    )
    assert shown.count("Why did it sink") == 1
    assert "Later" in shown
