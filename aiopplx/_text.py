"""The citation marks of an answer, and which source each points at.

This module knows nothing of jobs, of either API, or of where the sources came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Page(Protocol):
    """What can be cited: a `Source`, seen from here."""

    @property
    def url(self) -> str: ...
    @property
    def id(self) -> int | str | None: ...


P = TypeVar("P", bound=Page)

# A number with an address behind it, `[1](https://...)`, is a link: it says itself where it goes.
_MARK = re.compile(r"\[(web:)?([0-9]{1,6})\](?!\()")


def cited(text: str, sources: Sequence[P]) -> dict[str, P]:
    """The marks of a text (`[3]`, `[web:11]`), each with its source, in the order in which they first appear.

    Where sources have an `id`, a mark names that id, wherever the source stands: parallel searches come back in any
    order. Where none has, `[n]` counts from 1 and `[web:n]` from 0. A mark that points at no source is left out.
    """
    by_id = {str(source.id): source for source in reversed(sources) if source.id is not None}
    found: dict[str, P] = {}
    for mark in _MARK.finditer(text):
        number = int(mark[2])
        # From 0: seen in a capture of one fetched page, which has no id and is cited as `[web:0]`. The provider
        # documents neither form.
        source = by_id.get(str(number)) if by_id else _at(number if mark[1] else number - 1, sources)
        if source is not None and source.url:
            found.setdefault(mark[0], source)
    return found


def _at(place: int, sources: Sequence[P]) -> P | None:
    return sources[place] if 0 <= place < len(sources) else None


BODY_KEPT = 4096


MESSAGE_KEPT = 500


def plain(text: str, limit: int = MESSAGE_KEPT) -> str:
    """Server text made fit for a terminal and a log: no control or direction characters, one line, at most `limit`."""
    cleaned = "".join(" " if ch.isspace() else ch for ch in text[: limit * 4] if ch.isprintable() or ch.isspace())
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def beginning(body: bytes, limit: int = BODY_KEPT) -> str:
    """The first `limit` bytes of a body as text, for a person."""
    return body[:limit].decode("utf-8", "replace")
