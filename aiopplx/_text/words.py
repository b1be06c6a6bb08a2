"""The words of an error in a body, in whatever form it came.

The reason of a failure is documented as one text. It is sent as a text, an object, a list, an object within an object,
or under another name. Whatever can be read of it is read, save the fields that may repeat a question.

This module knows nothing of jobs, of HTTP, or of which field of a body has an error.
"""

from __future__ import annotations

from typing import Any, TypeGuard

_MESSAGE = (
    "message",
    "error_message",
    "msg",
    "detail",
    "details",
    "reason",
    "refusal",
    "error_description",
    "description",
    "title",
    "text",
)
_INNER = ("error", "errors", "last_error", "failure")
_NAME = ("code", "type", "status", "param")
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
    if _is_array(value):
        return "; ".join(filter(None, (words_of(item, depth + 1) for item in value[:_MOST])))
    if _is_object(value):
        return _of_object(value, depth)
    return ""


def message_of(value: dict[str, Any], depth: int = 0) -> str:
    """The words of an error that is an object, without its name or code; `""` if it has no other words."""
    said = next(filter(None, (words_of(value.get(name), depth + 1) for name in (*_MESSAGE, *_INNER))), "")
    title = _title_of(value)
    return f"{title}: {said}" if title and title not in said else said


def _title_of(value: dict[str, Any]) -> str:
    """What an error in the form of RFC 9457 says beside its detail; without a type, that is the status in words."""
    kind, title = value.get("type"), value.get("title")
    has_all = isinstance(kind, str) and isinstance(title, str) and isinstance(value.get("detail"), str)
    return str(title).strip().rstrip(".") if has_all and not str(kind).startswith("about:") else ""


def object_in(error: object) -> dict[str, Any]:
    """The object that says the most of an error: itself, or the first in a list; `{}` if there is none."""
    for value in error if _is_array(error) else [error]:
        if _is_object(value):
            return value
    return {}


def _of_object(value: dict[str, Any], depth: int) -> str:
    message = message_of(value, depth)
    name = next(filter(None, (words_of(value.get(name), _DEEPEST) for name in _NAME)), "")
    if message and _is_array(place := value.get("loc")) and place:
        # A row of a validation: its type says nothing more.
        return f"{'.'.join(map(str, place[:9]))}: {message}"
    if not message or not name or name in message:
        return message or name
    return f"{message} ({name})"


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
