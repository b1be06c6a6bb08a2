"""What a notebook shows of a job: harmless, readable without its styles, and never typeset as mathematics."""

import re

import nh3
import pytest
from _hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopplx import Job, JobFailed, JobStatus
from aiopplx._job import Answer, Source, Usage

SOURCES = [Source(url="https://a.example/1", title="One", date="2026-03-01T10"), Source(url="javascript:alert(1)")]


class Answered:
    def __init__(self, text: str, reasoning: str = "Let me think.") -> None:
        self._answer = Answer(text=text, sources=SOURCES, usage=Usage(cost=0.94), reasoning=reasoning)

    def answer(self) -> Answer:
        return self._answer


def job_of(text: str, question: str = "Why?", job_id: str = "id-1") -> Job:
    return Job(
        id=job_id, status=JobStatus.COMPLETED, question=question, tag="t", seconds=61.0, response=Answered(text, text)
    )


def test_a_card_has_the_question_the_answer_and_the_sources() -> None:
    html = job_of("It was **top-heavy** [1].")._repr_html_()
    assert html.startswith('<div class="mathjax_ignore"')
    assert "Why?" in html
    assert "<strong>top-heavy</strong>" in html
    assert 'href="#aiopplx-id-1-s1"' in html
    assert 'id="aiopplx-id-1-s1"' in html
    assert '<a href="https://a.example/1"' in html
    assert "$0.94 \N{MIDDLE DOT} 61 s \N{MIDDLE DOT} 2 sources, 1 cited \N{MIDDLE DOT} t" in html


def test_a_job_without_an_answer_says_why() -> None:
    html = Job(status=JobStatus.FAILED, question="Why?", error=JobFailed("no <luck>"))._repr_html_()
    assert "no &lt;luck&gt;" in html
    assert "FAILED" in html


def test_a_job_is_never_shown_as_markdown() -> None:
    assert not hasattr(Job(status=JobStatus.STOPPED), "_repr_markdown_")


@given(
    st.lists(st.sampled_from(HOSTILE), max_size=10).map("".join),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)
@settings(max_examples=400, deadline=None)
def test_a_card_is_harmless_whatever_is_in_it(text: str, said: str) -> None:
    html = job_of(text, said, said or "id")._repr_html_()
    clean = nh3.clean(
        html,
        tags=set(re.findall(r"<([a-z0-9]+)", html)) - {"script", "iframe", "img", "svg", "math", "style", "object"},
        attributes={tag: {"style", "dir", "id", "class", "href", "start"} for tag in re.findall(r"<([a-z0-9]+)", html)},
        link_rel=None,
        url_schemes={"http", "https"},
    )
    assert clean.count("<a ") == html.count("<a ")
    assert re.findall(r"<(script|iframe|img|svg|style|object|embed)", html) == []
    assert re.findall(r"<[^>]*\son[a-z]+=", html) == []
    assert re.findall(r'href="(?!https?://|#aiopplx-)', html) == []


@pytest.mark.parametrize("job_id", ["a/b c", "resp_1", "'>", ""])
def test_ids_of_a_card_are_safe(job_id: str) -> None:
    html = job_of("a [1]", job_id=job_id)._repr_html_()
    assert re.findall(r'id="([^"]*)"', html)
    assert all(re.fullmatch(r"aiopplx-[A-Za-z0-9-]*", name) for name in re.findall(r'id="([^"]*)"', html))
