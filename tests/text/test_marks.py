"""Citation marks in every form name their sources, and those that name none are counted."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._job import Source
from aiopplx._text.marks import cited, marks, unresolved

PLACES = [Source(url=f"https://{place}.example") for place in range(1, 8)]
NUMBERED = [Source(url=f"https://{number}.example", id=number) for number in (9, 3, 14, 1)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a [3].", {"[3]": 3}),
        ("a [1, 2].", {"[1]": 1, "[2]": 2}),
        ("a [1,2;4].", {"[1]": 1, "[2]": 2, "[4]": 4}),
        ("a [5-7].", {"[5]": 5, "[6]": 6, "[7]": 7}),
        ("a [5\N{EN DASH}7].", {"[5]": 5, "[6]": 6, "[7]": 7}),
        ("a [1, 3-4].", {"[1]": 1, "[3]": 3, "[4]": 4}),
        ("a [2][1].", {"[2]": 2, "[1]": 1}),
        ("a\u30103\u3011\u30104\u2020source\u3011 and [1].", {"[3]": 3, "[4]": 4, "[1]": 1}),
        ("a\u30101, 5-6\u3011.", {"[1]": 1, "[5]": 5, "[6]": 6}),
        ("a [web:0].", {"[web:0]": 1}),
        ("a [1](https://x.example) [1]: https://x.example", {}),
        ("a `x[1]` b\n```\nx[2]\n```\nc [3]", {"[3]": 3}),
        ("```\nnever closed [2]", {"[2]": 2}),
        ("[] [a] [1 2] [-1] [1,]", {}),
    ],
)
def test_marks_without_ids_count_places(text: str, named: dict[str, int]):
    found = {mark: source.url for mark, source in cited(text, PLACES).items()}
    assert found == {mark: f"https://{place}.example" for mark, place in named.items()}
    assert list(found) == list(named)
    assert unresolved(text, PLACES) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a [web:9,14].", {"[web:9]": 9, "[web:14]": 14}),
        ("a [web:9, web:14].", {"[web:9]": 9, "[web:14]": 14}),
        ("a [3, 1].", {"[3]": 3, "[1]": 1}),
    ],
)
def test_marks_with_ids_name_the_ids(text: str, named: dict[str, int]):
    found = {mark: source.url for mark, source in cited(text, NUMBERED).items()}
    assert found == {mark: f"https://{number}.example" for mark, number in named.items()}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a [8] and [9] and [8] again", 2),
        ("a [6-9]", 2),
        ("a [web:7]", 1),
        ("in [2026], from [1990-2020], [0]", 0),
        ("[1]", 0),
        ("`[9]`", 0),
    ],
)
def test_marks_that_name_nothing_are_counted_once_each(text: str, count: int):
    assert len(unresolved(text, PLACES)) == count


def test_every_mark_of_an_answer_without_sources_is_unresolved():
    assert unresolved("a [2], b [1], c [2]", []) == ["[2]", "[1]"]


@given(st.text(alphabet="[]web:0123,- `(\n", max_size=60), st.lists(st.integers(0, 3) | st.none(), max_size=4))
def test_each_mark_is_cited_or_unresolved(text: str, ids: list[int | None]):
    sources = [Source(url=f"https://{place}.example", id=number) for place, number in enumerate(ids)]
    found = list(marks(text, sources))
    assert {mark.name for mark in found if mark.page is not None} == set(cited(text, sources))
    assert all(text[mark.start] == "[" and text[mark.end - 1] == "]" for mark in found)


@pytest.mark.parametrize("piece", ["[", "[1", "[1,", "`", "```\n", "[1-", "[web:", "1-9", "~~~\n`"])
def test_hostile_text_is_read_in_linear_steps(piece: str):
    assert cited(piece * (200_000 // len(piece)), PLACES) in ({}, {"[1]": PLACES[0]})


CODE = [
    "    x[1]",
    "a:\n\n    x[1]\n    y[1]\n\n\ty[1]",
    "~~~py\nx[1]\n~~~",
    "~~~~\n~~~\nx[1]\n~~~~",
    "- ```\n  x[1]\n  ```",
    "1. a\n\n   ~~~\n   x[1]\n   ~~~\n\n   b",
    "> ```\n> x[1]\n> ```",
    "> - ```\n>   x[1]\n>   ```",
    "a `x\n[1]` b",
    "- a\n\n  `x\n  [1]` b",
    "a ``x ` [1]`` b",
    "a\r\n\r\n    x[1]\r\n",
    "| a | b |\n|---|---|\n| `x[1]` | c |",
    "- a\n\n    of the item\n\nb:\n\n    x[1]",
]
BLOCKS = ["- a\n\n      x[1]", "-     x[1]", "> a\n>\n>     x[1]", "> ```\n> x[1]\n\nc", "* * *\n\n    x[1]"]
"""Code that is found where markdown-it-py is installed, as for reports."""
TEXT = [
    "a\n    goes on [1]",
    "- a\n\n    of the item [1]",
    "1. a\n\n    of the item [1]\n    too [1]",
    "a \\`[1]\\` b",
    "`a\n\n[1] b` c",
    "`` a ` [1] b",
    "```\nnever closed [1]",
    "~~~\n\nnever closed [1]\n\n",
]


@pytest.fixture(params=["with the parser", "line by line"])
def is_by_line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "line by line":
        monkeypatch.setitem(sys.modules, "markdown_it", None)  # as if it were not installed
        return True
    return False


@pytest.mark.parametrize("text", CODE + BLOCKS)
def test_numbers_in_code_are_no_marks(text: str, is_by_line: bool):
    named = [] if text in CODE or not is_by_line else ["[1]"]
    assert list(cited(text, PLACES)) == named
    assert list(cited(f"{text}\n\nb [2]", PLACES)) == [*named, "[2]"]
    assert unresolved(text, []) == named


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.usefixtures("is_by_line")
def test_what_only_looks_like_code_has_marks(text: str):
    assert list(cited(text, PLACES)) == ["[1]"]


@pytest.mark.parametrize("piece", ["> ```\n", "- ~~~\n", "```\n````\n", "[1] `\n\n", "    [1]\n", "[1]`", "> ", "- "])
@pytest.mark.usefixtures("is_by_line")
def test_hostile_code_is_read_in_linear_steps(piece: str):
    cited(piece * (100_000 // len(piece)) + "[1]", PLACES)


def test_piece_of_a_line_is_no_code():
    assert [mark.name for mark in marks("    [1]", PLACES)] == ["[1]"]
