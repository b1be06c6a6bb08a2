"""Where the code of a Markdown text stands: fences, indented blocks and spans, in lists and quotations too.

markdown-it-py says where blocks are, if it is installed: it comes with `aiopplx[report]`, whose pages are made with it,
so that a report and the counts of a job agree. Without it blocks are found line by line, except indented ones in lists
and quotations. Spans of code are found by CommonMark's rule: a run of backquotes ends at the next run of its length, in
the same block.

This module knows nothing of what is looked for outside code.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

DEEPEST = 20
"""Levels of lists and quotations."""
_MAY_BE = re.compile(r"`|~~~| {4}|\t")
_RUNS = re.compile("`+")
_TICKS = re.compile(r"\\.|`+", re.S)
_FENCE = re.compile(r"[ \t>]*(?:(?:[-+*]|[0-9]{1,9}[.)])[ \t]+)*(`{3,}(?=[^`]*$)|~{3,})")
_CLOSING = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*$")
_INDENTED = re.compile(r"(?: {4}|\t)[ \t]*[^ \t]")
_ITEM = re.compile(r" {0,3}(?:[-+*]|[0-9]{1,9}[.)])(?:[ \t]|$)")
"""The beginning of an item of a list, of which what is indented below it is a part, and no code."""


class Span(NamedTuple):
    """Where code stands in a text: its first character, and the one after its last."""

    start: int
    end: int


def code_in(text: str) -> Sequence[Span]:
    """The code of a text, in order. A block that is never closed is not one: an answer that was cut off may end so."""
    if _MAY_BE.search(text) is None:
        return ()
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        return list(by_line(text))
    return list(_by_blocks(text, MarkdownIt("commonmark", {"html": False, "maxNesting": DEEPEST}).enable("table")))


def _by_blocks(text: str, parser: MarkdownIt) -> Iterator[Span]:
    tokens: list[Token] = []
    # The parser reads a carriage return as the end of a line, and counts no other.
    lines = re.sub(r"\r\n?", lambda end: " \n" if len(end[0]) == 2 else "\n", text).split("\n")
    parser.block.parse("\n".join(lines), parser, {}, tokens)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    last = next((number for number in range(len(lines) - 1, -1, -1) if lines[number].strip()), 0)
    first = after = 0
    for token in tokens:
        first, after = token.map or (first, after)
        if token.type == "code_block" or (token.type == "fence" and (after <= last or _closes(token, lines[last]))):
            yield Span(starts[first], min(starts[after], len(text)))
        elif token.type == "inline" and "`" in token.content:
            yield from _spans_at(token.content, _places(token.content, lines, starts, first))


def _closes(fence: Token, line: str) -> bool:
    """Whether the last line of a text closes a fence that goes on to there."""
    first, after = fence.map or (0, 0)
    found = _CLOSING.match(line)
    return after - first > 1 and found is not None and found[1].startswith(fence.markup)


def _places(content: str, lines: Sequence[str], starts: Sequence[int], first: int) -> list[tuple[int, int]]:
    """Where the lines of a block's content begin: in the content, and in the text."""
    places: list[tuple[int, int]] = []
    at = 0
    for number, line in enumerate(content.split("\n"), first):
        column = lines[number].find(line) if number < len(lines) else -1
        if column >= 0:
            places.append((at, starts[number] + column))
        at += len(line) + 1
    return places


def _spans_at(content: str, places: Sequence[tuple[int, int]]) -> Iterator[Span]:
    for span in _spans(content):
        found = [bisect_right(places, (at, 1 << 62)) - 1 for at in (span.start, span.end - 1)]
        if min(found) >= 0:
            start, end = (places[n][1] + at - places[n][0] for n, at in zip(found, (span.start, span.end), strict=True))
            yield Span(start, end)


def _spans(content: str) -> Iterator[Span]:
    """Spans of code in the content of one block."""
    ends: dict[int, list[int]] = {}
    for run in _RUNS.finditer(content):
        ends.setdefault(len(run[0]), []).append(run.start())
    at = 0
    while (found := _TICKS.search(content, at)) is not None:
        at = found.end()
        if found[0][0] != "`":
            at = found.start() + 2
            continue
        length = len(found[0])
        same = ends.get(length, [])
        n = bisect_right(same, found.start())
        if n < len(same):
            at = same[n] + length
            yield Span(found.start(), at)


def by_line(text: str) -> Iterator[Span]:
    """The code of a text where markdown-it-py is not installed."""
    lines = text.splitlines(keepends=True)
    opened = _last_fence_is_open(lines)
    fence, is_item, was_blank, is_code = "", False, True, False
    block: list[str] = []
    at = begun = 0
    for number, line in enumerate([*lines, ""]):
        start, at = at, at + len(line)
        mark = _FENCE.match(line) if number < opened else None
        is_blank = not line.strip()
        is_code = not fence and mark is None and bool(_INDENTED.match(line)) and (is_code or was_blank) and not is_item
        if (fence or mark is not None or is_blank or is_code) and block:
            yield from (Span(begun + span.start, begun + span.end) for span in _spans("".join(block)))
            block.clear()
        if fence:
            yield Span(start, at)
            closing = _CLOSING.match(line)
            fence = "" if closing is not None and closing[1].startswith(fence) else fence
        elif mark is not None:
            fence = mark[1]
        elif is_code:
            yield Span(start, at)
        elif not is_blank:
            begun = begun if block else start
            block.append(line)
            if line[:1].strip() or not _INDENTED.match(line):
                is_item = _ITEM.match(line) is not None
        was_blank = is_blank


def _last_fence_is_open(lines: Sequence[str]) -> int:
    """The number of the line with a fence that nothing closes; that of the end if there is none."""
    fence, opened = "", 0
    for number, line in enumerate(lines):
        if not fence:
            mark = _FENCE.match(line)
            fence, opened = (mark[1], number) if mark is not None else ("", 0)
        elif (closing := _CLOSING.match(line)) is not None and closing[1].startswith(fence):
            fence = ""
    return opened if fence else len(lines)
