"""Values of a caller's columns as JSON can say them: None, bool, int, float, str, list or dict.

What is missing in a table is None: NaN, pandas' NaT and NA. What JSON has no word for becomes text, so that it comes
back: infinity is `inf`, and bytes are the text that they are in UTF-8, or else base64.

This module knows nothing of tables or of requests.
"""

from __future__ import annotations

import base64
import datetime
import enum
from collections.abc import Callable, Iterable, Mapping
from math import isfinite, isnan
from typing import Any, TypeGuard, cast

from aiopplx._checks.builtin import BUILTIN, as_builtin


def as_cell(value: Any, other: Callable[[Any], Any] = str) -> Any:
    """A value as JSON can say it.

    Dates are `2026-03-01`, with the time behind it where there is one or a time zone. Decimals and UUIDs are text.

    Args:
        value: whatever stands in a caller's column, or in a mapping of columns.
        other: what becomes of a value that is none of all these.
    """
    value = as_builtin(value)
    if type(value) in BUILTIN:
        if type(value) is not float or isfinite(value):
            return value
        return None if isnan(value) else str(value)
    if isinstance(value, enum.Enum):
        return as_cell(value.value, other)
    if _is_missing(value):
        return None
    if isinstance(value, datetime.datetime):
        is_day = value.tzinfo is None and value.time() == datetime.time()
        return value.date().isoformat() if is_day else value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if type(value).__name__ in _AS_TEXT:
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): as_cell(item, other) for name, item in cast("Mapping[object, Any]", value).items()}
    if is_iterable(value):
        return [as_cell(item, other) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_of(bytes(cast("bytes", value)))
    return other(value)


def _text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


_AS_TEXT = frozenset({"Decimal", "UUID", "timedelta", "Timedelta"})
"""By name: to import their modules costs more than all this."""


def as_cells(meta: Any) -> Any:
    """The columns of a request. What JSON cannot say stays as it is, and is refused where requests are checked."""
    if not isinstance(meta, dict):
        return meta
    columns = cast("Mapping[Any, Any]", meta)
    try:
        return {name: as_cell(value, _itself) for name, value in columns.items()}
    except RecursionError:  # it contains itself
        return cast("object", meta)


def _itself(value: Any) -> Any:
    return value


def is_iterable(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether it has items; bytes are one value."""
    return isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview)


def _is_missing(value: Any) -> bool:
    """pandas' NaT and NA, and a Decimal NaN: none equals itself, or says whether it does."""
    try:
        return bool(value != value)
    except (TypeError, ValueError, ArithmeticError):
        return type(value).__name__ in ("NAType", "NaTType")
