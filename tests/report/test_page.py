"""The report: what needs a look comes first, and a browser that shows it asks for nothing."""

import asyncio
import shutil
from pathlib import Path

import pytest
from _hostile import HOSTILE

from aiopplx import InDoubt, Job, JobFailed, JobStatus
from aiopplx._job import Answer, Source, Usage
from aiopplx.report import html_report, markdown_report
from aiopplx.report._entry import shown

SOURCES = [Source(url=f"https://a.example/{n}", title=f"Page {n}", date="2026-03-01") for n in range(1, 4)]


class Answered:
    def __init__(self, text: str, sources: list[Source], finish_reason: str | None = None) -> None:
        self._answer = Answer(text=text, sources=sources, usage=Usage(cost=0.5), finish_reason=finish_reason)

    def answer(self) -> Answer:
        return self._answer


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


def test_a_page_of_good_answers_has_nothing_to_look_at() -> None:
    assert "To look at" not in "".join(html_report([done("Why?", "Top-heavy [1].")]))


def test_numbers_of_the_whole_are_right() -> None:
    page = html()
    assert "<b>6</b><span>questions" in page
    assert "<b>4</b><span>done" in page
    assert "<b>$2.00 <small>+ 1 unknown</small></b><span>cost" in page
    assert "<b>1 min 1 s</b><span>half took under" in page


def test_sources_know_where_they_are_cited() -> None:
    page = html()
    assert '<a class="up" href="#q1-m1">' in page
    assert page.count("cited once") == 3
    assert "not cited" in page


def test_the_question_is_not_repeated_by_the_answer() -> None:
    assert html().count("Why &lt;did&gt; it sink?") == 3  # the list at the side, the contents, the heading


def test_text_that_hides_or_turns_is_removed() -> None:
    assert "\u202e" not in html()
    assert shown("a\u200bb\u0000c\u202ed\ud800") == "abcd"
    assert shown("\U0001f469\u200d\U0001f680 a\nb\tc") == "\U0001f469\u200d\U0001f680 a\nb\tc"


def test_the_page_forbids_scripts_and_requests_before_anything_else() -> None:
    assert html().index("Content-Security-Policy") < html().index("<title>")
    assert "<script" not in html()
    assert "src=" not in html()


def test_an_empty_report_is_a_page() -> None:
    assert "".join(html_report([])).endswith("</html>\n")


def test_markdown_has_the_same_with_linked_marks() -> None:
    text = "".join(markdown_report(JOBS, title="A & B"))
    assert text.startswith("# A & B\n")
    assert "Top-heavy [1](#q1-s1) and [9](?)." in text
    assert "\n### Later" in text.replace("#### Later", "### Later")
    assert "```\n[1]\n```" in text
    assert '1. <a id="q1-s1"></a>[Page 1](<https://a.example/1>), 2026-03-01' in text


@pytest.mark.slow
async def test_a_browser_shows_it_without_a_request_or_a_script(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bait = f"![a](http://127.0.0.1:{port}/i.png) <img src=http://127.0.0.1:{port}/j.png> "
    bait += f"<script>fetch('http://127.0.0.1:{port}/k')</script><link rel=stylesheet href=http://127.0.0.1:{port}/l>"
    jobs = [done("Why?" + bait, bait + "\n\n".join(HOSTILE)), *JOBS]
    path = tmp_path / "report.html"
    path.write_text("".join(html_report(jobs, title=bait)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    process = await asyncio.create_subprocess_exec(
        browser, *options, f"--user-data-dir={tmp_path}/profile", path.as_uri(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    seen, _ = await process.communicate()
    server.close()
    await server.wait_closed()
    assert asked == []
    assert b"<article" in seen
    assert b"<script" not in seen
