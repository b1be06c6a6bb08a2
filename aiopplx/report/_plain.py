"""The report as one file of Markdown, in the same order as the page.

Answers are the model's own Markdown. Marks become links to the numbered sources below each answer; headings sink below
the question's. This module knows nothing of HTML, save for the anchors that Markdown has no words for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote

from aiopplx._job import Source
from aiopplx._text.amounts import dollars, duration, many
from aiopplx._text.marks import marks
from aiopplx.report._entry import Entry
from aiopplx.report._markdown import is_web

_HEADING = re.compile(r"^(#{1,6})(?=\s)", re.MULTILINE)
_FENCED = re.compile(r"^[ ]{0,3}(```|~~~).*?(?:^[ ]{0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~]|&(?=#?\w+;))")
_START = re.compile(r"^(\d{1,9}(?=[.)])|(?=[-+=]))")
_UNSAFE = re.compile(r"[\x00-\x20<>\\]")


def as_markdown(
    entries: Sequence[Entry], whole: Iterable[Entry], *, title: str, day: str = "", source: str = ""
) -> Iterator[str]:
    """The parts of the file, in order.

    Args:
        entries: what its head shows.
        whole: the same with the answers.
        title: of the report; "" leaves the head out.
        day: its date, as it should read.
        source: the file that the questions came from.
    """
    if title:
        yield from _overview(entries, title, day, source, lambda entry: f"#q{entry.number}")
    for entry in whole:
        yield from one(entry, level=2 if title else 1)


INDEX = "index.md"
"""The first file of a folder."""


def name_of(number: int) -> str:
    """The name of a question's file: a title, a tag or an id could name any file of the machine."""
    return f"{number:05}.md"


def as_index(entries: Sequence[Entry], *, title: str, day: str = "", source: str = "") -> Iterator[str]:
    """The parts of the first file of a folder, which has a file for each question. Arguments as for `as_markdown`."""
    yield from _overview(entries, title, day, source, lambda entry: name_of(entry.number))
    for entry in entries:
        status = "" if entry.is_ok else f" \N{MIDDLE DOT} {_inline(entry.status)}"
        yield f"{entry.number}. [{_inline(entry.question[:300])}]({name_of(entry.number)}){status}\n"


def _overview(
    entries: Sequence[Entry], title: str, day: str, source: str, link: Callable[[Entry], str]
) -> Iterator[str]:
    yield f"# {_inline(title)}\n\n"
    facts = [fact for fact in (day, source, many(len(entries), "question")) if fact]
    yield _inline(" \N{MIDDLE DOT} ".join(facts)) + "\n\n"
    rows = [
        f"- [{entry.number}]({link(entry)}) **{word}** {_inline(said)}\n"
        for entry in entries
        for word, said in entry.concerns
    ]
    if rows:
        yield "**To look at**\n\n" + "".join(rows) + "\n"


def one(entry: Entry, *, level: int = 1) -> Iterator[str]:
    """One question with its answer and sources, under a heading of this level."""
    name = f"q{entry.number}"
    yield f'<a id="{name}"></a>\n\n{"#" * level} {_inline(entry.question)}\n\n'
    facts = [
        "" if entry.is_ok else entry.status,
        dollars(entry.cost) if entry.cost is not None else "",
        duration(entry.seconds) if entry.seconds is not None else "",
        many(len(entry.sources), "source") if entry.sources else "",
        entry.model,
        entry.tag,
    ]
    yield _inline(" \N{MIDDLE DOT} ".join(fact for fact in facts if fact)) + "\n\n"
    yield "".join(f"- {_inline(column)}: {_inline(value)}\n" for column, value in entry.columns.items())
    yield "\n" if entry.columns else ""
    yield "".join(f"> **{word}**: {_inline(said)}\n\n" for word, said in entry.concerns)
    if entry.text:
        yield _answer(entry, name, level) + "\n\n"
    if entry.sources:
        yield f"{'#' * min(6, level + 1)} Sources\n\n"
        for place, source in enumerate(entry.sources, 1):
            yield f'{place}. <a id="{name}-s{place}"></a>{_source(source)}\n'
        yield "\n"


def _answer(entry: Entry, name: str, level: int) -> str:
    text = entry.text
    places = {id(source): place for place, source in reversed(list(enumerate(entry.sources, 1)))}
    parts: list[str] = []
    at = 0
    for mark in marks(text, entry.sources, is_whole=True):
        if mark.start >= at:
            parts.append(text[at : mark.start])
            at = mark.end
        place = places[id(mark.page)] if mark.page is not None else 0
        parts.append(f"[{place}](#{name}-s{place})" if place else f"{_inline(mark.name)} (?)")
    parts.append(text[at:])
    return _sunk("".join(parts).strip(), level)


def _sunk(text: str, level: int) -> str:
    """Headings below the question's; those in code are none."""
    out: list[str] = []
    at = 0
    for block in _FENCED.finditer(text):
        out += [_HEADING.sub(lambda found: "#" * min(6, len(found[1]) + level), text[at : block.start()]), block[0]]
        at = block.end()
    out.append(_HEADING.sub(lambda found: "#" * min(6, len(found[1]) + level), text[at:]))
    return "".join(out)


def _source(source: Source) -> str:
    words = _inline(source.title or source.url or "a source without a title or an address")
    date = f", {_inline(source.date)}" if source.date else ""
    address = _UNSAFE.sub(lambda found: quote(found[0]), source.url)
    return f"[{words}](<{address}>){date}" if is_web(source.url) else f"{words}{date}"


def _inline(text: str) -> str:
    """Text that is only text, on one line."""
    return _START.sub(r"\1\\", _SPECIAL.sub(r"\\\1", " ".join(text.split())))
