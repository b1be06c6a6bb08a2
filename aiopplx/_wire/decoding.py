"""Decoding of bodies: strictly first, then field by field, so that one odd field never loses a paid answer.

`strictly` is the fast path, and enough for nearly every body. A body that does not fit is decoded into plain values by
`loosely`, which tolerates the mistakes that servers make in JSON itself, and from these into a struct by `salvaged`,
which keeps every readable field. A body that is not a job at all is refused by `unusable`, which says what it is
instead.

This module knows nothing of jobs, of which fields matter, or of any one API.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeGuard, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote

import msgspec

from aiopplx._errors import InvalidRequest, ProtocolError
from aiopplx._text.safe import BODY_KEPT, excerpt, plain
from aiopplx._wire.api import quoted_id
from aiopplx._wire.call import Reply

T = TypeVar("T")

LONGEST_NUMBER = 4000
"""Digits of a number. Python refuses to read, or to print, one of more than 4,300."""

_LOST: Any = object()


def is_array(value: object) -> TypeGuard[list[Any]]:
    """True for a JSON array; a type guard, since type checkers disagree on `isinstance` of an unknown value."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """True for a JSON object, likewise."""
    return isinstance(value, dict)


def strictly(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """The decoded body; None if it does not fit.

    The decoder's error is dropped here: it holds the body, and the next error raised would hold it as its context.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def loosely(body: bytes) -> Any:
    """The JSON of a body as plain values, with tolerance for mistakes of servers.

    A byte order mark is dropped, bytes that are not UTF-8 and half surrogate pairs (an emoji cut in two) are replaced,
    NaN and Infinity become None, and so does a whole number that Python refuses to read.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _mended(json.loads(body.decode("utf-8", "replace"), strict=False, parse_int=_whole))


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= LONGEST_NUMBER else None


def _mended(value: Any) -> Any:
    """`value` without parts that cannot be printed, stored or added up."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if is_array(value):
        return [_mended(item) for item in value]
    if is_object(value):
        return {_mended(name): _mended(item) for name, item in value.items()}
    return value


def salvaged(value: Any, kind: type[T]) -> T | None:
    """`value` as a Struct of `kind` with every readable field; the others keep their defaults.

    None if it is not a mapping, or lacks a required field.
    """
    struct = _salvage(value, kind)
    return None if struct is _LOST else struct


def _salvage(value: Any, kind: Any) -> Any:
    try:
        # Not strict: a number written as text, or 3.0 for 3, is still that number.
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, ValueError, OverflowError):
        pass
    for option in _options(kind):
        if is_object(value) and isinstance(option, type) and issubclass(option, msgspec.Struct):
            return _salvage_struct(value, option)
        if is_array(value) and get_origin(option) is list:
            return _salvage_list(value, get_args(option)[0])
    return _LOST


def _salvage_struct(value: dict[str, Any], kind: type[msgspec.Struct]) -> Any:
    fields = ((name, of, value[wire_name]) for name, wire_name, of in _fields(kind) if wire_name in value)
    given = {name: _salvage(said, of) for name, of, said in fields}
    try:
        return kind(**{name: item for name, item in given.items() if item is not _LOST})
    except TypeError:  # a required field is missing
        return _LOST


def _salvage_list(value: list[Any], kind: Any) -> list[Any]:
    """Item by item. An unreadable one becomes an empty item: `[n]` in a text counts the items before it."""
    return [_empty(kind) if item is _LOST else item for item in (_salvage(item, kind) for item in value)]


def _empty(kind: Any) -> Any:
    return next(option for option in _options(kind) if option is not NoneType)()


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


@lru_cache(maxsize=256)
def _fields(kind: type[msgspec.Struct]) -> list[tuple[str, str, Any]]:
    return [(field.name, field.encode_name, field.type) for field in msgspec.structs.fields(kind)]


def unusable(reply: Reply, why: str, job_id: str = "") -> NoReturn:
    """Raise `ProtocolError` for a body; `why` completes the sentence `the server answered with ...`.

    Args:
        reply: what the server answered.
        why: what it is instead of a job.
        job_id: an id in it that cannot be used.
    """
    raise ProtocolError(
        f"the server answered with {why}",
        job_id=plain(job_id or _id_in_headers(reply), 200),
        status=reply.status,
        request_id=plain(reply.headers.get("x-request-id") or reply.headers.get("cf-ray") or "", 120),
        body=excerpt(reply.body),
    )


_PLACES = ("location", "content-location", "operation-location")
_HOST = r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*"
_COLLECTIONS = frozenset({"completions", "responses", "sonar", "agent", "jobs", "v1", "async", "chat"})


