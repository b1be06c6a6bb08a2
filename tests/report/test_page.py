"""The report: what needs a look comes first, and a browser that shows it asks for nothing."""

import re
from html import escape

from markdown_it import MarkdownIt

from aiopplx import InDoubt, Job, JobFailed, JobStatus
from aiopplx._job import Answer, Source, Usage
from aiopplx.report import html_report, markdown_report
from aiopplx.report._page import index

SOURCES = [Source(url=f"https://a.example/{n}", title=f"Page {n}", date="2026-03-01") for n in range(1, 4)]


class Answered:
    def __init__(self, text: str, sources: list[Source], finish_reason: str | None = None) -> None:
        self._answer = Answer(text=text, sources=sources, usage=Usage(cost=0.5), finish_reason=finish_reason)

    def answer(self) -> Answer:
        return self._answer

    def consumed(self) -> Usage | None:
        return self._answer.usage

    def is_on_the_way(self) -> bool:
        return False


def done(question: str, text: str, sources: list[Source] = SOURCES, finish_reason: str | None = None) -> Job:
    answer = Answered(text, sources, finish_reason)
    return Job(
        id="i", status=JobStatus.COMPLETED, question=question, seconds=61.0, meta={"year": 2025}, response=answer
    )


JOBS = [
    done(
        "Why <did> it sink?", "# Why <did> it sink?\n\nTop-heavy [1] and [9].\n\n## Later\n\n- a [2]\n\n```\n[1]\n```"
    ),
    Job(status=JobStatus.FAILED, question="Second?", error=JobFailed("search failed")),
    Job(status=JobStatus.IN_DOUBT, question="Third?", error=InDoubt("no usable answer came")),
    done("Fourth?", "cut off", finish_reason="length"),
    done("Fifth?", "no sources", []),
    done("\u202eSixth?\u0007", "fine [3]"),
]


def html() -> str:
    return "".join(html_report(JOBS, title="A & B", day="26 November 2026", source="c.csv"))


def test_what_needs_a_look_comes_first() -> None:
    page = html()
    look = page[page.index("To look at") : page.index('id="contents"')]
    for word in ("citations", "failed", "in doubt", "cut", "no sources"):
        assert f">{word}</b>" in look
    assert look.count("<li>") == 5
    assert page.index("To look at") < page.index('id="contents"') < page.index('<article id="q1">')


def test_page_of_good_answers_warns_of_nothing() -> None:
    assert "To look at" not in "".join(html_report([done("Why?", "Top-heavy [1].")]))


def test_numbers_of_the_whole_are_right() -> None:
    page = html()
    assert "<b>6</b><span>questions" in page
    assert "<b>4</b><span>done" in page
    assert "<b>$2.00 <small>+ 1 unknown</small></b><span>cost" in page
    assert "<b>1 min 1 s</b><span>half took under" in page


def test_running_and_unsent_jobs_have_not_failed() -> None:
    page = "".join(
        html_report([
            done("First?", "Top-heavy [1]."),
            Job(id="j", status=JobStatus.TIMED_OUT, question="Second?", error=JobFailed("not finished yet")),
            Job(status=JobStatus.STOPPED, question="Third?", error=JobFailed("$5 reached")),
        ])
    )
    assert ">failed<" not in page
    for word in ("still running", "not sent"):
        assert f"<b>1</b><span>{word}</span>" in page
        assert f'<b class="doubt">{word}</b>' in page
        assert f'<span class="fact doubt">{word}</span>' in page
    assert "<b>$0.50 <small>+ 1 unknown</small></b>" in page  # the one that runs


def test_page_of_one_answer_needs_no_contents() -> None:
    page = "".join(html_report([done("Why?", "Top-heavy [1].")], title="Ships", day="26 November 2026"))
    assert '<p class="facts" dir="auto"><span>Ships</span><span>26 November 2026</span></p>' in page
    assert 'id="contents"' not in page
    assert "#contents" not in page
    assert page.count("Why?") == 1


