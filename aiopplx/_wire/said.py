"""What a body says, as a value whose words can be read, in whatever form and encoding it came.

Answers of this service are JSON in UTF-8. What says that there is none may come from anything that stands before the
service: XML, a form, a stream of events, a plain text, a page, JSON that was cut short, each in the encoding of its
country. `value_of` brings them into plain values for `_text/words`; what it does not know is a text.

This module knows nothing of jobs, or of what is done about an error.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from aiopplx._text.names import words_in_name
from aiopplx._text.safe import BODY_KEPT
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import fields_before_the_cut, is_error_name, text_of_markup

_CHARSET = r"""(?i)charset\s*=\s*["']?([\w.:-]{1,40})"""
_DECLARED = rb"""(?i)(?:encoding|charset)\s*=\s*["']?([\w.:-]{1,40})"""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FORM = r"[\w.-]{1,80}=[^&=\s]*(?:&[\w.-]{1,80}=[^&=\s]*)*"
_EVENT = r"(?m)^data:\s*(\{.*)$"
_HEADER_SAYS = r'error_description\s*=\s*"([^"]{1,1000})"'


MOST_ENCODED = 5
"""How many times a body may be encoded: each gateway on the way may do it once more."""
BEGINS_JSON = ("{", "[", '"')

LONGEST = 256 * 1024
"""Bytes of a body that are read as a text."""


def text_of(body: bytes, content_type: str = "") -> str:
    """A body as text, in the encoding that it has, or says that it has; what cannot be read is replaced."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    named = re.search(_CHARSET, content_type)
    body = body[:LONGEST]
    declared = re.search(_DECLARED, body[:512]) if body.lstrip()[:1] == b"<" else None
    names = [
        named[1] if named is not None else "",
        declared[1].decode("ascii", "replace") if declared is not None else "",
        _guessed(body),
    ]
    for name in filter(None, names):
        try:
            # The last character may be cut in two. Codecs of other things than texts raise LookupError.
            text: str = codecs.getincrementaldecoder(name)().decode(body)
        except (LookupError, UnicodeError):
            continue
        return text
    return body.decode("cp1252", "replace")  # which nearly every text is that has none and is not UTF-8


def _guessed(body: bytes) -> str:
    """UTF-8, or the wider encoding that JSON in a body without a mark has."""
    return json.detect_encoding(body) if body[:1] else "utf-8"


def value_of(body: bytes, content_type: str = "") -> Any:
    """What a body says: plain values if it is JSON, or can be brought into them, else its text; `""` for none."""
    try:
        return opened(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    text = text_of(body, content_type).strip()
    try:
        value = json.loads(text, strict=False, parse_int=lambda digits: digits[:40], parse_constant=lambda _: None)
        return opened(value)
    except (ValueError, RecursionError):
        pass
    kept = text[:BODY_KEPT]
    if kept.startswith(("{", "[")):
        return fields_before_the_cut(kept)
    if kept.startswith("<"):
        return text_of_markup(text)
    if (event := re.search(_EVENT, kept)) is not None:
        return value_of(event[1].encode("utf-8", "replace"))
    if re.fullmatch(_FORM, kept):
        fields = dict(parse_qsl(kept))
        return fields if any(map(is_error_name, fields)) else kept
    return kept if _is_text(kept) else ""


def opened(value: Any) -> Any:
    """The object or list that a text holds, however often it was encoded; any other value as it is."""
    inner = value
    for _ in range(MOST_ENCODED):
        if not isinstance(inner, str) or inner.lstrip()[:1] not in BEGINS_JSON:
            break
        try:
            inner = msgspec.json.decode(inner)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            break
    return inner if is_object(inner) or is_array(inner) else value


def value_in_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """What the headers of an answer say of an error, for one whose body says nothing."""
    said = {
        name: unquote(value)
        for name, value in headers.items()
        if is_error_name(name) or "".join(words_in_name(name)) == "grpcmessage"
    }
    challenge = re.search(_HEADER_SAYS, headers.get("www-authenticate") or "")
    return {**said, "error_description": challenge[1]} if challenge is not None else said


def _is_text(text: str) -> bool:
    """Whether it is written for people, and not what is left of something else."""
    return "\ufffd" not in text and all(ch.isprintable() or ch in "\r\n\t" for ch in text)
