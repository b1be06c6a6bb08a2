"""The server's words about a job without a result, in whatever form they came.

The reason of a failure is documented as one text. It is sent as a text, an object, a list, an object within an object,
or under another name. Whatever can be read of it is read, save the fields that may repeat a question.

This module knows nothing of jobs, of how they end, or of any one API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiopplx._wire.decoding import is_array, is_object, loosely

_MESSAGE = ("message", "error_message", "msg", "detail", "details", "reason", "refusal", "description", "title", "text")
_INNER = ("error", "errors", "last_error", "failure")
_NAME = ("code", "type", "status", "param")
# At the top of a body, where the other fields are those of a job. The first can only be an error.
_ERRORS = (
    *("error_message", "error", "errors", "last_error", "failure", "failure_reason", "failed_reason"),
    "failure_message",
)
_REMARKS = (
    *("status_message", "status_reason", "status_details", "incomplete_details", "message", "msg", "detail", "details"),
    "reason",
)
_DEEPEST = 5
_MOST = 5


def words_of(value: object, depth: int = 0) -> str:
    """The words of an error in any form: `message (code)`, or whichever of the two there is; `""` if there is none."""
    if isinstance(value, str):
        return value.strip()
    if value == 0 or depth > _DEEPEST or isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int | float):
        return str(value) if abs(value) < 1e15 else ""
    if is_array(value):
        return "; ".join(filter(None, (words_of(item, depth + 1) for item in value[:_MOST])))
    if is_object(value):
        return _of_object(value, depth)
    return ""


def _of_object(value: dict[str, Any], depth: int) -> str:
    message = next(filter(None, (words_of(value.get(name), depth + 1) for name in (*_MESSAGE, *_INNER))), "")
    name = next(filter(None, (words_of(value.get(name), _DEEPEST) for name in _NAME)), "")
    if message and is_array(place := value.get("loc")):
        # A row of a validation: its type says nothing more.
        return f"{'.'.join(map(str, place[:9]))}: {message}"
    if not message or not name or name in message:
        return message or name
    return f"{message} ({name})"


def words_about(body: Any, names: Sequence[str] = (*_ERRORS, *_REMARKS)) -> str:
    """Why a job has no result, from the plain values of its whole body; `""` if it does not say."""
    if not is_object(body):
        return ""
    said = next(filter(None, (words_of(body.get(name)) for name in names)), "")
    inner = body.get("response")
    return said or (words_about(inner, names) if is_object(inner) else "")


def words_in(raw: bytes) -> str | None:
    """The same from the bytes of a body; None if it does not say."""
    return _read(raw, (*_ERRORS, *_REMARKS))


def error_in(raw: bytes) -> str | None:
    """The same, if it is said in a field that only errors have."""
    return _read(raw, _ERRORS)


def _read(raw: bytes, names: Sequence[str]) -> str | None:
    try:
        return words_about(loosely(raw), names) or None
    except (ValueError, RecursionError):
        return None
