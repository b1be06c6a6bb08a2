"""The rules of request fields: types with constraints, functions for rules that types cannot state, and refusals.

A field's type is the first and usually the only statement of its rule: `Annotated[int, Meta(ge=1, le=128_000)]`, a
`Literal`, one of the names below. msgspec checks it, and `conversion` makes a sentence of the type. A `Meta` with a
`description` brings its own sentence, which is used when the type is right and the value is not. Rules that a type
cannot state (a calendar day, a domain, text that UTF-8 cannot encode) are functions here that get the field's name and
its value.

A refusal names the field and the rule and never repeats the value, which may be the prompt. This module knows nothing
of requests, of which field has which rule, or of any API.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, cast

import msgspec
from msgspec import Meta

from aiopplx._errors import InvalidRequest

Rule: TypeAlias = Callable[[str, Any], None]
"""Gets a field's name and value; raises `InvalidRequest` unless the value may be sent."""

# --- types with constraints ------------------------------------------------------------------------------------------

Filled: TypeAlias = Annotated[str, Meta(pattern=r"\S", description="must not be empty")]
# Only the form of a code is checked: the lists of countries and languages grow.
Language: TypeAlias = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z]{2}\Z", description="must be a two-letter ISO 639-1 language code such as 'en'"),
]
Country: TypeAlias = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z]{2}\Z", description="must be a two-letter ISO 3166-1 country code such as 'SG'"),
]
Recency: TypeAlias = Literal["hour", "day", "week", "month", "year"]
Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=2)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
# msgspec accepts any number as a bound except infinity, which is the value that this bound excludes.
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=1e308, description="must be a finite number of seconds above 0")]
# The provider states no limit for keys; 255 is what other services accept.
IdempotencyKey: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"\A[ -~]*\Z",
        description="must be 1 to 255 characters of printable ASCII; leave it out to have one generated",
    ),
]

# --- refusals --------------------------------------------------------------------------------------------------------

_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"


def refuse(field: str, rule: str) -> NoReturn:
    """Raise `InvalidRequest` for `field`. `rule` states the rule without the value."""
    raise InvalidRequest(rule, field=field)


def kind_of(value: object) -> str:
    """The name of a value's type, for a refusal."""
    return type(value).__name__


def as_name(key: object) -> str:
    """A key if it looks like a field's name, otherwise `""`: any other key may be part of a prompt."""
    return key if isinstance(key, str) and re.fullmatch(_NAME, key) else ""


def shown(key: object) -> str:
    """A key as it may appear in a message."""
    name = as_name(key)
    return f"`{name}`" if name else "of that name"


# --- rules that types cannot state -----------------------------------------------------------------------------------

_DATE = r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})"
_USUAL_DOMAIN = r"-?[!-,.-~][!-~]{0,252}"
_NUL = rb"(?<!\\)(?:\\\\)*\\u0000"
_ENCODER = msgspec.json.Encoder()
_HALF_PAIR = "has half of a surrogate pair, which UTF-8 cannot encode; was it cut in the middle of an emoji?"
# JSON can express it, but the databases behind servers cannot store it.
_HAS_NUL = "has a NUL character (\\x00), which cannot be sent"


def filled(field: str, value: Any) -> None:
    """Text that is not blank and can be sent as UTF-8 JSON."""
    if not isinstance(value, str):
        refuse(field, f"must be text, not {kind_of(value)}")
    if "\0" in value:
        refuse(field, _HAS_NUL)
    encodable(field, value)
    if not value or value.isspace():
        refuse(field, "must not be empty")


def encodable(field: str, value: str) -> None:
    """Text that can be written as UTF-8."""
    if not value.isascii() and not _is_encodable(value):
        refuse(field, _HALF_PAIR)


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def writable(field: str, value: Any) -> None:
    """Anything that JSON can express and a server can store, at any depth. With `field` "", a mapping of fields."""
    problem = _unwritable(value)
    if problem:
        place, problem = _innermost(field, value, problem)
        refuse(place.removeprefix("."), problem)