def _id_in_headers(reply: Reply) -> str:
    """The id that ends the address of what a submission has made (RFC 9110, section 10.2.2); `""` if there is none."""
    for place in _PLACES:
        path = re.sub(_HOST, "", reply.headers.get(place) or "").split("?")[0].split("#")[0].rstrip("/")
        _, found, name = path.rpartition("/")
        if found and name and name.lower() not in _COLLECTIONS and 200 <= reply.status < 300:
            return unquote(name)
    return ""


def check_id(reply: Reply, job_id: str, expected_id: str) -> None:
    """Refuse a job that cannot be polled, or is not the one asked for. Raises `ProtocolError`."""
    if job_id and job_id == expected_id:
        return
    if not is_usable(job_id):
        if not job_id:
            unusable(reply, "a job without a usable id")
        unusable(reply, f"a job without a usable id: it cannot be asked for under {plain(job_id, 64)!r}", job_id)
    if expected_id:
        unusable(reply, f"another job ({plain(job_id, 64)!r}) than the one asked for")


def is_usable(job_id: str) -> bool:
    """Whether a job with this id can be polled: the id becomes part of a path."""
    try:
        quoted_id(job_id)
    except InvalidRequest:
        return False
    return True


def with_id(value: dict[str, Any]) -> dict[str, Any]:
    """A body whose id is text: a number is written as it stands, and `""` is put where there is none."""
    job_id = value.get("id")
    if isinstance(job_id, int) and not isinstance(job_id, bool):
        return {**value, "id": str(job_id)}
    return {**value, "id": ""} if job_id is None else value


def check_has_id(reply: Reply, value: dict[str, Any], words: str) -> None:
    """Refuse a body that has no id, a number for one, or its id in another place. Raises `ProtocolError`.

    Such an id may be a fault of the server, or another thing's: the job is not asked for under it unless the user says
    so.

    Args:
        reply: what the server answered.
        value: its body.
        words: what it says of an error.
    """
    job_id = value.get("id")
    named = str(job_id) if isinstance(job_id, int) and not isinstance(job_id, bool) else ""
    if not job_id:
        named = _id_elsewhere(value)
    if named or not isinstance(job_id, str) or not job_id:
        said = f": {plain(words)}" if words else ""
        unusable(reply, f"a body without a usable id{said}", named)


_DEEPEST_ID = 3
_OTHER_IDS = ("job_id", "response_id", "run_id")
_WRAPPERS = ("data", "result", "response", "job", "body")


def _id_elsewhere(value: dict[str, Any], depth: int = 0) -> str:
    """What may be the id of a job, under another name or in a wrapper; `""` if there is none."""
    for name in (*_OTHER_IDS, *(["id"] if depth else [])):
        if isinstance(found := value.get(name), str) and found:
            return found
    inner = (value[name] for name in _WRAPPERS if depth < _DEEPEST_ID and is_object(value.get(name)))
    return next(filter(None, (_id_elsewhere(said, depth + 1) for said in inner)), "")


def plain_values(reply: Reply) -> Any:
    """The body as plain values. Raises `ProtocolError`, which describes it, if it is not JSON."""
    why = job_id = ""
    try:
        return loosely(reply.body)
    except RecursionError:
        why = "JSON that is nested too deeply"
    except ValueError:
        why = _not_json(reply.body)
        job_id = _id_before_the_cut(reply.body)
    unusable(reply, why, job_id)


_START = re.compile(r'\s*\{\s*(?=")')
_NAME = re.compile(r'("(?:[^"\\]|\\.)*")\s*:\s*')
_COMMA = re.compile(r"\s*,\s*")
_PLAIN_VALUE = re.compile(r'("(?:[^"\\]|\\.)*"|[-+.\w]+)(?=\s*[,}])')


def _id_before_the_cut(body: bytes) -> str:
    """The id of a body that is cut short, if it stands whole among its first plain fields; `""` if it does not."""
    text = body[:BODY_KEPT].decode("utf-8", "replace")
    at = _START.match(text)
    while at is not None:
        name = _NAME.match(text, at.end())
        value = _PLAIN_VALUE.match(text, name.end()) if name is not None else None
        if name is None or value is None:
            break
        if name[1] == '"id"' and value[1].startswith('"'):
            with contextlib.suppress(ValueError):
                return str(json.loads(value[1]))
        at = _COMMA.match(text, value.end())
    return ""


def _not_json(body: bytes) -> str:
    """A description of a body that is not JSON, for `unusable`."""
    start = body[:64].removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if not start:
        return "an empty body"
    if start == b"<":
        return "a page of HTML or XML, not JSON"
    return "JSON that is cut short or malformed" if start in (b"{", b"[") else "something that is not JSON"
