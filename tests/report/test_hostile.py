"""Whatever a model, a page or a caller's table says, a report and a notebook's card are made of known parts only.

Every text that a report shows is hostile here at once: the question, the answer, the reasoning, the columns, the
sources, errors, names. Two readers judge what came out (`_html.py`), and a table shows that they find what they are
there for.
"""

from __future__ import annotations

import pytest
from _hostile import HOSTILE
from _html import ANSWER, CLASSES, differs, read
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from aiopplx import InDoubt, Job, JobFailed, JobStatus
from aiopplx._job import Answer, Source, Usage
from aiopplx.report import html_report, markdown_report

texts = st.lists(st.sampled_from(HOSTILE), max_size=5).map("".join)
addresses = st.tuples(st.sampled_from(["", "https://a.example/", "javascript://a.example/"]), texts).map("".join)

_BARE = "head body title style small nav dt dl details summary"
PAGE = ANSWER | {
    **{tag: set[str]() for tag in _BARE.split()},
    "html": {"lang"},
    "meta": {"http-equiv", "content", "charset", "name"},
    "main": {"id"},
    "p": {"dir", "id"},
    "article": {"id"},
    "li": {"id"},
    "a": {"href", "rel", "id", "dir"},
    **{tag: {"dir"} for tag in ["h1", "h2", "span", "b", "div", "dd", "footer"]},
}
_OURS = "listed|small|ui|facts|band|label|look|contents|n|fact|failed|doubt|bare|columns|note|answer|sources|up"
PAGE_CLASSES = {
    tag: {*_OURS.split("|"), "paper", "back"} | {"small ui", "fact failed", "fact doubt", "note failed", "note doubt"}
    for tag in PAGE
}
PAGE_CLASSES = {tag: names | CLASSES.get(tag, set()) for tag, names in PAGE_CLASSES.items()}
CARD = ANSWER | {
    "div": {"style", "dir", "class"},
    "details": set(),
    "summary": {"style"},
    "li": {"id", "dir"},
    "span": {"style"},
    "sup": {"style"},
    **{f"h{n}": {"style"} for n in range(1, 7)},
    "pre": {"style"},
    "hr": {"style"},
}
CARD_CLASSES = {**CLASSES, "div": {"wide", "mathjax_ignore"}}
OUR_STYLE = r"[a-z0-9:;.# -]*"


class Answered:
    def __init__(self, text: str, said: str, url: str) -> None:
        sources = [Source(url=url, title=said, date=said, source=said), Source(url="https://a.example/1", title=None)]
        self._answer = Answer(text=text, sources=sources, usage=Usage(cost=0.5), reasoning=said, finish_reason=said)

    def answer(self) -> Answer:
        return self._answer

    def consumed(self) -> Usage | None:
        return self._answer.usage

    def is_on_the_way(self) -> bool:
        return False


def jobs(text: str, said: str, url: str) -> list[Job]:
    told = {"question": said, "tag": said, "meta": {said: said, "a": [said]}, "model": said, "server_status": said}
    return [
        Job(id=said, status=JobStatus.COMPLETED, seconds=1.0, response=Answered(text, said, url), **told),
        Job(idempotency_key=said, status=JobStatus.FAILED, error=JobFailed(said or "x"), **told),
        Job(status=JobStatus.IN_DOUBT, error=InDoubt(said or "x"), **told),
    ]


@given(texts, texts, addresses)
@settings(max_examples=150, deadline=None)
def test_a_page_is_made_of_known_parts(text: str, said: str, url: str) -> None:
    page = "".join(html_report(jobs(text, said, url), title=said, day=said, source=said))
    found = read(page, PAGE, classes=PAGE_CLASSES, anchor=r"#(?:q\d+(?:-[sm]\d+)?|contents)")
    assert found.wrong == []
    assert [found.elements[tag] for tag in ("html", "head", "title", "style", "meta", "body", "main")] == [
        1, 1, 1, 1, 5, 1, 1,
    ]  # fmt: skip
    body = page[page.index("<main") : page.index("</body>")]
    assert differs(body, PAGE) == []


@given(texts, texts, addresses)
@settings(max_examples=150, deadline=None)
def test_a_card_is_made_of_known_parts(text: str, said: str, url: str) -> None:
    for job in jobs(text, said, url):
        html = job._repr_html_()
        assert (
            read(html, CARD, classes=CARD_CLASSES, anchor=r"#aiopplx-[A-Za-z0-9-]*-s\d+", style=OUR_STYLE).wrong == []
        )
        assert differs(html, CARD) == []


@given(texts, addresses)
@settings(max_examples=150, deadline=None)
def test_markdown_has_no_markup_but_the_answers_own(said: str, url: str) -> None:
    """The answer is the model's own Markdown; nothing else becomes markup, in any parser that takes raw HTML."""
    text = "".join(markdown_report(jobs("", said, url), title=said, day=said, source=said))
    html = str(MarkdownIt("commonmark", {"html": True}).render(text))
    assert read(html, ANSWER, anchor=r"#q\d+(?:-s\d+)?").wrong == []


# Each row is what a broken renderer gives.
BROKEN = [
    "<h2>Why <b>not</b></h2><script>alert(1)</script>",
    '<p><a href="javascript:alert(1)">x</a></p>',
    '<p><a href="JaVaScRiPt:alert(1)">x</a></p>',
    '<p><a href="data:text/html,x">x</a></p>',
    '<p><a href="//x.example">x</a></p>',
    '<p><a href="#top">x</a></p>',
    '<p onclick="alert(1)">x</p>',
    '<p><img src="http://x/y.png"></p>',
    '<p><img srcset="http://x/y.png 2x"></p>',
    "<style>@import 'http://x'</style>",
    '<p style="background:url(http://x)">x</p>',
    '<td style="background:url(http://x)">x</td>',
    '<meta http-equiv="refresh" content="0;url=http://x">',
    '<link rel="stylesheet" href="http://x">',
    '<base href="http://x">',
    "<svg><use href='http://x#a'></use></svg>",
    "<math><mtext>x</mtext></math>",
    '<form action="http://x"><input autofocus></form>',
    "<iframe src='http://x'></iframe>",
    '<object data="http://x"></object>',
    "<p>a<!-- b --></p>",
    '<p class="lost">x</p>',
]


@pytest.mark.parametrize("html", BROKEN)
def test_what_a_broken_renderer_gives_is_found(html: str) -> None:
    assert read(html).wrong != []


def test_second_sanitizer_finds_what_the_first_reader_cannot_see() -> None:
    assert differs('<p>a</p><a href="https://a.example/">b</a>') == []
    assert differs("<p><table><tr><td>a</td></tr></table>") != []  # a browser closes the paragraph
    overlooked = [html for html in BROKEN if not differs(html)]
    assert len(overlooked) == 4, "addresses that are relative, a comment, a class"
