"""JSON is found wherever a model puts it, and a part of an answer never passes for the answer."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._text.structured import find_json


class Verdict(msgspec.Struct):
    valid: bool


DECODE = msgspec.json.Decoder(Verdict).decode
WORDS = st.text(alphabet='ab {}[]()":,1`~\n', max_size=25)


@pytest.mark.parametrize(
    "text",
    [
        'Use the {name} template: {"valid": true}',
        '{"valid": true}\n\nReplace {foo}.',
        '{"valid": true} [citation needed]',
        'Draft: {"valid": false}\n\n```json\n{"valid": true}\n```',
        'Rate [1-5]: {"valid": true}',
        'See [docs](http://x): {"valid": true}',
        'Use {"name} here: {"valid": true}',
        '{"valid": 1} is wrong; {"valid": true} is right',
        '[1, 2] are [web:9,14]; {"valid": true}',
        '```python\nx = {}\n```\n```\n{"valid": true}\n```',
        '~~~json\n{"valid": true}\n~~~',
        '```json\n{"valid": true}',
        '- item\n  ```json\n  {"valid": true}\n  ```',
        '```json {"valid": true} ```',
        '```json\n// the verdict\n{"valid": true}\n```',
        '{} {"valid": true}',
        '{"other": {"valid": 5}} {"valid": true}',
        '{{name}} and {"valid":true}}',
        '> ```json\n> {"valid":\n> true}\n> ```',
        'So:\n> {\n>   "valid": true\n> }',
    ],
)
def test_first_json_of_the_type_is_taken_fences_first(text: str):
    assert find_json(text, DECODE) == Verdict(True)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("Both count [1][web:2]: [4, 5]", [4, 5]), ("[3] The list is [4, 5].", [4, 5]), ("The list is [7].", [7])],
)
def test_citation_is_the_answer_only_if_nothing_else_is(text: str, numbers: list[int]):
    assert find_json(text, msgspec.json.Decoder(list[int]).decode) == numbers


@pytest.mark.parametrize(
    "text",
    [
        '{"first": {"valid": true}, "second": [1, 2',
        '{"first": {"valid": true}, "second": "cut he',
        '[{"valid": true}]',
        '{"inner": {"valid": true}}',
        '{"valid": true',
    ],
)
def test_part_of_other_or_broken_json_is_not_taken(text: str):
    with pytest.raises(ValueError, match=r"\w"):
        find_json(text, DECODE)


@given(WORDS, st.booleans())
def test_fenced_json_is_found_after_any_words(words: str, valid: bool):
    before = words.replace("`", "").replace("~", "")
    assert find_json(f"{before}\n```json\n{json.dumps({'valid': valid})}\n```\n", DECODE) == Verdict(valid)


@given(st.text(alphabet='{}[]":,1at`\n\\', max_size=60))
def test_any_text_is_decoded_or_refused(text: str):
    with contextlib.suppress(ValueError):
        assert isinstance(find_json(text, DECODE), Verdict)


def test_complaint_is_about_the_first_whole_json():
    with pytest.raises(ValueError, match=r"Expected `bool`, got `int` - at `\$\.valid`"):
        find_json('It is {not} {"valid": 5}.', DECODE)


HOSTILE = ["[", "{", "[1,", '{"a":', '{"a":1,', '"{', "```\n", '["', "[1]", '{"', '{"a":[}', '{"a":[', "{ ", "[[1]"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_is_refused_in_bounded_steps(piece: str):
    tried = 0

    def decode(text: str) -> Verdict:
        nonlocal tried
        tried += len(text)
        return DECODE(text)

    text = piece * (200_000 // len(piece))
    with pytest.raises((ValueError, RecursionError)):
        find_json(text, decode)
    assert tried <= 4 * len(text)
