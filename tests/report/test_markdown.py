"""An answer as HTML: marks are linked, and nothing hostile comes out of anything that goes in."""

from collections import Counter
from html.parser import HTMLParser

import nh3
import pytest
from _hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopplx._job import Source
from aiopplx.report._markdown import is_web, markdown

SOURCES = [Source(url=f"https://a.example/{n}", title=f"Page {n}") for n in range(1, 6)]

PLAIN = """p em strong s code pre ul li blockquote hr br div table thead tbody tr sup span h1 h2 h3 h4 h5 h6"""
ALLOWED: dict[str, set[str]] = {
    **{tag: set() for tag in PLAIN.split()},
    "ol": {"start"},
    "a": {"href", "rel", "id"},
    "th": {"style"},
    "td": {"style"},
}
CLASSES = {"div": {"wide"}, "sup": {"marks"}, "span": {"lost"}, "pre": {"plain"}}
STYLES = {f"text-align:{side}" for side in ("left", "right", "center")}


class Reader(HTMLParser):
    """Collects what is not on the list."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.text = ""
        self.elements: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        if tag not in ALLOWED:
            self.wrong.append(tag)
        for name, value in attrs:
            if name == "class":
                is_allowed = value in CLASSES.get(tag, set())
            elif name == "style":
                is_allowed = tag in ("th", "td") and value in STYLES
            elif name == "href":
                is_allowed = bool(value) and (str(value).startswith("#q1-s") or is_web(str(value)))
            else:
                is_allowed = name in ALLOWED.get(tag, set())
            if not is_allowed:
                self.wrong.append(f"{tag} {name}={value!r}")

    def handle_data(self, data: str) -> None:
        self.text += data

    handle_startendtag = handle_starttag

    def handle_comment(self, data: str) -> None:
        self.wrong.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.wrong.append("instruction")


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def html_of(text: str) -> str:
    return markdown(text, SOURCES, prefix="q1").html


@given(st.lists(st.sampled_from(HOSTILE), max_size=14).map("".join))
@settings(max_examples=1500, deadline=None)
def test_nothing_hostile_comes_out(text: str) -> None:
    html = html_of(text)
    assert read(html).wrong == []


@given(st.lists(st.sampled_from(HOSTILE), max_size=10).map("".join))
@settings(max_examples=500, deadline=None)
def test_a_second_sanitizer_changes_nothing(text: str) -> None:
    html = html_of(text)
    again = nh3.clean(
        html,
        tags=set(ALLOWED),
        attributes={tag: names - {"rel"} for tag, names in ALLOWED.items() if names},
        allowed_classes=CLASSES,
        link_rel="noopener noreferrer nofollow",
        url_schemes={"http", "https"},
    )
    assert read(again).elements == read(html).elements
    assert read(again).text == read(html).text


@pytest.mark.parametrize(
    "text", ["> " * 5000 + "x", "- " * 5000 + "x", "*" * 20_000, "[" * 20_000, "`" * 9999, "| " * 9999]
)
def test_a_pathological_answer_ends_and_is_shown(text: str) -> None:
    assert read(html_of(text)).wrong == []


def test_too_deep_an_answer_is_shown_as_plain_text() -> None:
    assert html_of("> " * 30 + "deep").startswith('<pre class="plain">')


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