def test_page_without_a_list_leaves_no_room() -> None:
    assert '<body class="listed">\n<nav>' in html()
    for page in html_report([done("Why?", "Top-heavy [1].")]), index([], title="Ships"):
        assert "<body>\n<main" in "".join(page)


def test_unknown_question_still_has_a_heading() -> None:
    """A job that was read by its id does not say what was asked."""
    page = "".join(html_report([done("", "# Why the Vasa sank\n\nTop-heavy [1].")]))
    assert '<h2 dir="auto">Why the Vasa sank</h2>' in page
    assert page.count("Why the Vasa sank") == 1
    assert '<h2 dir="auto">question 1</h2>' in "".join(html_report([done("", "Top-heavy [1].")]))


def test_source_marked_twice_side_by_side_is_one_number() -> None:
    page = "".join(html_report([done("Why?", "Top-heavy [1][1, 2][9][9]. Late [1].")]))
    shown = [re.findall(r">([^<]+)</", group) for group in re.findall(r'<sup class="marks">(.*?)</sup>', page)]
    assert shown == [["1", "2", "9?"], ["1"]]
    assert "cited 3 times" in page


def test_sources_know_where_they_are_cited() -> None:
    page = html()
    assert '<a class="up" href="#q1-m1">' in page
    assert page.count("cited once") == 3
    assert "not cited" in page


def test_the_question_is_not_repeated_by_the_answer() -> None:
    assert html().count("Why &lt;did&gt; it sink?") == 3  # the list at the side, the contents, the heading


def test_text_that_hides_or_turns_is_removed() -> None:
    assert "\u202e" not in html()


def test_titles_of_sources_hide_nothing_and_turn_nothing() -> None:
    hidden = [Source(url="https://a.example/\u202e1", title="P\u202eage", date="2026\u200b-03-01T00")]
    for text in (html_report([done("Why?", "a [1]", hidden)]), markdown_report([done("Why?", "a [1]", hidden)])):
        said = "".join(text)
        assert not {"\u202e", "\u200b"} & set(said)
        assert "2026-03-01" in said
        assert "T00" not in said


def test_lines_of_markdown_begin_with_no_markup_of_others() -> None:
    for line in ("~~~", "- a", "+ a", "1. a", "12) a", "===", "# a", "> a", "&lt;b&gt;"):
        job = Job(status=JobStatus.FAILED, question=line, meta={line: f"{line} too"}, error=JobFailed(line))
        html = MarkdownIt("commonmark").render("".join(markdown_report([job])))
        shown = escape(line)
        assert f"<h1>{shown}</h1>" in html
        assert f"<li>{shown}: {shown} too</li>" in html
        assert f"<strong>failed</strong>: {shown}</p>" in html


def test_column_that_is_asked_stands_above_alone() -> None:
    job = Job(status=JobStatus.FAILED, question="Why now?", meta={"prompt": " Why now? ", "firm": "ACME"})
    for said in ("".join(html_report([job])), "".join(markdown_report([job]))):
        assert "ACME" in said
        assert "prompt" not in said


def test_the_page_forbids_scripts_and_requests_before_anything_else() -> None:
    assert html().index("Content-Security-Policy") < html().index("<title>")
    assert "<script" not in html()
    assert not [word for word in ("src=", "url(", "@import") if word in html()]


def test_an_empty_report_is_a_page() -> None:
    assert "".join(html_report([])).endswith("</html>\n")


def test_markdown_has_the_same_with_linked_marks() -> None:
    text = "".join(markdown_report(JOBS, title="A & B"))
    assert text.startswith("# A & B\n")
    assert r"Top-heavy [1](#q1-s1) and \[9\] (?)." in text
    assert 'href="?"' not in MarkdownIt().render(text)
    assert "\n### Later" in text.replace("#### Later", "### Later")
    assert "```\n[1]\n```" in text
    assert '1. <a id="q1-s1"></a>[Page 1](<https://a.example/1>), 2026-03-01' in text
