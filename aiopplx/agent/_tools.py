"""What an Agent request is made of below its own fields: input items, tools, the answer's form.

This module knows nothing of the request itself, of any endpoint, or of when something is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec

from aiopplx._wire import checks
from aiopplx._wire.checks import Rule, refuse
from aiopplx._wire.messages import JSONSchema, JSONSchemaFormat, RegexFormat, ResponseFormat, UserLocation, as_format

if TYPE_CHECKING:
    Day: TypeAlias = str | date
else:
    Day = str  # what mappings are read into: dates are written out before

REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The provider's migration guide has `max` and no `none`, its SDK (0.46.1) `none` and no `max`: both may be sent."""

_ROLES = ("user", "assistant", "system", "developer")
_RECENT = ("hour", "day", "week", "month", "year")
DATES = (
    "search_after_date_filter",
    "search_before_date_filter",
    "last_updated_after_filter",
    "last_updated_before_filter",
)


class _Tagged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """Shared by what the wire's `type` tells apart."""


class InputText(_Tagged, frozen=True, tag="input_text"):
    """Text within a message of several parts."""

    text: str


class InputImage(_Tagged, frozen=True, tag="input_image"):
    """An image: its https address, or a `data:` address that holds it."""

    image_url: str


class InputFile(_Tagged, frozen=True, kw_only=True, tag="input_file"):
    """A file to read: its address or its content. Known to the provider's SDK, not to its migration guide."""

    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None


class InputMessage(_Tagged, frozen=True, tag="message"):
    """One message of the input; `role` is `user`, `assistant`, `system` or `developer`, `content` text or parts."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | InputImage | InputFile]


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How hard the model thinks; more takes longer and costs more. None leaves it to the preset or the model."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class WebSearchFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which pages a search may find. What is None is not filtered.

    Attributes:
        search_domain_filter: at most 20 domains without a scheme; all allowed, or all denied (`-example.com`).
        search_recency_filter: how new a page must be; not beside any of the four dates.
        search_after_date_filter, search_before_date_filter: published after, before: a `date`, or MM/DD/YYYY.
        last_updated_after_filter, last_updated_before_filter: changed after, before: a `date`, or MM/DD/YYYY.
    """

    search_domain_filter: list[str] | None = None
    search_recency_filter: Literal["hour", "day", "week", "month", "year"] | None = None
    search_after_date_filter: Day | None = None
    search_before_date_filter: Day | None = None
    last_updated_after_filter: Day | None = None
    last_updated_before_filter: Day | None = None


class WebSearchTool(_Tagged, frozen=True, kw_only=True, tag="web_search"):
    """Searches the web. A preset brings one; naming it replaces that one, and leaves the preset's other tools.

    Attributes:
        filters: which pages may be found.
        user_location: where the asker is.
        search_context_size: how much of the pages is read.
        search_type: `web` or `fast`.
        max_results: pages a search may find, 1 to 50.
        max_tokens, max_tokens_per_page: how much text is taken of all pages together, and of one.
    """

    filters: WebSearchFilters | None = None
    user_location: UserLocation | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    search_type: Literal["web", "fast"] | None = None
    max_results: int | None = None
    max_tokens: int | None = None
    max_tokens_per_page: int | None = None


class FetchURLTool(_Tagged, frozen=True, kw_only=True, tag="fetch_url"):
    """Reads whole pages: `max_urls` (1 to 10) of them a call, `total_budget_tokens` (at most 120000) of text."""

    max_urls: int | None = None
    total_budget_tokens: int | None = None


class FunctionTool(_Tagged, frozen=True, tag="function"):
    """A function of yours; `parameters` is its JSON Schema. The run stops where the model calls it."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


_Known: TypeAlias = WebSearchTool | FetchURLTool | FunctionTool
Tool: TypeAlias = _Known | Mapping[str, Any]
InputItem: TypeAlias = InputMessage | Mapping[str, Any]

_TOOLS: dict[str, type[_Known]] = {
    "web_search": WebSearchTool,
    "fetch_url": FetchURLTool,
    "function": FunctionTool,
}
_WORDS = {
    "role": _ROLES,
    "type": ("input_text", "input_image", "input_file"),
    "effort": REASONING_EFFORTS,
    "search_recency_filter": _RECENT,
    "search_context_size": ("low", "medium", "high"),
    "search_type": ("web", "fast"),
}

# The limits are those of the provider's migration guide (request-mapping.md of its `api-platform-developers`
# repository), where the SDK's types (perplexityai 0.46.1) have the names only.
_MANY = 2**31 - 1
_IN_FILTERS: dict[str, Rule] = {
    "search_domain_filter": checks.allow_or_deny(most=20),
    "search_recency_filter": checks.one_of(*_RECENT),
    **dict.fromkeys(DATES, checks.day),
}
_IN_LOCATION: dict[str, Rule] = {
    "latitude": checks.number(-90, 90),
    "longitude": checks.number(-180, 180),
    "country": checks.two_letters("ISO 3166-1 country", "SG"),
    "region": checks.text,
    "city": checks.text,
}
_IN_TOOL: dict[str, Rule] = {
    "max_results": checks.whole(1, 50),
    "max_tokens": checks.whole(1, _MANY),
    "max_tokens_per_page": checks.whole(1, _MANY),
    "max_urls": checks.whole(1, 10),
    "total_budget_tokens": checks.whole(1, 120_000),
    "name": checks.filled,
    "description": checks.text,
    "parameters": checks.writable,
}


def _check_fields(field: str, value: msgspec.Struct, checks: Mapping[str, Rule]) -> None:
    for name in value.__struct_fields__:
        said = getattr(value, name)
        if said is not None and name in checks:
            checks[name](f"{field}.{name}", said)


def as_input(value: Any) -> str | list[Any]:
    """The input as it is sent, checked: a text, or a list of items. Raises `InvalidRequest`."""
    if isinstance(value, str):
        checks.filled("input", value)
        return value
    if not isinstance(value, list | tuple):
        refuse("input", f"must be a question or a list of items, not {checks.kind_of(value)}")
    if not value:
        refuse("input", "must not be empty")
    return [_as_item(f"input[{at}]", item) for at, item in enumerate(cast("Sequence[Any]", value))]


def _as_item(field: str, value: Any) -> InputMessage | dict[str, Any]:
    kind = "message" if isinstance(value, InputMessage) else _type_of(field, value, "message")
    if kind != "message":
        return _open(field, value)
    message = checks.converted(field, value, InputMessage, _WORDS)
    checks.writable(f"{field}.content", message.content)
    if _is_blank(message):
        refuse(f"{field}.content", "must not be empty")
    return message


def _is_blank(message: InputMessage) -> bool:
    if isinstance(message.content, str):
        return not message.content or message.content.isspace()
    return all(isinstance(part, InputText) and not part.text.strip() for part in message.content)


def _type_of(field: str, value: Any, default: str = "") -> str:
    """The `type` of a mapping, which tells what the rest of it must be."""
    if not isinstance(value, Mapping):
        refuse(field, f"must be a mapping, not {checks.kind_of(value)}")
    kind = cast("Mapping[str, Any]", value).get("type", default)
    checks.filled(f"{field}.type", kind)
    return cast("str", kind)


def _open(field: str, value: Any) -> dict[str, Any]:
    """A mapping of a type with no struct here, sent as it is: the server's list of them grows."""
    said: dict[str, Any] = dict(value)
    checks.writable(field, said)
    return said


