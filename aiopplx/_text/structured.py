"""JSON in a text that has other things in it too: where it can begin, and which of it decodes into a type.

Models write JSON between words, in a Markdown fence, after a draft, before a remark, and they use brackets for other
things: `{placeholders}`, `[citations]`, `[links](...)`. So each place where JSON can begin is tried, those in fences
first, until one decodes into the type. What lies inside JSON that was cut off, or that is whole and of another shape,
is not tried: a part of an answer would pass for the answer.

The time grows with the length of the text, whatever is in it: a failed attempt goes on where it failed, and the few
that cannot are counted. This module knows nothing of jobs, or of how a value is decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_CITATION = r"\[(?:web:)?\d{1,6}\]"
_BEGINNING = re.compile(r"[\[{]")
_BRACKETS = re.compile(r"[\[{\s]+")
# Braces in prose are no JSON: an object begins with a name and a colon, or is empty.
_OBJECT = re.compile(r'\{\s*(?:\}|"(?:[^"\\\n]|\\.){0,1000}"\s*:)')
_FENCE = r"(?m)^[ \t]*(`{3,}|~{3,})(.*)$"
_QUOTED = r"(?m)^[ \t]*>[ \t]?"
"""The beginning of a line of a quotation in Markdown, where JSON of several lines has it in each."""
_SCANNER = json.JSONDecoder()
_MOST = 10_000
"""Places at which JSON may begin and goes wrong, before the rest is passed over: each costs a look at the lines before
it."""
_TOO_DEEP = 16
"""Times that JSON may be nested too deeply to be read, before the rest is passed over."""


def find_json(text: str, decode: Callable[[str], T]) -> T:
    """The first JSON of a text that `decode` takes.

    Args:
        text: any text.
        decode: makes a value of exactly one JSON value, or raises `ValueError` or `RecursionError`.

    Raises:
        ValueError, RecursionError: nothing could be decoded. It is what `decode` said of the first JSON that is whole,
            since that tells more than what it says of a text that is no JSON; else what it said of the whole text.
    """
    whole = text.strip()
    problem: Exception
    try:
        return decode(whole)
    except (ValueError, RecursionError) as error:
        problem = error
    is_of_json = _end_of(whole, 0)[1]
    for candidate in _candidates(whole):
        try:
            return decode(candidate)
        except (ValueError, RecursionError) as error:
            if not is_of_json:
                problem, is_of_json = error, True
    raise problem


def _candidates(text: str) -> Iterator[str]:
    """JSON values that are whole, the likeliest first."""
    for block in _fenced(text):
        yield from _values(block, block)
    # Citations in the words round the JSON are passed over first: `[1]` is JSON too.
    masked = re.sub(_CITATION, lambda mark: " " * len(mark[0]), text)
    yield from _values(text, masked)
    if masked != text:
        yield from _values(text, text)
    if (unquoted := re.sub(_QUOTED, "", text)) != text:
        yield from _candidates(unquoted)


def _fenced(text: str) -> Iterator[str]:
    """What stands in Markdown fences; the last one may not be closed."""
    start, opening = -1, ""
    for fence in re.finditer(_FENCE, text):
        if start < 0:
            start, opening = fence.end(), fence[1]
        elif fence[1].startswith(opening) and not fence[2].strip():
            yield text[start : fence.start()]
            start = -1
    if start >= 0:
        yield text[start:]


def _values(text: str, shape: str) -> Iterator[str]:
    """Each object and array of a text that is not part of another; `shape` is the text without some of its brackets."""
    at = 0
    wrong = too_deep = 0
    while wrong < _MOST and too_deep < _TOO_DEEP and (beginning := _BEGINNING.search(shape, at)) is not None:
        start = beginning.start()
        if text[start] == "{" and _OBJECT.match(text, start) is None:
            at = start + 1
            continue
        end, is_whole = _end_of(text, start)
        if is_whole:
            yield text[start:end]
        elif end < 0:
            too_deep += 1
            brackets = _BRACKETS.match(text, start)
            end = brackets.end() if brackets is not None else start
        else:
            wrong += 1
        at = max(end, start + 1)


def _end_of(text: str, start: int) -> tuple[int, bool]:
    """Where the JSON that begins at `start` ends, or goes wrong (-1: it is nested too deeply); whether it is whole."""
    try:
        return _SCANNER.raw_decode(text, start)[1], True
    except json.JSONDecodeError as error:
        return error.pos, False
    except RecursionError:
        return -1, False
