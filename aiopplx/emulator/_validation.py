"""Validation of sonar submissions: which bodies the service refuses, and with which rows of a 422.

Rules and ranges are those of the service's OpenAPI document; the wording of the rows is FastAPI's. Fields that the
document does not name are ignored silently, as the service does. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from aiopplx.emulator._json_types import is_list, is_object

Loc: TypeAlias = tuple[str | int, ...]
Row: TypeAlias = dict[str, Any]
Check: TypeAlias = Callable[[Any, Loc], list[Row]]

MODELS = ("sonar", "sonar-pro", "sonar-deep-research", "sonar-reasoning-pro")
_DATE = re.compile(r"(0?[1-9]|1[0-2])/(0?[1-9]|[12]\d|3[01])/\d{4}")
_DATES = (
    "search_after_date_filter",
    "search_before_date_filter",
    "last_updated_after_filter",
    "last_updated_before_filter",
)


def row(loc: Loc, message: str, type: str) -> Row:
    # Without an `input` member: the captured form has none, and it would repeat the prompt.
    return {"loc": list(loc), "msg": message, "type": type}


def missing(loc: Loc) -> Row:
    return row(loc, "Field required", "missing")


def _string(value: Any, loc: Loc) -> list[Row]:
    return [] if isinstance(value, str) else [row(loc, "Input should be a valid string", "string_type")]


def _boolean(value: Any, loc: Loc) -> list[Row]:
    return [] if isinstance(value, bool) else [row(loc, "Input should be a valid boolean", "bool_type")]


def _anything(value: Any, loc: Loc) -> list[Row]:
    return []


def _number(low: float, high: float) -> Check:
    def check(value: Any, loc: Loc) -> list[Row]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return [row(loc, "Input should be a valid number", "float_type")]
        if value < low:
            return [row(loc, f"Input should be greater than or equal to {low:g}", "greater_than_equal")]
        return [row(loc, f"Input should be less than or equal to {high:g}", "less_than_equal")] if value > high else []

    return check


def _max_tokens(value: Any, loc: Loc) -> list[Row]:
    if isinstance(value, bool) or not isinstance(value, int):
        return [row(loc, "Input should be a valid integer", "int_type")]
    if value <= 0:
        return [row(loc, "Input should be greater than 0", "greater_than")]
    return [row(loc, "Input should be less than or equal to 128000", "less_than_equal")] if value > 128_000 else []


def _one_of(*words: str) -> Check:
    quoted = [f"'{word}'" for word in words]
    message = (
        f"Input should be {', '.join(quoted[:-1])} or {quoted[-1]}" if quoted[1:] else f"Input should be {quoted[0]}"
    )
    return lambda value, loc: [] if isinstance(value, str) and value in words else [row(loc, message, "enum")]


def _list(each: Check, most: int | None = None) -> Check:
    def check(value: Any, loc: Loc) -> list[Row]:
        if not is_list(value):
            return [row(loc, "Input should be a valid list", "list_type")]
        if most is not None and len(value) > most:
            message = f"List should have at most {most} items after validation, not {len(value)}"
            return [row(loc, message, "too_long")]
        return [found for at, item in enumerate(value) for found in each(item, (*loc, at))]

    return check


def _date(value: Any, loc: Loc) -> list[Row]:
    if isinstance(value, str) and not _DATE.fullmatch(value):
        return [row(loc, "String should match the form MM/DD/YYYY", "string_pattern_mismatch")]
    return _string(value, loc)


def _either(first: type, check: Check, otherwise: Check) -> Check:
    return lambda value, loc: check(value, loc) if isinstance(value, first) else otherwise(value, loc)


def _nullable(check: Check) -> Check:
    return lambda value, loc: [] if value is None else check(value, loc)


def _object(fields: dict[str, Check], required: tuple[str, ...] = ()) -> Check:
    def check(value: Any, loc: Loc) -> list[Row]:
        if not is_object(value):
            return [row(loc, "Input should be a valid dictionary", "dict_type")]
        rows = [missing((*loc, name)) for name in required if name not in value]
        for name, check_member in fields.items():
            if name in value:
                rows += check_member(value[name], (*loc, name))
        return rows

    return check


def _tagged(choices: dict[str, Check]) -> Check:
    """An object whose `type` selects one of several forms."""
    expected = ", ".join(f"'{name}'" for name in choices)

    def check(value: Any, loc: Loc) -> list[Row]:
        if not is_object(value):
            return [row(loc, "Input should be a valid dictionary", "dict_type")]
        if "type" not in value:
            return [row(loc, "Unable to extract tag using discriminator 'type'", "union_tag_not_found")]
        chosen = choices.get(value["type"]) if isinstance(value["type"], str) else None
        if chosen is None:
            message = f"Input tag found using 'type' does not match any of the expected tags: {expected}"
            return [row(loc, message, "union_tag_invalid")]
        return chosen(value, loc)

    return check


def _link(name: str, further: dict[str, Check] | None = None) -> Check:
    url = _either(str, _string, _object({"url": _string, **(further or {})}, ("url",)))
    return _object({name: url, "file_name": _nullable(_string)}, (name,))


def _frame_interval(value: Any, loc: Loc) -> list[Row]:
    return [] if isinstance(value, str | int) else [row(loc, "Input should be a valid integer", "int_type")]


_PART = _tagged({
    "text": _object({"text": _string}, ("text",)),
    "image_url": _link("image_url"),
    "file_url": _link("file_url"),
    "pdf_url": _link("pdf_url"),
    "video_url": _link("video_url", {"frame_interval": _frame_interval}),
})
_MESSAGE = _object(
    {
        "role": _one_of("system", "user", "assistant", "tool"),
        "content": _nullable(_either(list, _list(_PART), _string)),
    },
    ("role", "content"),
)
_SCHEMA = _object(
    {
        "schema": _object({}),
        "name": _nullable(_string),
        "description": _nullable(_string),
        "strict": _nullable(_boolean),
    },
    ("schema",),
)
_LOCATION = _object({
    "latitude": _nullable(_number(-90, 90)),
    "longitude": _nullable(_number(-180, 180)),
    "country": _nullable(_string),
    "city": _nullable(_string),
    "region": _nullable(_string),
})
_WEB = _object({
    "search_context_size": _one_of("low", "medium", "high"),
    "search_type": _nullable(_one_of("fast", "pro", "auto")),
    "user_location": _nullable(_LOCATION),
    "image_results_enhanced_relevance": _boolean,
})
_FORMAT = _tagged({"text": _anything, "json_schema": _object({"json_schema": _SCHEMA}, ("json_schema",))})
_STRINGS = _nullable(_list(_string))

_REQUEST = _object(
    {
        "model": _string,
        "messages": _list(_MESSAGE),
        "max_tokens": _nullable(_max_tokens),
        "temperature": _nullable(_number(0, 2)),
        "top_p": _nullable(_number(0, 1)),
        "stop": _nullable(_either(list, _list(_string), _string)),
        "stream": _nullable(_boolean),
        "stream_mode": _one_of("full", "concise"),
        "response_format": _nullable(_FORMAT),
        "web_search_options": _WEB,
        "search_mode": _nullable(_one_of("web", "academic", "sec")),
        "reasoning_effort": _nullable(_one_of("minimal", "low", "medium", "high")),
        "search_recency_filter": _nullable(_one_of("hour", "day", "week", "month", "year")),
        "search_domain_filter": _nullable(_list(_string, 20)),
        **dict.fromkeys(_DATES, _nullable(_date)),
        **dict.fromkeys(("search_language_filter", "image_format_filter", "image_domain_filter"), _STRINGS),
        **dict.fromkeys(
            ("return_images", "return_related_questions", "enable_search_classifier", "disable_search"),
            _nullable(_boolean),
        ),
        "language_preference": _nullable(_string),
    },
    ("model", "messages"),
)
_BODY = _object({"request": _REQUEST, "idempotency_key": _nullable(_string)}, ("request",))


def rows_of(body: Any) -> list[Row]:
    """The rows of the 422 for a JSON body; none if it has the right shape."""
    return _BODY(body, ("body",))


class Refusal(NamedTuple):
    """A 400 for a body of the right shape."""

    type: str
    message: str


_ALTERNATE = (
    "After the (optional) system message(s), user or tool message(s) should alternate with assistant message(s)."
)


def refusal_of(request: dict[str, Any]) -> Refusal | None:
    """Refusals by rules that a schema cannot state."""
    if request["model"] not in MODELS:
        return Refusal(
            "invalid_model",
            f"Invalid model '{request['model']}'. Permitted models can be found in the documentation at"
            " https://docs.perplexity.ai/getting-started/models.",
        )
    if request.get("search_recency_filter") and any(request.get(name) for name in _DATES):
        # It is known that the two exclude each other; the service's wording is not.
        return Refusal("invalid_request", "search_recency_filter cannot be used together with date filters.")
    return _refused_messages([message["role"] for message in request["messages"]])


def _refused_messages(roles: list[str]) -> Refusal | None:
    spoken = list(roles)
    while spoken and spoken[0] == "system":
        spoken.pop(0)
    if not spoken:
        return Refusal("invalid_message", "At least one user message is required.")
    for at, role in enumerate(spoken):
        if (role == "assistant") != (at % 2 == 1) or role == "system":
            return Refusal("invalid_message", _ALTERNATE)
    return Refusal("invalid_message", "Last message must have role `user`.") if spoken[-1] == "assistant" else None
