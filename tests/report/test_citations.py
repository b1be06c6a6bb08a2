"""Whatever form a citation has, it leads to the same source wherever an answer is shown.

One that leads nowhere is named. A table of answers, each with the places (from 1) that its marks name, and the marks
that name nothing.
"""

from __future__ import annotations

import re

import pytest

from aiopplx import Job, JobStatus
from aiopplx._job import Answer, Source, Usage
from aiopplx.cli._reports import _sources
from aiopplx.cli._show import on_paper
from aiopplx.report import html_report, markdown_report

PLAIN = [Source(url=f"https://a.example/{n}", title=f"Page {n}") for n in range(1, 16)]
# Of parallel searches: in any order, each with the number by which it is cited.
NUMBERED = [Source(url=f"https://a.example/{n}", title=f"Page {n}", id=n) for n in (9, 14, 3, 1, 5, 6, 7, 2)]

FORMS: list[tuple[str, list[Source], list[int], list[str]]] = [
    ("a [1].", PLAIN, [1], []),
    ("a [1][3] b [3].", PLAIN, [1, 3], []),
    ("a [1, 2].", PLAIN, [1, 2], []),
    ("a [5-7].", PLAIN, [5, 6, 7], []),
    ("a [5\N{EN DASH}7].", PLAIN, [5, 6, 7], []),
    ("a [web:9,14].", PLAIN, [10, 15], []),
    ("a [web:0].", PLAIN, [1], []),
    ("a [1].", NUMBERED, [4], []),
    ("a [web:9,14].", NUMBERED, [1, 2], []),
    ("a [5-7] b [web:3].", NUMBERED, [5, 6, 7, 3], []),
    ("a [4] b [1, 8] c [4].", NUMBERED, [4], ["[4]", "[8]"]),
    ("a [16] b [web:15, 16].", PLAIN, [], ["[16]", "[web:15]", "[web:16]"]),
    ("a [5-7].", PLAIN[:5], [5], ["[6]", "[7]"]),
    ("`[1]` [1](https://a.example) [1990-2020]", PLAIN, [], []),
]


class Answered:
    def __init__(self, text: str, sources: list[Source]) -> None:
        self._answer = Answer(text=text, sources=sources)

    def answer(self) -> Answer:
        return self._answer

    def consumed(self) -> Usage | None:
        return self._answer.usage

    def is_on_the_way(self) -> bool:
        return False


@pytest.fixture(params=FORMS, ids=[f"{text} {'numbered' if of is NUMBERED else len(of)}" for text, of, *_ in FORMS])
def form(request: pytest.FixtureRequest) -> tuple[Job, list[int], list[str]]:
    text, sources, places, lost = request.param
    job = Job(id="i", status=JobStatus.COMPLETED, question="Why?", response=Answered(text, sources))
    return job, places, lost


Form = tuple[Job, list[int], list[str]]


def test_the_job_knows_what_its_marks_name(form: Form) -> None:
    job, places, lost = form
    found = list(dict.fromkeys(job.sources.index(source) + 1 for source in job.cited.values()))
    assert (found, job.unresolved) == (places, len(lost))


def test_page_links_marks_and_names_the_rest(form: Form) -> None:
    job, places, lost = form
    page = "".join(html_report([job]))
    assert list(dict.fromkeys(map(int, re.findall(r'href="#q1-s(\d+)"', page)))) == places
    shown = [f"[{mark}]" for mark in re.findall(r'<span class="lost">(.*?)\?</span>', page)]
    assert list(dict.fromkeys(shown)) == lost
    named = re.search(r"citations? without a source(.*?)</p>", page)
    assert ([] if named is None else re.findall(r"\[.*?\]", named[1])) == lost
    assert named is None or named[1].endswith(" They have a question mark." if lost[1:] else " It has a question mark.")


def test_the_card_links_the_same(form: Form) -> None:
    job, places, lost = form
    card = job._repr_html_()
    assert list(dict.fromkeys(map(int, re.findall(r'href="#aiopplx-i-s(\d+)"', card)))) == places
    assert (f"{len(lost)} citation" in card) is bool(lost)


def test_markdown_links_the_same(form: Form) -> None:
    job, places, lost = form
    text = "".join(markdown_report([job]))
    assert list(dict.fromkeys(map(int, re.findall(r"\]\(#q1-s(\d+)\)", text)))) == places
    assert set(re.findall(r"\\(\[[\w:]+)\\\] \(\?\)", text)) == {mark[:-1] for mark in lost}
    said = re.search(r"\*\*citations\*\*: (.*)", text)
    assert ([] if said is None else re.findall(r"\\(\[.*?)\\(\])", said[1])) == [(mark[:-1], "]") for mark in lost]


def test_printed_list_says_which_marks_name_a_line(form: Form) -> None:
    job, places, _ = form
    lines = on_paper(job).partition("## Sources\n\n")[2].splitlines()
    for mark, source in job.cited.items():
        place = job.sources.index(source) + 1
        line = lines[place - 1]
        assert line.startswith(f"{place}. {source.title}")
        assert mark == f"[{place}]" or mark in line
    assert [place for place, line in enumerate(lines, 1) if line.endswith("]")] <= sorted(places)


def test_sheet_says_which_marks_name_a_row(form: Form) -> None:
    job, places, _ = form
    rows = list(_sources([job]))
    assert sorted(row["n"] for row in rows if row["cited"]) == sorted(places)
    assert {mark for row in rows for mark in str(row["cited"]).split(", ") if mark} == set(job.cited)


def test_only_the_first_of_many_lost_citations_are_named() -> None:
    text = " ".join(f"[{n}]" for n in range(20, 30))
    job = Job(id="i", status=JobStatus.COMPLETED, question="Why?", response=Answered(text, PLAIN))
    page = "".join(html_report([job]))
    assert "10 citations without a source in the list: [20], [21], [22], [23], [24] and 5 more" in page
