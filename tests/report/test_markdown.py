"""An answer as HTML: marks are linked, and nothing hostile comes out of anything that goes in."""

import pytest
from _hostile import HOSTILE
from _html import differs, read
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopplx._job import Source
from aiopplx.report._markdown import markdown

SOURCES = [Source(url=f"https://a.example/{n}", title=f"Page {n}") for n in range(1, 6)]


def html_of(text: str) -> str:
    return markdown(text, SOURCES, prefix="q1").html


@given(st.lists(st.sampled_from(HOSTILE), max_size=14).map("".join))
@settings(max_examples=1500, deadline=None)
def test_nothing_hostile_comes_out(text: str) -> None:
    assert read(html_of(text)).wrong == []


@given(st.lists(st.sampled_from(HOSTILE), max_size=10).map("".join))
@settings(max_examples=500, deadline=None)
def test_a_second_sanitizer_changes_nothing(text: str) -> None:
    assert differs(html_of(text)) == []


@pytest.mark.parametrize(
    "text", ["> " * 5000 + "x", "- " * 5000 + "x", "*" * 20_000, "[" * 20_000, "`" * 9999, "| " * 9999]
)
def test_a_pathological_answer_ends_and_is_shown(text: str) -> None:
    assert read(html_of(text)).wrong == []


def test_too_deep_an_answer_is_shown_as_plain_text() -> None:
    html = html_of("> " * 30 + "<b>deep")
    assert html.startswith('<pre class="plain">')
    assert read(html).wrong == []


# --- marks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a [1].", 'a<sup class="marks"><a id="q1-m1" href="#q1-s1">1</a></sup>.'),
        ("a [1][3]", '<a id="q1-m1" href="#q1-s1">1</a>,<a id="q1-m3" href="#q1-s3">3</a></sup>'),
        ("a [1, 3]", '<a id="q1-m1" href="#q1-s1">1</a>,<a id="q1-m3" href="#q1-s3">3</a></sup>'),
        ("a [2-4]", 's2">2</a>,<a id="q1-m3" href="#q1-s3">3</a>,<a id="q1-m4"'),
        ("a [web:0]", 'href="#q1-s1">1</a>'),
        ("a [9]", '<span class="lost">9?</span>'),
        ("a **b [1]** c", '<strong>b<sup class="marks">'),
        ("| x |\n|---|\n| y [2] |", 'href="#q1-s2">2</a></sup></td>'),
    ],
)
def test_marks_are_linked_to_sources(text: str, shown: str) -> None:
    assert shown in html_of(text)


@pytest.mark.parametrize("text", ["`[1]`", "```\n[1]\n```", "[1](https://a.example)", "[see [1]](https://a.example)"])
def test_numbers_in_code_and_links_are_no_marks(text: str) -> None:
    assert "<sup" not in html_of(text)


def test_where_a_source_is_cited_is_known() -> None:
    answer = markdown("a [1] b [1, 2] c [9]", SOURCES, prefix="q1")
    assert answer.times == {1: 2, 2: 1}
    assert answer.first == {1: "q1-m1", 2: "q1-m2"}
    assert answer.html.count('id="q1-m1"') == 1


# --- the rest


def test_headings_sink_and_the_question_is_not_repeated() -> None:
    answer = markdown("# Why did it sink?\n\n## So\n\ntext", [], prefix="q1", without="Why did it  sink")
    assert answer.html == "<h4>So</h4>\n<p>text</p>\n"


def test_images_are_named_and_not_loaded() -> None:
    assert html_of('![a "chart"](https://a.example/x.png)') == "<p>[image: a &quot;chart&quot;]</p>\n"


def test_raw_html_is_shown_as_text() -> None:
    assert "&lt;b&gt;bold&lt;/b&gt;" in html_of("<b>bold</b>")


def test_a_table_scrolls_in_its_own_box() -> None:
    html = html_of("| a |\n|--:|\n| 1 |")
    assert html.startswith('<div class="wide"><table>')
    assert html.rstrip().endswith("</table></div>")
    assert 'style="text-align:right"' in html
