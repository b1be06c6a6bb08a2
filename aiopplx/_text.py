"""Text handling: server messages made safe to print, and the citation marks of an answer.

Text from a server may be long, contain control characters, or be written to mislead the reader of a log. Every message
and error quotes it through `plain` and `excerpt`. `cited` is the only place that knows how answers refer to their
sources.

This module knows nothing of jobs, of either API, of HTTP, or of where the sources came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

MESSAGE_KEPT = 500
"""Characters quoted of a server's message."""

BODY_KEPT = 4096
"""Bytes of an unusable body kept on the error."""


def plain(text: str, limit: int = MESSAGE_KEPT) -> str:
    """Server text made safe for a terminal and a log: one line without control or direction characters.

    Args:
        text: the server's text.
        limit: characters to keep; if there were more, the last one is an ellipsis.
    """
    # Blanks are collapsed, so more than `limit` is read; but not all of it, since the text may be megabytes long.
    cleaned = "".join(" " if ch.isspace() else ch for ch in text[: limit * 4] if ch.isprintable() or ch.isspace())
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def excerpt(body: bytes, limit: int = BODY_KEPT) -> str:
    """The first `limit` bytes of a body as text; bytes that are not UTF-8 are replaced."""
    return body[:limit].decode("utf-8", "replace")


class Page(Protocol):
    """What can be cited; `Source` fits."""

    @property
    def url(self) -> str: ...
    @property
    def id(self) -> int | str | None: ...


P = TypeVar("P", bound=Page)

# A number followed by an address, `[1](https://...)`, is a link and not a mark.
_MARK = re.compile(r"\[(web:)?([0-9]{1,6})\](?!\()")


def cited(text: str, sources: Sequence[P]) -> dict[str, P]:
    """The citation marks of a text (`[3]`, `[web:11]`), each with its source, in order of first appearance.

    If sources have an `id`, a mark names that id, whatever the source's position: parallel searches return in any
    order. If none has, `[n]` counts from 1 and `[web:n]` from 0. A mark without a source is left out.
    """
    by_id = {str(source.id): source for source in reversed(sources) if source.id is not None}
    found: dict[str, P] = {}
    for mark in _MARK.finditer(text):
        number = int(mark[2])
        # From 0: in the capture of a single fetched page, the page has no id and is cited as `[web:0]`. The provider
        # documents neither form.
        source = by_id.get(str(number)) if by_id else _at(number if mark[1] else number - 1, sources)
        if source is not None and source.url:
            found.setdefault(mark[0], source)
    return found


def _at(place: int, sources: Sequence[P]) -> P | None:
    return sources[place] if 0 <= place < len(sources) else None
