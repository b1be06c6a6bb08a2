"""Reasoning is told apart from the answer in every shape, and no word of either is lost."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiopplx._text.thought import joined, split, thought_in

TAGS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<THINK>", "</Think>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ('<think time="3">', "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|think|>", "<|/think|>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<|start_of_reasoning|>", "<|end_of_reasoning|>"),
    ("<|begin_thought|>", "<|end_thought|>"),
    ("<internal_monologue>", "</internal_monologue>"),
    ("<inner_thoughts>", "</inner_thoughts>"),
    ("<chain_of_thought>", "</chain_of_thought>"),
    ("<|channel>thought\n", "<channel|>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_thought_between_any_tags_is_the_reasoning(opening: str, closing: str):
    assert split(f"{opening}Hm, so.{closing}The answer.") == ("Hm, so.", "The answer.")
    assert split(f"\n {opening}\nHm, so.\n{closing}\n\nThe answer.\n") == ("Hm, so.", "The answer.\n")
    assert split(f"{opening}never closed") == (None, f"{opening}never closed")


@pytest.mark.parametrize(("opening", "closing"), [tags for tags in TAGS if tags[0] != "[THINK]"])
def test_thought_without_its_opening_tag_is_the_reasoning(opening: str, closing: str):
    assert split(f"Hm, so.\n{closing}\n\nThe answer.") == ("Hm, so.", "The answer.")
    assert split(f"Hm, so.{closing}The answer.") == ("Hm, so.", "The answer.")


@pytest.mark.parametrize(
    ("content", "reasoning", "text"),
    [
        ("<think>a <think>b</think> c</think>d", "a <think>b</think> c", "d"),
        ("<think>a</think>\n<think>b</think>c", "a\n\nb", "c"),
        ("<think>a</think><thinking>b</thinking>c", "a\n\nb", "c"),
        ("<think>the tag <think> opens</think>d", "the tag <think> opens", "d"),
        ("<think>it ends with `</think>`, so</think>d", "it ends with `</think>`, so", "d"),
        ("<think>\n```\n</think>\n```\nso</think>d", "```\n</think>\n```\nso", "d"),
        ("<think>```\nnever closed\n</think>d", "```\nnever closed", "d"),
        ("<think>a</think>it ends with </think>", "a", "it ends with </think>"),
        ("<think>a</thinking>b", "a", "b"),
        ("a `</think>` b\n</think>\nc", "a `</think>` b", "c"),
        ("a<br>b\n</think>\nc", "a<br>b", "c"),
    ],
)
def test_nested_repeated_and_mentioned_tags_are_told_apart(content: str, reasoning: str, text: str):
    assert split(content) == (reasoning, text)


@pytest.mark.parametrize(
    "content",
    [
        "plain",
        "",
        "It says <think>a</think>.",
        "Close it with `</think>` in time.",
        'Close it with "</think>" in time.',
        "The tag </think> ends it.",
        "It ends with </think>.",
        "```html\n<think>a</think>\n```\nis how it looks.",
        "```\n</think>\n```\nis the end.",
        "`<think>` opens and `</think>` closes.",
        "1 < 2 and a </b> tag, <br/> too",
        "<thinker>a</thinker>b",
        "<think",
    ],
)
def test_text_that_only_mentions_tags_stays_as_it_is(content: str):
    assert split(content) == (None, content)


def test_text_without_reasoning_is_not_copied():
    content = "The answer [1]. " * 100
    assert split(content)[1] is content


PIECES = st.sampled_from(["a", " ", "\n", "`", "```\n", '"', *(tag for tags in TAGS for tag in tags)])


@example("a<|channel>thought\n</think>")
@given(st.lists(PIECES, max_size=25).map("".join))
def test_splitting_any_content_loses_no_word(content: str):
    reasoning, text = split(content)
    tags = "|".join(re.escape(tag.strip()) for pair in TAGS for tag in pair)

    def words(*parts: str) -> str:
        return re.sub(rf"\s|{tags}", "", "".join(parts))

    assert words(reasoning or "", text) == words(content)


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think>",
        "<think></think>",
        "`</think>",
        "```\n</think>\n",
        "< /think> ",
        "a </think> b ",
        "</",
        "<|",
    ],
)
def test_hostile_content_is_split_in_linear_steps(piece: str):
    # A quadratic search would take minutes for this many.
    reasoning, text = split("x" + piece * (400_000 // len(piece)))
    assert text or reasoning is not None


@pytest.mark.parametrize(
    ("value", "thought"),
    [
        ("Hm.", "Hm."),
        ("", None),
        (None, None),
        (5, None),
        ({"type": "thinking", "thinking": "Hm."}, "Hm."),
        ({"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, "Hm."),
        ([{"type": "reasoning.text", "text": "Hm."}, {"type": "reasoning.encrypted", "data": "x"}], "Hm."),
        ([{"type": "reasoning.summary", "summary": "Hm."}, "So."], "Hm.\n\nSo."),
    ],
)
def test_thought_is_read_from_a_field_in_any_form(value: object, thought: str | None):
    assert thought_in(value) == thought


@pytest.mark.parametrize(
    "form", [lambda inner: [inner], lambda inner: {"text": inner}, lambda inner: [{"text": inner}]]
)
def test_thought_is_not_looked_for_without_end(form: Callable[[object], object]):
    value: object = "Hm."
    for _ in range(3):
        value = form(value)
    assert thought_in(value) == "Hm."
    for _ in range(2 * sys.getrecursionlimit()):
        value = form(value)
    assert thought_in(value) is None


def test_thought_said_in_two_places_is_there_once():
    assert joined(["Hm, so.", None, "Hm, so."]) == "Hm, so."
    assert joined(["Hm.", "So."]) == "Hm.\n\nSo."
    assert (joined([None]), joined([]), joined([""])) == (None, None, "")