# Far deeper than any request; a value that contains itself is refused at this depth.
_DEPTH = 10


def _innermost(field: str, value: Any, problem: str, depth: int = 0) -> tuple[str, str]:
    """The place below `field` of the problem, as far as its path can be shown, and the problem."""
    for step, item in _parts(value) if depth < _DEPTH else ():
        inner = _unwritable(item)
        if inner:
            return _innermost(field + step, item, inner, depth + 1)
    return field, problem


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        return [(f".{as_name(name)}".rstrip("."), item) for name, item in cast("Any", value).items()]
    if isinstance(value, list | tuple):
        return [(f"[{at}]", item) for at, item in enumerate(cast("list[Any]", value))]
    return ()


def _unwritable(value: Any) -> str:
    """Why a value cannot be sent; `""` if it can."""
    try:
        encoded = _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _HALF_PAIR
    except RecursionError:
        return "is nested too deeply"
    except Exception:  # an object of any class may fail in any way when it is read
        return "has a value that JSON cannot express; use text, numbers, booleans, None, lists and mappings"
    if b"null" in encoded and _has_infinity(value):  # the encoder would send it as null, which says something else
        return "has a number that is not finite, which JSON cannot express"
    return _HAS_NUL if b"\\u0000" in encoded and re.search(_NUL, encoded) else ""


def _has_infinity(value: Any) -> bool:
    """Whether there is a number in it, at any depth, that is infinite or NaN."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return any(_has_infinity(item) for _, item in _parts(value))


def domain(field: str, value: Any) -> None:
    """A domain, optionally with a path or a leading `-` to deny it: no scheme, no blanks, at most 253 characters."""
    if isinstance(value, str) and re.fullmatch(_USUAL_DOMAIN, value) and "://" not in value:
        return
    filled(field, value)
    bare = value.removeprefix("-")
    if "://" in bare:
        refuse(field, "must be a domain without a scheme: write example.com, not https://example.com")
    if not bare or any(ch.isspace() for ch in bare):
        refuse(field, "must be a domain such as example.com, without blanks")
    if len(bare) > 253:
        refuse(field, "must be at most 253 characters long")


def domains(field: str, value: Iterable[Any]) -> None:
    """Domains only."""
    for at, item in enumerate(value):
        domain(f"{field}[{at}]", item)


def allow_or_deny(field: str, value: list[str]) -> None:
    """Domains that are all allowed or all denied (`-example.com`), not a mix."""
    domains(field, value)
    denied = sum(item.startswith("-") for item in value)
    if 0 < denied < len(value):
        refuse(field, "mixes allowed and denied domains; give either names or -names, not both")


DATES = (
    "search_after_date_filter",
    "search_before_date_filter",
    "last_updated_after_filter",
    "last_updated_before_filter",
)
"""The date fields of both APIs."""


def recency_or_dates(field: str, given: Mapping[str, Any]) -> None:
    """The server accepts a recency or dates, not both. `field` is the recency's name, `given` has the filters."""
    if given.get("search_recency_filter") is None:
        return
    for name in DATES:
        if given.get(name) is not None:
            refuse(field, f"cannot be combined with {name}: give either a recency or dates")


def day(field: str, value: Any) -> str:
    """A day in the server's form: from a `datetime.date`, or from MM/DD/YYYY (leading zeros may be omitted)."""
    if isinstance(value, date):
        return f"{value.month:02}/{value.day:02}/{value.year:04}"
    match = re.fullmatch(_DATE, value) if isinstance(value, str) else None
    if match is None:
        refuse(field, "must be a date as MM/DD/YYYY, such as 03/01/2026, or a datetime.date")
    month, day_of_month, year = (int(part) for part in match.groups())
    if not _is_real(year, month, day_of_month):
        refuse(field, "does not exist in the calendar; dates are MM/DD/YYYY")
    return match[0]


def _is_real(year: int, month: int, day_of_month: int) -> bool:
    try:
        date(year, month, day_of_month)
    except ValueError:
        return False
    return True
