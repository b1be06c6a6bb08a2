"""Addresses that an answer rests on, in parts of a body that have no struct of their own.

Annotations cite pages in two forms: with the address beside the type, or in an object named after it. Items of unknown
types carry results in lists of objects with an address each. This module knows nothing of which part of which API's
answer it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiopplx._job import Source
from aiopplx._text.values import is_array, is_object
from aiopplx._wire.decoding import salvaged

_ADDRESSES = ("url", "uri", "link", "href", "image_url", "origin_url", "source_url", "web_url")
# What was asked or sent is not what was found.
_ASKED = frozenset({"arguments", "input", "queries", "query", "request", "code", "parameters"})
_MOST = 10_000
"""Values of one item that are looked at."""


def annotated(annotations: Any) -> Iterator[Source]:
    """The pages that annotations cite."""
    for note in annotations if is_array(annotations) else ():
        if is_object(note):
            kind = note.get("type")
            inner = note.get(kind) if isinstance(kind, str) else None
            source = _source(inner if is_object(inner) else note, kind)
            if source is not None:
                yield source


def pages_in(item: Any, kind: str | None) -> Iterator[Source]:
    """The pages in an item of a type that is not known, in order; `kind` is its type."""
    waiting, remaining = [item], _MOST
    while waiting and remaining:
        value = waiting.pop()
        remaining -= 1
        if is_array(value):
            waiting += reversed(value[:remaining])
        elif is_object(value):
            source = _source(value, kind)
            if source is not None:
                yield source
            waiting += [part for name, part in reversed(value.items()) if name not in _ASKED]


def with_urls(pages: Any) -> Any:
    """A list of pages, each with its address under `url`: gateways send it under other names, or alone."""
    return [_with_url(page) for page in pages] if is_array(pages) else pages


def address_of(page: Any) -> Any:
    """The address of a page that is an object; whatever else it is, unchanged."""
    return _with_url(page).get("url", "") if is_object(page) else page


def _with_url(page: Any) -> Any:
    if isinstance(page, str):
        return {"url": page}
    if not is_object(page) or (isinstance(page.get("url"), str) and page["url"]):
        return page
    for value in (page, *(page.get(name) for name in _WRAPPERS)):
        if not is_object(value):
            continue
        if address := next((value[name] for name in _ADDRESSES if _is_address(value.get(name))), ""):
            return {**{name: said for name, said in value.items() if name in _KEPT}, **page, "url": address}
    return page


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _source(value: dict[str, Any], kind: Any) -> Source | None:
    address = next((value[name] for name in _ADDRESSES if isinstance(value.get(name), str)), "")
    if not address.startswith(("http://", "https://")):
        return None
    known = {name: said for name, said in value.items() if name in _KEPT}
    return salvaged({**known, "url": address, "kind": kind if isinstance(kind, str) else None}, Source)


# In which gateways put a page. Not any object: an icon or a picture has an address too, which is not the page's.
_WRAPPERS = ("page", "source", "document", "web", "metadata", "url_citation")
# Without `id`: that of an annotation or an unknown item is not the number of a mark.
_KEPT = ("title", "date", "last_updated", "snippet", "source")
