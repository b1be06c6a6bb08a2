"""The server's words about a job without a result, in whatever form they came.

Which fields of a body have them is said here; how they are read, in `_text/words`.

This module knows nothing of jobs, of how they end, or of any one API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiopplx._text.words import words_of
from aiopplx._wire.decoding import is_object, loosely

# At the top of a body, where the other fields are those of a job. The first can only be an error.
_ERRORS = (
    *("error_message", "error", "errors", "last_error", "failure", "failure_reason", "failed_reason"),
    "failure_message",
)
_REMARKS = (
    *("status_message", "status_reason", "status_details", "incomplete_details", "message", "msg", "detail", "details"),
    "reason",
)


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
