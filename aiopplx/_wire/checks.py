"""What may be said in one field: small checks that refuse a value by naming its field and the rule.

This module knows nothing of requests, of which field has which rule, or of any API. No refusal repeats what was said:
the value may be the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, NoReturn, TypeVar, cast

import msgspec

from aiopplx._errors import InvalidRequest

T = TypeVar("T")

Rule = Callable[[str, Any], None]
"""Takes the field's name and its value; returns if the value may be sent, raises `InvalidRequest` otherwise."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DATE = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_ENCODER = msgspec.json.Encoder()


def refuse(field: str, rule: str) -> NoReturn:
    """Raise the refusal of `field`. `rule` is a sentence without the value."""
    raise InvalidRequest(rule, field=field)


def kind_of(value: object) -> str:
    """The name of a value's type, for a refusal."""
    return type(value).__name__


def as_name(key: object) -> str:
    """A key if it looks like a field's name, `""` otherwise: what else stands where a name should may be a prompt."""
    return key if isinstance(key, str) and _NAME.fullmatch(key) else ""


def shown(key: object) -> str:
    """A key as it may stand in a message."""
    name = as_name(key)
    return f"`{name}`" if name else "of that name"


def text(field: str, value: Any) -> None:
    """Any text that can leave as UTF-8 JSON. NUL is refused too: JSON can write it, databases behind servers cannot."""
    if not isinstance(value, str):
        refuse(field, f"must be text, not {kind_of(value)}")
    if "\0" in value:
        refuse(field, "has a NUL character (\\x00), which cannot be sent")
    if not value.isascii() and not _encodable(value):
        refuse(field, "has half of a surrogate pair, which UTF-8 cannot say; was it cut in the middle of an emoji?")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def filled(field: str, value: Any) -> None:
    """Text with something in it."""
    text(field, value)
    if not value or value.isspace():
        refuse(field, "must not be empty")


