"""Corruptions of the body that fit a JSON answer of any API.

Each takes an answer and returns another, or None where it does not apply. Corruptions of one API's shapes are in that
API's file.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import msgspec

from aiopplx.emulator._exchange import HTML, Reply
from aiopplx.emulator._json_types import is_list, is_object

PORTAL = (
    b"<!DOCTYPE html>\n<html><head><title>Welcome to the hotel network</title></head>\n"
    b"<body><h1>Please accept the terms to go online</h1></body></html>\n"
)


def with_body(reply: Reply, body: bytes, content_type: str | None = None) -> Reply:
    """A copy of the answer with another body."""
    return msgspec.structs.replace(
        reply, body=body, content_type=reply.content_type if content_type is None else content_type
    )


def edited(reply: Reply, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Reply | None:
    """The answer with its JSON object edited; None if the edit does not apply."""
    data: Any = msgspec.json.decode(reply.body)
    changed = edit(data) if is_object(data) else None
    return None if changed is None else with_body(reply, msgspec.json.encode(changed))


def _without_id(data: dict[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in data.items() if name != "id"} if "id" in data else None


def _id(value: Any) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    return lambda data: {**data, "id": value} if "id" in data else None


def enriched(value: Any) -> Any:
    """The same JSON with an undocumented field at every level."""
    if is_object(value):
        return {**{name: enriched(member) for name, member in value.items()}, "x_unheard_of": {"of": [1, None]}}
    return [enriched(item) for item in value] if is_list(value) else value


def _not_a_number(reply: Reply) -> Reply:
    return with_body(reply, reply.body[:-1] + b',"x":NaN}')


_GENERIC: dict[str, Callable[[Reply], Reply | None]] = {
    "html": lambda reply: with_body(reply, PORTAL, HTML),
    "empty": lambda reply: with_body(reply, b""),
    "scalar": lambda reply: with_body(reply, b"42"),
    "null": lambda reply: with_body(reply, b"null"),
    "array": lambda reply: with_body(reply, b"[]"),
    "truncated": lambda reply: with_body(reply, reply.body[: len(reply.body) * 2 // 3]),
    "trailing": lambda reply: with_body(reply, reply.body + b"\n<!-- served in 12 ms -->"),
    "bom": lambda reply: with_body(reply, b"\xef\xbb\xbf" + reply.body),
    "invalid_utf8": lambda reply: with_body(reply, reply.body.replace(b'"model":"', b'"model":"\xff\xfe', 1)),
    "not_a_number": _not_a_number,
    "deep": lambda reply: with_body(reply, b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "wrong_content_type": lambda reply: with_body(reply, reply.body, HTML),
    "empty_content_type": lambda reply: with_body(reply, reply.body, ""),
    "undeclared_gzip": lambda reply: with_body(reply, gzip.compress(reply.body)),
    "unknown_fields": lambda reply: with_body(reply, msgspec.json.encode(enriched(msgspec.json.decode(reply.body)))),
    "id_null": lambda reply: edited(reply, _id(None)),
    "id_number": lambda reply: edited(reply, _id(17)),
    "id_missing": lambda reply: edited(reply, _without_id),
}


def corrupted(how: str, reply: Reply) -> Reply | None:
    """The answer corrupted in a way that fits any API; None if this way does not apply, or belongs to one API."""
    change = _GENERIC.get(how)
    return change(reply) if change is not None and reply.body else None