def as_tools(value: Any) -> list[Any]:
    """The tools as they are sent, checked. Raises `InvalidRequest`."""
    if not isinstance(value, list | tuple):
        refuse("tools", f"must be a list, not {checks.kind_of(value)}")
    return [_as_tool(f"tools[{at}]", tool) for at, tool in enumerate(cast("Sequence[Any]", value))]


def _as_tool(field: str, value: Any) -> _Known | dict[str, Any]:
    if isinstance(value, _Known):
        kind: type[_Known] | None = type(value)
    else:
        kind = _TOOLS.get(_type_of(field, value))
    if kind is None:
        return _open(field, value)
    tool: _Known = checks.converted(field, _with_days(value), kind, _WORDS)
    _check_fields(field, tool, _IN_TOOL)
    if isinstance(tool, WebSearchTool):
        _check_search(field, tool)
    return tool


def _with_days(value: Any) -> Any:
    """The tool with the dates in its filters written as the server writes them."""
    tool = _shallow(value)
    filters = tool.get("filters")
    if isinstance(filters, WebSearchFilters | Mapping):
        tool["filters"] = {name: _as_day(said) for name, said in _shallow(filters).items()}
    return tool


def _shallow(value: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else dict(value)


def _as_day(value: Any) -> Any:
    """A date as MM/DD/YYYY, leading zeros and all: the successor's document names no other form."""
    value = checks.as_day(value)
    parts = value.split("/") if isinstance(value, str) else ()
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return value
    return f"{parts[0]:0>2}/{parts[1]:0>2}/{parts[2]}"


def _check_search(field: str, tool: WebSearchTool) -> None:
    if tool.user_location is not None:
        _check_fields(f"{field}.user_location", tool.user_location, _IN_LOCATION)
    if tool.filters is None:
        return
    field = f"{field}.filters"
    _check_fields(field, tool.filters, _IN_FILTERS)
    dates = [name for name in DATES if getattr(tool.filters, name) is not None]
    if dates and tool.filters.search_recency_filter is not None:
        refuse(f"{field}.search_recency_filter", f"cannot stand beside {dates[0]}: give either a recency or dates")


def as_reasoning(value: Any) -> Reasoning:
    """The reasoning settings as their struct, checked. Raises `InvalidRequest`."""
    return checks.converted("reasoning", value, Reasoning, _WORDS)


_FORMAT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def as_agent_format(value: Any) -> dict[str, Any] | None:
    """A response format as the Agent API writes it, None for free text: that is its default and has no word.

    Raises:
        InvalidRequest: it is no format, a regular expression, or a schema whose top is no object.
    """
    shaped: ResponseFormat = as_format(value)
    if isinstance(shaped, RegexFormat):
        refuse("response_format", "cannot be a regex on the Agent API; use a json_schema with a `pattern`")
    return _json_format(shaped.json_schema) if isinstance(shaped, JSONSchemaFormat) else None


def _json_format(asked: JSONSchema) -> dict[str, Any]:
    field = "response_format.json_schema"
    name = asked.name or "answer"
    if not _FORMAT_NAME.fullmatch(name):
        refuse(f"{field}.name", "must be 1 to 64 letters, digits, `_` or `-`")
    said: dict[str, Any] = {"name": name, "schema": _object_on_top(f"{field}.schema", asked.schema)}
    for further in ("description", "strict"):
        if getattr(asked, further) is not None:
            said[further] = getattr(asked, further)
    return {"type": "json_schema", "json_schema": said}


def _object_on_top(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with an object at the top, which is all that the server takes; a recursive type has a `$ref` there."""
    top = schema.get("$ref")
    definitions = schema.get("$defs")
    if isinstance(top, str) and isinstance(definitions, dict):
        body = cast("dict[str, Any]", definitions).get(top.removeprefix("#/$defs/"))
        if isinstance(body, dict):
            schema = {**cast("dict[str, Any]", body), "$defs": definitions}
    if schema.get("type") != "object":
        refuse(field, "must have `object` as its type at the top; wrap a list or a lone value in an object")
    return schema