def flag(field: str, value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        refuse(field, f"must be True or False, not {kind_of(value)}")


def one_of(*words: str) -> Rule:
    """One of the server's words, in its spelling."""

    def rule(field: str, value: Any) -> None:
        if not isinstance(value, str) or value not in words:
            refuse(field, f"must be one of {', '.join(words)}")

    return rule


def whole(low: int, high: int) -> Rule:
    """A whole number from `low` to `high`, both included."""

    def rule(field: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            refuse(field, f"must be a whole number from {low} to {high}")

    return rule


def number(low: float, high: float) -> Rule:
    """A number from `low` to `high`, both included; NaN is in no range."""

    def rule(field: str, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            refuse(field, f"must be a number from {low:g} to {high:g}")

    return rule


def positive(field: str, value: Any) -> None:
    """A number of seconds above zero, and not endless."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        refuse(field, "must be a number of seconds above 0")


def each(rule: Rule) -> Rule:
    """A list of which every item keeps `rule`. A lone text is the common slip, so the message shows the right form."""

    def check_all(field: str, value: Any) -> None:
        if isinstance(value, str):
            refuse(field, "must be a list of texts; write one text as [text]")
        if not isinstance(value, list | tuple):
            refuse(field, f"must be a list, not {kind_of(value)}")
        for at, item in enumerate(cast("list[Any]", value)):
            rule(f"{field}[{at}]", item)

    return check_all


def one_or_each(rule: Rule) -> Rule:
    """One text, or a list of them."""
    many = each(rule)

    def check_either(field: str, value: Any) -> None:
        (rule if isinstance(value, str) else many)(field, value)

    return check_either


def two_letters(what: str, example: str) -> Rule:
    """A two-letter code. Only the form is checked: lists of countries and languages grow."""

    def rule(field: str, value: Any) -> None:
        if not (isinstance(value, str) and len(value) == 2 and value.isascii() and value.isalpha()):
            refuse(field, f"must be a two-letter {what} code such as {example!r}")

    return rule


def domain(field: str, value: Any) -> None:
    """A domain, perhaps with a path, perhaps denied by a leading `-`: no scheme, no blanks, at most 253 characters."""
    filled(field, value)
    bare = value.removeprefix("-")
    if "://" in bare:
        refuse(field, "must be a domain without a scheme: write example.com, not https://example.com")
    if not bare or any(ch.isspace() for ch in bare):
        refuse(field, "must be a domain such as example.com, without blanks")
    if len(bare) > 253:
        refuse(field, "must be at most 253 characters long")


def allow_or_deny(most: int) -> Rule:
    """At most `most` domains, all allowed or all denied (`-example.com`), not a mix."""
    domains = each(domain)

    def rule(field: str, value: Any) -> None:
        domains(field, value)
        if len(value) > most:
            refuse(field, f"has {len(value)} domains; at most {most} are taken")
        denied = sum(item.startswith("-") for item in value)
        if 0 < denied < len(value):
            refuse(field, "mixes allowed and denied domains; give either names or -names, not both")

    return rule


def day(field: str, value: Any) -> None:
    """A day of the calendar: a `datetime.date`, or text as MM/DD/YYYY (leading zeros may be left out)."""
    if isinstance(value, date):
        return
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        refuse(field, "must be a date as MM/DD/YYYY, such as 03/01/2026, or a datetime.date")
    month, day_of_month, year = (int(part) for part in match.groups())
    if not _is_real(year, month, day_of_month):
        refuse(field, "is no day of the calendar; dates are MM/DD/YYYY")


def _is_real(year: int, month: int, day_of_month: int) -> bool:
    try:
        date(year, month, day_of_month)
    except ValueError:
        return False
    return True


def as_day(value: Any) -> Any:
    """A date as the server writes it (MM/DD/YYYY); anything else as it is."""
    return f"{value.month:02}/{value.day:02}/{value.year:04}" if isinstance(value, date) else value


def idempotency_key(field: str, value: Any) -> None:
    """Printable ASCII, 1 to 255 characters. The provider states no limit; 255 is what other services take."""
    if not isinstance(value, str) or not value:
        refuse(field, "must be text and not empty; leave it out to have one made")
    if len(value) > 255:
        refuse(field, "must be at most 255 characters long")
    if not (value.isascii() and value.isprintable()):
        refuse(field, "must be printable ASCII")


def writable(field: str, value: Any) -> None:
    """Anything that JSON can say, at any depth."""
    problem, encoded = "", b""
    try:
        encoded = _ENCODER.encode(value)
    except UnicodeEncodeError:
        problem = "has half of a surrogate pair somewhere, which UTF-8 cannot say"
    except RecursionError:
        problem = "is nested too deeply"
    except (TypeError, ValueError, OverflowError):
        problem = "has a value that JSON cannot say; use text, numbers, booleans, None, lists and mappings"
    if problem:
        refuse(field, problem)
    if _NUL.search(encoded):
        refuse(field, "has a NUL character (\\x00) somewhere, which cannot be sent")


# msgspec says which field and why. These are its sentences that repeat no value; all others are replaced.
_SAID = re.compile(r"(?P<why>.*?)(?: - at `(?:key in )?\$(?P<at>.*)`)?", re.DOTALL)
_PLAIN = re.compile(r"Expected `[^`]*`(?:, got `[^`]*`)?|Object missing required field `[^`]*`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def converted(field: str, value: Any, kind: type[T], words: Mapping[str, tuple[str, ...]]) -> T:
    """`value` (mappings, lists, structs) as `kind`, checked to the leaves whoever built it.

    `words` has, by the name of a field, the words it takes: they go into the refusal in place of what was written.
    """
    said = ""
    try:
        return msgspec.convert(msgspec.to_builtins(value), kind)
    except msgspec.ValidationError as error:
        said = str(error)
    except (TypeError, ValueError, RecursionError):
        said = "has a value that JSON cannot say"
    match = _SAID.fullmatch(said)
    why, at = (match["why"], match["at"] or "") if match else ("", "")
    path = f"{field}{at}" if field else at.removeprefix(".")
    unknown = _UNKNOWN.fullmatch(why)
    if unknown:
        refuse(path, f"has no field {shown(unknown[1])}")
    taken = words.get(path.rpartition(".")[2])
    if why.startswith("Invalid") and taken:
        refuse(path, f"must be one of {', '.join(taken)}")
    plain = _PLAIN.fullmatch(why) or why.startswith("has ")
    refuse(path, f"{why[:1].lower()}{why[1:]}".replace("`", "") if plain else "is not a value that this field takes")
