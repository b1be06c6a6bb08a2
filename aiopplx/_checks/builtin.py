"""Values that stand for built-in ones: subclasses of `str`, `int` and `float`, members of enums, scalars of NumPy.

JSON and databases know only the built-in ones, and each library refuses the others in its own way and words. So
whatever a caller gives passes here first. This module knows nothing of what a value means, and imports no NumPy: its
scalars and arrays are known by `dtype` and `tolist`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, TypeVar, cast

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

BUILTIN = frozenset({str, int, float, bool, NoneType})
"""The types that stand for themselves."""


def as_builtin(value: Any) -> Any:
    """`value` as the built-in value that it stands for; the same object if it is one already, or stands for none."""
    if type(value) in BUILTIN:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # not `str(value)`: the member of an enum would give its name
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if hasattr(value, "dtype") and callable(getattr(value, "tolist", None)):
        return value.tolist()
    return value


def as_builtins(value: Any) -> Any:
    """The same for everything in lists, tuples, mappings and structs, at any depth."""
    if type(value) in BUILTIN:
        return value
    try:
        return _within(value)
    except RecursionError:  # it contains itself, and will be refused for that
        return value


def _within(value: Any) -> Any:
    value = as_builtin(value)
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        plain = [_within(item) for item in items]
        return items if all(map(_is_same, plain, items)) else plain
    if isinstance(value, dict):
        entries: dict[Any, Any] = dict(cast("Mapping[Any, Any]", value))
        read = {as_builtin(name): _within(item) for name, item in entries.items()}
        same = all(map(_is_same, read.values(), entries.values())) and all(map(_is_same, read, entries))
        return cast("object", value) if same else read
    return fields_as_builtins(value) if isinstance(value, msgspec.Struct) else value


def fields_as_builtins(struct: S) -> S:
    """The same for the fields of a struct."""
    changed: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if type(value) not in BUILTIN and value is not (plain := as_builtins(value)):
            changed[name] = plain
    return msgspec.structs.replace(struct, **changed) if changed else struct


def _is_same(one: object, other: object) -> bool:
    return one is other
