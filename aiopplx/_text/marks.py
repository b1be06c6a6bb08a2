"""Citation marks in a text, and the sources that they name.

Answers cite in several forms: `[3]`, `[web:3]`, several numbers in one mark (`[1, 2]`, `[web:9,14]`), a range
(`[5-7]`, with any dash), in wide brackets (`【3】`, `【3†source】`).
The provider documents none of them. Numbers in code are no marks (`code`), nor is what only looks like one: a link
(`[1](https://...)`), a year in brackets.

This module knows nothing of jobs, of either API, or of where the sources came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from aiopplx._text.code import code_in


class Page(Protocol):
    """What can be cited; `Source` fits."""

    @property
    def url(self) -> str: ...
    @property
    def id(self) -> int | str | None: ...


P = TypeVar("P", bound=Page)

_NUMBER = r"(?:web:)?[0-9]{1,6}"
_DASH = "\N{EN DASH}\N{EM DASH}-"
_ONE = rf"(web:)?([0-9]{{1,6}})(?:[ \t]{{0,2}}[{_DASH}][ \t]{{0,2}}(?:web:)?([0-9]{{1,6}}))?"
_SEPARATOR = rf"[ \t]{{0,2}}[,;{_DASH}][ \t]{{0,2}}"
# A number followed by an address, `[1](https://...)` or `[1]: https://...`, is a link and not a mark.
_NUMBERS = rf"({_NUMBER}(?:{_SEPARATOR}{_NUMBER}){{0,40}})"
_MARK = re.compile(rf"\[{_NUMBERS}\](?!\(|: ?http)")
_OPENING, _CLOSING = "\N{LEFT BLACK LENTICULAR BRACKET}", "\N{RIGHT BLACK LENTICULAR BRACKET}"
_NAMED = "\N{DAGGER}"
_AFTER = rf"(?:{_NAMED}[^\]{_CLOSING}\n]{{0,80}})?"
_WIDE = re.compile(rf"[\[{_OPENING}]{_NUMBERS}{_AFTER}[\]{_CLOSING}](?!\(|: ?http)")
_WIDEST = 50
"""Numbers in a range. What spans more is not a citation: `[1990-2020]`."""
_HIGHEST = 999
"""A higher number that no source has is a year or a quantity, not a citation."""


class Mark(NamedTuple, Generic[P]):
    """One number of a mark in a text.

    Attributes:
        name: the mark as it would stand alone: `[3]`, `[web:9]`.
        start, end: where the mark that it is part of stands in the text.
        page: what it names; None if nothing has this number.
    """

    name: str
    start: int
    end: int
    page: P | None


def marks(text: str, sources: Sequence[P], *, is_whole: bool = False) -> Iterator[Mark[P]]:
    """The citation marks of a text in order, number by number.

    If sources have an `id`, a mark names that id, whatever the source's position: parallel searches return in any
    order. If none has, `[n]` counts from 1 and `[web:n]` from 0.

    Args:
        text: an answer, or the text between two tokens of its Markdown.
        sources: what can be cited.
        is_whole: it is a whole answer, in whose code no number is a mark.
    """
    named = _names(sources)
    form = _WIDE if _OPENING in text else _MARK
    code = code_in(text) if is_whole and form.search(text) is not None else ()
    n = 0
    for found in form.finditer(text):
        while n < len(code) and code[n].end <= found.start():
            n += 1
        if n < len(code) and code[n].start <= found.start():
            continue
        for prefix, number in _numbers(found[1]):
            page = named(prefix, number)
            if page is not None and page.url:
                yield Mark(f"[{prefix}{number}]", *found.span(), page)
            elif 0 < int(number) <= _HIGHEST or (prefix and int(number) <= _HIGHEST):
                yield Mark(f"[{prefix}{number}]", *found.span(), None)


def cited(text: str, sources: Sequence[P]) -> dict[str, P]:
    """The citation marks of a text, each with its source, in order of first appearance.

    A mark of several numbers is there once for each: `[web:9,14]` as `[web:9]` and `[web:14]`, `[5-7]` as `[5]`, `[6]`
    and `[7]`. A mark without a source is left out.
    """
    found: dict[str, P] = {}
    for mark in marks(text, sources, is_whole=True):
        if mark.page is not None:
            found.setdefault(mark.name, mark.page)
    return found


def unresolved(text: str, sources: Sequence[P]) -> list[str]:
    """The different marks of a text that name no source, in order of first appearance."""
    return list(dict.fromkeys(mark.name for mark in marks(text, sources, is_whole=True) if mark.page is None))


def _names(sources: Sequence[P]) -> Callable[[str, str], P | None]:
    by_id = {str(source.id): source for source in reversed(sources) if source.id is not None}
    if by_id:
        return lambda prefix, number: by_id.get(str(int(number)))

    def at(prefix: str, number: str) -> P | None:
        # From 0: in the capture of a single fetched page, the page has no id and is cited as `[web:0]`.
        place = int(number) if prefix else int(number) - 1
        return sources[place] if 0 <= place < len(sources) else None

    return at


def _numbers(mark: str) -> Iterator[tuple[str, str]]:
    """(prefix, number) of each number in a mark. A prefix holds for what follows it: `[web:9,14]`."""
    prefix = ""
    for part in re.finditer(_ONE, mark):
        prefix = part[1] or prefix
        first, last = part[2], part[3] or part[2]
        if part[3] and 0 < int(last) - int(first) < _WIDEST:
            yield from ((prefix, str(number)) for number in range(int(first), int(last) + 1))
        else:
            yield prefix, first
            if part[3]:
                yield prefix, last
