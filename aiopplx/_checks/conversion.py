"""Values converted to structs by msgspec, and msgspec's errors converted to sentences.

msgspec checks a value against the types of the fields, constraints included, and describes the problem in its own
words, some of which repeat the value. The sentence that a user reads is built from the field's type instead, so that a
limit is written down once: `max_tokens: must be a whole number from 1 to 128000`. Only the place and the name of the
type found there are used from msgspec's error.

This module knows nothing of requests, of which field has which type, or of any API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeGuard,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from aiopplx._checks.rules import as_name, refuse, shown, writable
from aiopplx._errors import InvalidRequest

T = TypeVar("T")

# These are left unchanged so that msgspec refuses them: it would silently turn bytes into base64, and a time into text.
_NOT_PLAIN = (bytes, bytearray, memoryview, datetime, date, time, timedelta, Decimal)
_SAID = r"(?s)(?P<why>.*?)(?: - at `(?P<key>key` in `)?\$(?P<at>.*)`)?"
_UNKNOWN = r"(?s)Object contains unknown field `(.*)`"
_MISSING = r"Object missing required field `([^`]*)`"
_WRONG_TYPE = r"Expected `[^`]*`, got `([^`]*)`"
_STEP = r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])"
_PYTHON = {"array": "list", "object": "dict", "null": "None"}


def converted(field: str, value: Any, kind: type[T]) -> T:
    """`value` (mappings, lists, structs) as `kind`, checked at every level, including structs that a caller built.

    Raises:
        InvalidRequest: it does not fit; the error names the place below `field` and what belongs there.
    """
    try:
        plain = msgspec.to_builtins(value, builtin_types=_NOT_PLAIN)
    except Exception:  # the same
        plain = value  # it cannot be sent; the check that follows finds the place
    return check_types(field, plain, kind)


def check_types(field: str, value: Any, kind: type[T]) -> T:
    """The same for plain values. A struct among them is accepted unchecked. Raises `InvalidRequest`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said = str(error)
    except Exception:  # an object of any class may fail in any way when it is read
        said = ""
    # Outside the handler: an error raised inside it would have msgspec's, which may repeat the value, as its context.
    if not said:
        writable(field, value)
        refuse(field, "has a value that JSON cannot express")
    raise _refusal(said, field, value, kind)


def _refusal(said: str, field: str, value: Any, kind: Any) -> InvalidRequest:
    """The error for msgspec's complaint about `value`, which names a path in it."""
    match = re.fullmatch(_SAID, said)
    why, key, at = (match["why"], match["key"], match["at"] or "") if match else ("", None, "")
    hint, place = kind, field
    for name, index, anywhere in re.findall(_STEP, at):
        if anywhere:  # msgspec does not say which entry of a mapping it is: the first that does not fit
            hint, value, step = _entry(hint, value)
        else:
            hint, value, step = _field_type(hint, name), _at(value, name, index), name or f"[{index}]"
        place += step if index or not step else f".{step}"
    place = place.removeprefix(".")
    return InvalidRequest(_sentence(why, key is not None, hint, value), field=place)


def _sentence(why: str, of_a_key: bool, hint: Any, value: Any) -> str:
    if unknown := re.fullmatch(_UNKNOWN, why):
        return f"has no field {shown(unknown[1])}"
    if missing := re.fullmatch(_MISSING, why):
        return f"lacks the required field `{missing[1]}`"
    if of_a_key:
        # The names of a struct's fields are texts too.
        hint = next((get_args(bare)[0] for bare, _ in _options(hint) if get_origin(bare) is dict), str)
    wrong = re.fullmatch(_WRONG_TYPE, why)
    if wrong is None:
        rule = _constraint(hint, "" if of_a_key else value)
    elif "one of" in (rule := _rule(hint)):
        pass  # the rule alone is clear enough
    else:
        rule += f", not {_PYTHON.get(wrong[1], wrong[1])}"
        if wrong[1] == "str" and "a list of texts" in rule:
            rule += "; write one text as [text]"
    return f"has a name that breaks its rule: it {rule}" if of_a_key else rule


def _at(value: Any, name: str, index: str) -> Any:
    """The value at one step of a path; None where it cannot be found, as in a set."""
    if index:
        return cast("list[Any]", value)[int(index)] if isinstance(value, list | tuple) else None
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else getattr(value, name, None)


def _entry(hint: Any, value: Mapping[str, Any]) -> tuple[Any, Any, str]:
    """(type, value, name if it may be shown) of the first entry of a mapping that does not fit its type."""
    of = next(get_args(bare)[1] for bare, _ in _options(hint) if get_origin(bare) is dict)
    for name, item in value.items():
        try:
            msgspec.convert(item, of)
        except (ValueError, TypeError):
            return of, item, as_name(name)
    return of, None, ""


def _options(hint: Any, meta: Meta | None = None) -> list[tuple[Any, Meta | None]]:
    """The members of a union except None, each with its constraint."""
    if get_origin(hint) is Annotated:
        bare, *metas = get_args(hint)
        return _options(bare, next((item for item in metas if isinstance(item, Meta)), meta))
    if get_origin(hint) in (Union, UnionType):
        return [option for member in get_args(hint) for option in _options(member, meta)]
    if isinstance(hint, TypeVar):  # of a tag: whatever it may be
        return _options(hint.__bound__, meta)
    return [] if hint is NoneType else [(hint, meta)]


@lru_cache(maxsize=64)
def _fields(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _is_struct(kind: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _field_type(hint: Any, name: str) -> Any:
    """The type of the field `name` of a struct, or of a list's items without a name."""
    options = [bare for bare, _ in _options(hint)]
    if not name:
        return next((get_args(bare)[0] for bare in options if get_origin(bare) is list), Any)
    structs = [bare for bare in options if _is_struct(bare)]
    for kind in structs:
        if name in _fields(kind):
            return _fields(kind)[name]
    # The tag field of a union of structs is not a field of any of them.
    return Literal[tuple(kind.__struct_config__.tag for kind in structs)]


def _rule(hint: Any) -> str:
    """The rule of this type: `must be a whole number from 1 to 128000`."""
    nouns = [_noun(bare, meta) for bare, meta in _options(hint)]
    return f"must be {' or '.join(nouns)}" if nouns else "must be left out"


def _noun(kind: Any, meta: Meta | None) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if origin is list:
        return "a list of texts" if any(bare is str for bare, _ in _options(get_args(kind)[0])) else "a list"
    if origin is dict or _is_struct(kind):
        return "a mapping"
    names = {str: "text", bool: "True or False", int: "a whole number", float: "a number"}
    noun = names.get(kind, "another value")
    if meta is None or meta.ge is None or meta.le is None:
        return noun
    return f"{noun} from {meta.ge:g} to {meta.le:g}" if kind is float else f"{noun} from {meta.ge} to {meta.le}"


def _constraint(hint: Any, value: Any) -> str:
    """The constraint that a value of the right type breaks."""
    origins: dict[Any, Any] = {str: str, list: (list, tuple), dict: Mapping}
    for bare, meta in _options(hint):
        kind = origins.get(get_origin(bare) or bare)
        if meta is None or (kind is not None and not isinstance(value, kind)):
            continue
        if meta.description:
            return meta.description
        if kind is not None and (meta.min_length is not None or meta.max_length is not None):
            least = f"{meta.min_length} to " if meta.min_length else "at most "
            what = "characters long" if kind is str else "entries"
            return f"must {'be' if kind is str else 'have'} {least}{meta.max_length} {what}"
    return _rule(hint)
