"""Reasoning told apart from the answer, in the shapes in which reasoning models write it.

Some servers send the reasoning in a field of its own; some leave it in the text, between tags, at its beginning. The
tags differ by model, some chat templates write the opening one themselves so that only the closing one is in the text,
and a model that explains such tags writes them too. Two rules follow. No word is dropped: whatever leaves the text is
in the reasoning. And where it is unclear which of the two something is, it stays in the text, which people read: a part
that is never closed, since the answer may be in it, and a tag that is only mentioned, in code or in a sentence.

This module knows nothing of jobs, of either API, or of where in a body the text stood.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeGuard, cast

_WORD = (
    r"(?:seed:)?(?:ant)?think(?:ing)?|(?:inner_)?thoughts?|reasoning|reflection|scratchpad|chain_of_thought"
    r"|(?:inner|internal)_monologue"
)
# For each kind of tag, by name: the opening and the closing one.
_KINDS = {
    "xml": (rf"<(?:{_WORD})(?:\s[^<>]{{0,80}})?>", rf"</(?:{_WORD})\s?>"),
    "token": (
        rf"<\|(?:(?:begin|start)(?:_of)?_)?(?:{_WORD})\|>",
        rf"<\|(?:/|end(?:_of)?_)(?:{_WORD})\|>",
    ),
    "triangle": ("◁think▷", "◁/think▷"),
    "bracket": (r"\[think\]", r"\[/think\]"),
    "bare_channel": (r"<\|channel>(?:thought|analysis)\b", r"<channel\|>"),
    "channel": (
        r"(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>",
        r"<\|end\|>(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>",
    ),
}
_FENCE = r"(?m)^[ \t]{0,3}(?:```|~~~)[^\n]*"
_FIELDS = ("text", "thinking", "thought", "thoughts", "reasoning", "reasoning_content", "content", "summary", "value")
_FIRST = frozenset(" \t\r\n<[◁")
_IS_THOUGHT = "(?i)think|thought|reasoning"

_QUOTES = "\"'\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
_NEAR = 200
"""Characters of the same line, on either side, that are searched for the backticks round a tag."""


# Compiled at the first text that may have reasoning: most programs never see one.
@cache
def _opening() -> re.Pattern[str]:
    return re.compile(r"\s*(?:" + "|".join(f"(?P<{kind}>{tags[0]})" for kind, tags in _KINDS.items()) + ")", re.I)


@cache
def _tags(kind: str) -> re.Pattern[str]:
    opening, closing = _KINDS[kind]
    return re.compile(f"(?P<opening>{opening})|{closing}", re.I)


@cache
def _closing() -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{kind}>{tags[1]})" for kind, tags in _KINDS.items() if kind != "bracket"), re.I)


def split(content: str) -> tuple[str | None, str]:
    """(reasoning, text) of a content that may begin with reasoning; None if it has none."""
    if content[:1] not in _FIRST and "<" not in content and (content.isascii() or "◁" not in content):
        return None, content  # nearly every text; the search for one character is far faster than any expression
    thoughts: list[str] = []
    at = 0
    opening = _opening().match(content)
    if opening is None:
        if (closing := _without_opening(content)) is None:
            return None, content
        thoughts.append(content[: closing.start()].strip())
        at = closing.end()
        opening = _opening().match(content, at)
    while opening is not None and (closing := _end_of(content, opening)) is not None:
        thoughts.append(content[opening.end() : closing.start()].strip())
        at = closing.end()
        opening = _opening().match(content, at)
    return ("\n\n".join(filter(None, thoughts)), content[at:].lstrip()) if thoughts else (None, content)


def joined(thoughts: Iterable[str | None]) -> str | None:
    """Reasoning from several places as one; what is the same in two places is there once. None if there is none."""
    kept: list[str] = []
    was_said = False
    for thought in thoughts:
        was_said = was_said or thought is not None
        if thought and not any(thought.strip() in other for other in kept):
            kept.append(thought)
    return "\n\n".join(kept) if was_said else None


def thought_in(value: object, deepest: int = 8) -> str | None:
    """The reasoning in a field of its own: a text, or a list of texts and parts. None if there is none.

    Args:
        value: the field's, as plain values.
        deepest: levels of lists and objects that are looked into: a body may have a thousand.
    """
    if isinstance(value, str):
        return value or None
    if not deepest:
        return None
    if isinstance(value, dict):
        part = cast("dict[str, object]", value)
        return next(filter(None, (thought_in(part.get(name), deepest - 1) for name in _FIELDS)), None)
    if _is_list(value):
        return "\n\n".join(filter(None, (thought_in(item, deepest - 1) for item in value))) or None
    return None


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def is_thought(kind: object) -> bool:
    """Whether a part, or an item, of this type is reasoning: `thinking`, `reasoning_text`."""
    return isinstance(kind, str) and re.search(_IS_THOUGHT, kind) is not None


def _end_of(content: str, opening: re.Match[str]) -> re.Match[str] | None:
    """The tag that closes this one; None if none does."""
    kind = opening.lastgroup or ""
    in_code = _Code(content)
    first: re.Match[str] | None = None
    fenced: re.Match[str] | None = None
    depth = 1
    for tag in _tags(kind).finditer(content, opening.end()):
        if in_code.inline(tag):
            continue
        is_closing = tag["opening"] is None
        if in_code.fenced(tag):
            fenced = fenced or (tag if is_closing else None)
            continue
        depth += -1 if is_closing else 1
        if is_closing and first is None:
            first = tag
        if not depth:
            return tag
    # Not balanced: an opening tag was only mentioned in the reasoning, or a block of code in it was never closed.
    return first or fenced


def _without_opening(content: str) -> re.Match[str] | None:
    """The closing tag of reasoning whose opening tag is missing; None if there is none."""
    in_code = _Code(content)
    for mark in "<◁":
        at = content.find(mark)
        while at >= 0:
            tag = _closing().match(content, at) if content[at + 1 : at + 2] in ("/", "|", "c") else None
            if tag is not None and not in_code.has(tag) and not _is_in_sentence(content, tag):
                return None if _is_opened(content, tag, in_code) else tag
            at = content.find(mark, at + 1)
    return None


def _is_opened(content: str, closing: re.Match[str], in_code: _Code) -> bool:
    """Whether its opening tag stands before it: then the text speaks of tags, as reasoning begins the text."""
    before = _tags(closing.lastgroup or "").finditer(content, 0, closing.start())
    return any(tag["opening"] is not None and not in_code.has(tag) for tag in before)


def _is_in_sentence(content: str, tag: re.Match[str]) -> bool:
    """Whether a tag is a word of a sentence: `it ends with </think> and then`. One after a whole sentence is not."""
    line = content[max(content.rfind("\n", 0, tag.start()) + 1, tag.start() - _NEAR) : tag.start()]
    said = line.rstrip()
    after = content[tag.end() : tag.end() + 1]
    return bool(said) and line != said and said[-1] not in ".!?…:)]*\"'" and after in tuple(" \t,.;:!?)")


class _Code:
    """Which places of a text are code."""

    def __init__(self, content: str) -> None:
        self._content = content
        self._blocks: Sequence[int] | None = None

    def has(self, tag: re.Match[str]) -> bool:
        """Whether a tag stands in either."""
        return self.inline(tag) or self.fenced(tag)

    def inline(self, tag: re.Match[str]) -> bool:
        """Whether a tag stands between backticks, or in quotation marks, on its line."""
        content, start, end = self._content, tag.start(), tag.end()
        before = content[max(content.rfind("\n", 0, start) + 1, start - _NEAR) : start]
        after = content[end : end + _NEAR].partition("\n")[0]
        if before and after and before[-1] in _QUOTES and after[0] in _QUOTES:
            return True
        return before.count("`") % 2 == 1 and "`" in after

    def fenced(self, tag: re.Match[str]) -> bool:
        """Whether a tag stands in a block of code that is closed."""
        if self._blocks is None:
            starts = [fence.start() for fence in re.finditer(_FENCE, self._content)]
            self._blocks = starts[: len(starts) // 2 * 2]
        return bisect_right(self._blocks, tag.start()) % 2 == 1
