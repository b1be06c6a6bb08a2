"""Decoding of bodies: strictly first, then field by field, so that one odd field never loses a paid answer.

`strictly` is the fast path, and enough for nearly every body. A body that does not fit is decoded into plain values by
`loosely`, which tolerates the mistakes that servers make in JSON itself, and from these into a struct by `salvaged`,
which keeps every readable field. A body that is not a job at all is refused by `unusable`, which says what it is
instead.

This module knows nothing of jobs, of which fields matter, or of any one API.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

import msgspec

from aiopplx._errors import InvalidRequest, ProtocolError
from aiopplx._text.safe import excerpt, plain
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import is_error_name, words_of
from aiopplx._wire.api import quoted_id
from aiopplx._wire.call import Reply
from aiopplx._wire.naming import Candidate, candidates, told
from aiopplx._wire.said import BEGINS_JSON, MOST_ENCODED, value_of

T = TypeVar("T")

LONGEST_NUMBER = 4000
"""Digits of a number. Python refuses to read, or to print, one of more than 4,300."""

_LOST: Any = object()


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


def loosely_within(value: object) -> Any:
    """The object or list that a text holds, as gateways send a body within a body; any other value as it is.

    A text may hold a text that holds it.
    """
    inner = value
    for _ in range(MOST_ENCODED):
        if not isinstance(inner, str) or inner.lstrip()[:1] not in BEGINS_JSON:
            break
        try:
            inner = loosely(inner.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            break
    return inner if is_object(inner) or is_array(inner) else value


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
    if isinstance(value, str):
        value = loosely_within(value)
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


def unusable(reply: Reply, why: str, named: Sequence[Candidate] = ()) -> NoReturn:
    """Raise `ProtocolError` for a body; `why` completes the sentence `the server answered with ...`.

    Args:
        reply: what the server answered.
        why: what it is instead of a job.
        named: what may name the job in the answer to a submission.
    """
    error = ProtocolError(
        f"the server answered with {why}",
        job_id=plain(named[0].id, 200) if named else "",
        status=reply.status,
        request_id=plain(reply.headers.get("x-request-id") or reply.headers.get("cf-ray") or "", 120),
        body=excerpt(reply.body),
    )
    error.named = tuple(plain(each.id, 200) for each in named)
    raise error


def nameless(reply: Reply, why: str, value: object, expected_id: str | None) -> NoReturn:
    """Refuse a body without a job's id. Of the answer to a submission, whatever may name the job is told.

    Args:
        reply: what the server answered.
        why: as for `unusable`.
        value: the body as plain values; None if it is not JSON.
        expected_id: the job that was asked for; `""` for the answer to a submission.

    Raises:
        ProtocolError: always.
    """
    named = candidates(value, reply.headers, reply.body) if expected_id == "" and 200 <= reply.status < 300 else []
    unusable(reply, f"{why}; {told(named)}" if named else why, named)


def check_id(reply: Reply, job_id: str, expected_id: str) -> None:
    """Refuse a job that cannot be polled, or is not the one asked for. Raises `ProtocolError`."""
    if job_id and job_id == expected_id:
        return
    if not is_usable(job_id):
        if not job_id:
            check_has_id(reply, plain_values(reply), "", expected_id)
        why = f"a job without a usable id: it cannot be asked for under {plain(job_id, 64)!r}"
        unusable(reply, why, [Candidate(1, job_id, "id")])
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


def check_has_id(reply: Reply, value: dict[str, Any], words: str, expected_id: str) -> None:
    """Refuse a body that has no id, a number for one, or its id in another place. Raises `ProtocolError`.

    Such an id may be a fault of the server, or another thing's: the job is not asked for under it unless the user says
    so (see `naming`).

    Args:
        reply: what the server answered.
        value: its body.
        words: what it says of an error.
        expected_id: the job that was asked for; `""` for the answer to a submission.
    """
    job_id = value.get("id")
    if isinstance(job_id, str) and job_id:
        return
    why = f"a body without a usable id: {plain(words)}" if words else "a body without a usable id"
    nameless(reply, why, value, expected_id)


def plain_values(reply: Reply, expected_id: str | None = None) -> Any:
    """The body as plain values. Raises `ProtocolError`, which describes it, if it is not JSON.

    Args:
        reply: what the server answered.
        expected_id: as for `nameless`; None if no job was asked for.
    """
    try:
        return loosely_within(loosely(reply.body))
    except RecursionError:
        why = "JSON that is nested too deeply"
    except ValueError:
        why = _not_json(reply.body)
        if said := _words_without_json(reply):
            why = f"{why}: {said}"
    nameless(reply, why, None, expected_id)


def _words_without_json(reply: Reply) -> str:
    """What a success that is not JSON says of an error. A long text is none, and may repeat the question."""
    value = value_of(reply.body, reply.headers.get("content-type") or "")
    if is_object(value):
        value = {name: said for name, said in value.items() if is_error_name(name) or name in ("message", "detail")}
    said = plain(words_of(value))
    return said if len(said) <= _SHORT else ""


_SHORT = 300
"""Characters of the words of an error, where nothing else says that they are some."""


def _not_json(body: bytes) -> str:
    """A description of a body that is not JSON, for `unusable`."""
    start = body[:64].removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if not start:
        return "an empty body"
    if start == b"<":
        return "a page of HTML or XML, not JSON"
    return "JSON that is cut short or malformed" if start in (b"{", b"[") else "something that is not JSON"
