"""Strict JSON decoding: an unknown field is refused, in the words of the service's decoder.

This module knows nothing of what the fields mean.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")


class Refused(Exception):
    """A 400. As far as is known, `param` is only set for an unknown field."""

    def __init__(self, message: str, type: str = "invalid_request", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.param = param


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Null means absent, as it does for the service's decoder."""


def refusal_of(problem: msgspec.ValidationError) -> Refused:
    """The refusal of JSON that does not fit the expected type."""
    unknown = _UNKNOWN.match(str(problem))
    if unknown is None:
        return Refused(f"invalid request body: json: {problem}")
    name = unknown[1]
    return Refused(f'invalid request body: json: unknown field "{name}"', param=name)


def converted(type: type[T], value: Any) -> T:
    """The value as this type. Raises `Refused` if it does not fit."""
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as problem:
        raise refusal_of(problem) from None


def within(value: float | None, low: float, high: float | None, words: str) -> None:
    """Raises `Refused` for a number out of range; `words` name it."""
    if value is not None and value < low:
        raise Refused(f"validation failed: {words} must be at least {low:g}")
    if value is not None and high is not None and value > high:
        raise Refused(f"validation failed: {words} must be at most {high:g}")
