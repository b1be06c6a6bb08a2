"""The parts of an Agent request: input items, tools, the form of the answer.

The rule of a field is its type; see `_checks`. This module knows nothing of the request itself, of any endpoint, or of
when something is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from aiopplx._checks import rules
from aiopplx._checks.conversion import converted
from aiopplx._checks.rules import DATES, Filled, Recency, refuse
from aiopplx._wire.messages import JSONSchema, JSONSchemaFormat, RegexFormat, ResponseFormat, UserLocation, as_format

if TYPE_CHECKING:
    Day: TypeAlias = str | date
else:
    Day = str  # the type that mappings are converted to: dates are formatted before

# The limits are those of the provider's migration guide (request-mapping.md of its `api-platform-developers`
# repository); the SDK's types (perplexityai 0.46.1) only have the names.
_Tokens: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class _Tagged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """Base of the parts that the wire's `type` distinguishes."""


class InputText(_Tagged, frozen=True, tag="input_text"):
    """Text within a message of several parts."""

    text: str


class InputImage(_Tagged, frozen=True, tag="input_image"):
    """An image: its https address, or a `data:` address that holds it."""

    image_url: str


class InputFile(_Tagged, frozen=True, kw_only=True, tag="input_file"):
    """A file to read: its address or its content. In the provider's SDK, but not in its migration guide."""

    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None


class InputMessage(_Tagged, frozen=True, tag="message"):
    """One message of the input; `role` is `user`, `assistant`, `system` or `developer`, `content` text or parts."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | InputImage | InputFile]


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How hard the model thinks; more takes longer and costs more. None leaves it to the preset or the model."""

    # The provider's migration guide has `max` but not `none`, its SDK (0.46.1) `none` but not `max`: both may be sent.
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class WebSearchFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which pages a search may find. None means no filter.

    Attributes:
        search_domain_filter: at most 20 domains without a scheme; all allowed, or all denied (`-example.com`).
        search_recency_filter: how new a page must be; not together with any of the four dates.
        search_after_date_filter, search_before_date_filter: published after, before: a `date`, or MM/DD/YYYY.
        last_updated_after_filter, last_updated_before_filter: changed after, before: a `date`, or MM/DD/YYYY.
    """

    search_domain_filter: Annotated[list[str], Meta(max_length=20)] | None = None
    search_recency_filter: Recency | None = None
    search_after_date_filter: Day | None = None
    search_before_date_filter: Day | None = None
    last_updated_after_filter: Day | None = None
    last_updated_before_filter: Day | None = None


class WebSearchTool(_Tagged, frozen=True, kw_only=True, tag="web_search"):
    """Searches the web. It replaces the preset's own web search, and keeps the preset's other tools.

    Attributes:
        filters: which pages may be found.
        user_location: where the user is.
        search_context_size: how much of the pages is read.
        search_type: `web` or `fast`.
        max_results: pages that a search may find, 1 to 50.
        max_tokens, max_tokens_per_page: how much text is used of all pages together, and of one page.
    """

    filters: WebSearchFilters | None = None
    user_location: UserLocation | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    search_type: Literal["web", "fast"] | None = None
    max_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    max_tokens: _Tokens | None = None
    max_tokens_per_page: _Tokens | None = None


class FetchURLTool(_Tagged, frozen=True, kw_only=True, tag="fetch_url"):
    """Reads full pages: `max_urls` (1 to 10) per call, `total_budget_tokens` (at most 120000) of text."""

    max_urls: Annotated[int, Meta(ge=1, le=10)] | None = None
    total_budget_tokens: Annotated[int, Meta(ge=1, le=120_000)] | None = None


class FunctionTool(_Tagged, frozen=True, tag="function"):
    """A function of the caller; `parameters` is its JSON Schema. The run stops when the model calls it."""

    name: Filled
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ImageSearchFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which images a search may find: from these domains, in these formats, and whether only harmless ones."""

    domain_filter: list[Filled] | None = None
    format_filter: list[Literal["bmp", "gif", "jpeg", "png", "webp", "svg"]] | None = None
    safe_search: bool | None = None


class ImageSearchTool(_Tagged, frozen=True, kw_only=True, tag="image_search"):
    """Searches for images; `max_results` per search."""

    filters: ImageSearchFilters | None = None
    max_results: Annotated[int, Meta(ge=1)] | None = None


class PeopleSearchTool(_Tagged, frozen=True, tag="people_search"):
    """Searches for people."""


_Label: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9_-]{1,64}\Z")]
_Approval: TypeAlias = Literal["always", "never"] | dict[str, Any]


class ConnectorTool(_Tagged, frozen=True, kw_only=True, tag="connector"):
    """A connector of the organization.

    Attributes:
        id: the connector's id.
        server_label: a name for it in this request, at most 64 letters, digits, `_` and `-`.
        allowed_tools: the only tools of it that may be called.
        require_approval: with `always` a run stops before each call, to ask; `aiopplx` cannot answer that.
        server_description: what it is for.
    """

    id: Filled
    server_label: _Label
    allowed_tools: list[Filled] | None = None
    require_approval: _Approval | None = None
    server_description: str | None = None


class MCPTool(_Tagged, frozen=True, kw_only=True, tag="mcp"):
    """The tools of an MCP server, called by the provider.

    `authorization` and `headers` are sent with the request, and so stand in the journal; they are left out of the repr.

    Attributes:
        server_label: a name for it in this request, at most 64 letters, digits, `_` and `-`.
        server_url: its https address.
        allowed_tools: the only tools of it that may be called.
        authorization: an OAuth access token for it.
        headers: further headers for it.
        require_approval: with `always` a run stops before each call, to ask; `aiopplx` cannot answer that.
        defer_loading: list its tools only when they are needed.
    """

    server_label: _Label
    server_url: Annotated[str, Meta(pattern=r"\Ahttps://[^/\s]")]
    allowed_tools: list[Filled] | None = None
    authorization: str | None = None
    headers: dict[Filled, str] | None = None
    require_approval: _Approval | None = None
    defer_loading: bool | None = None

    def __repr__(self) -> str:
        """Without what may be secret."""
        return f"MCPTool(server_label={self.server_label!r}, server_url={self.server_url!r})"


_Known: TypeAlias = (
    WebSearchTool | FetchURLTool | FunctionTool | ImageSearchTool | PeopleSearchTool | ConnectorTool | MCPTool
)
Tool: TypeAlias = _Known | Mapping[str, Any]
InputItem: TypeAlias = InputMessage | Mapping[str, Any]

_TOOLS: dict[str, type[_Known]] = {
    "web_search": WebSearchTool,
    "fetch_url": FetchURLTool,
    "function": FunctionTool,
    "image_search": ImageSearchTool,
    "people_search": PeopleSearchTool,
    "connector": ConnectorTool,
    "mcp": MCPTool,
}


def as_input(field: str, value: Any) -> str | list[Any]:
    """The input in its form on the wire, checked: a text, or a list of items. Raises `InvalidRequest`."""
    if isinstance(value, str):
        rules.filled(field, value)
        return value
    if not isinstance(value, list | tuple):
        refuse(field, f"must be a question or a list of items, not {rules.kind_of(value)}")
    if not value:
        refuse(field, "must not be empty")
    return [_as_item(f"{field}[{at}]", item) for at, item in enumerate(cast("Sequence[Any]", value))]


def _as_item(field: str, value: Any) -> InputMessage | dict[str, Any]:
    kind = "message" if isinstance(value, InputMessage) else _type_of(field, value, "message")
    if kind != "message":
        return _open(field, value)
    message = converted(field, value, InputMessage)
    rules.writable(f"{field}.content", message.content)
    if _is_blank(message):
        refuse(f"{field}.content", "must not be empty")
    return message


def _is_blank(message: InputMessage) -> bool:
    if isinstance(message.content, str):
        return not message.content or message.content.isspace()
    return all(isinstance(part, InputText) and not part.text.strip() for part in message.content)


def _type_of(field: str, value: Any, default: str = "") -> str:
    """The `type` of a mapping, which decides what the rest of it must be."""
    if not isinstance(value, Mapping):
        refuse(field, f"must be a mapping, not {rules.kind_of(value)}")
    kind = cast("Mapping[str, Any]", value).get("type", default)
    rules.filled(f"{field}.type", kind)
    return cast("str", kind)


def _open(field: str, value: Any) -> dict[str, Any]:
    """A mapping of a type that has no struct here, sent unchanged: the server's list of types grows."""
    said: dict[str, Any] = dict(value)
    rules.writable(field, said)
    return said


def as_tools(field: str, value: Any) -> list[Any]:
    """The tools in their form on the wire, checked. Raises `InvalidRequest`."""
    if not isinstance(value, list | tuple):
        refuse(field, f"must be a list, not {rules.kind_of(value)}")
    return [_as_tool(f"{field}[{at}]", tool) for at, tool in enumerate(cast("Sequence[Any]", value))]


def _as_tool(field: str, value: Any) -> _Known | dict[str, Any]:
    if isinstance(value, _Known):
        kind: type[_Known] | None = type(value)
    else:
        kind = _TOOLS.get(_type_of(field, value))
    if kind is None:
        return _open(field, value)
    tool: _Known = converted(field, _with_days(field, value), kind)
    rules.writable(field, tool)
    if isinstance(tool, WebSearchTool) and tool.filters is not None:
        _check_filters(f"{field}.filters", tool.filters)
    return tool


def _with_days(field: str, value: Any) -> Any:
    """The tool with the dates of its filters in the server's form."""
    tool = _shallow(value)
    filters = tool.get("filters")
    if isinstance(filters, WebSearchFilters | Mapping):
        tool["filters"] = {
            name: _as_day(f"{field}.filters.{name}", said) if name in DATES and said is not None else said
            for name, said in _shallow(filters).items()
        }
    return tool


def _shallow(value: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else dict(value)


def _as_day(field: str, value: Any) -> str:
    """A day as MM/DD/YYYY with leading zeros: the Agent API's document names no other form."""
    month, day, year = rules.day(field, value).split("/")
    return f"{month:0>2}/{day:0>2}/{year}"


def _check_filters(field: str, filters: WebSearchFilters) -> None:
    if filters.search_domain_filter is not None:
        rules.allow_or_deny(f"{field}.search_domain_filter", filters.search_domain_filter)
    rules.recency_or_dates(f"{field}.search_recency_filter", msgspec.structs.asdict(filters))


def as_reasoning(field: str, value: Any) -> Reasoning:
    """The reasoning settings as a checked struct. Raises `InvalidRequest`."""
    return converted(field, value, Reasoning)


_FORMAT_NAME = r"[A-Za-z0-9_-]{1,64}"


def as_agent_format(field: str, value: Any) -> dict[str, Any] | None:
    """A response format in the Agent API's form; None for free text, which is the default and cannot be asked for.

    Raises:
        InvalidRequest: it is not a format, is a regular expression, or is a schema without an object at the top.
    """
    shaped: ResponseFormat = as_format(field, value)
    if isinstance(shaped, RegexFormat):
        refuse(field, "cannot be a regex on the Agent API; use a json_schema with a `pattern`")
    return _json_format(f"{field}.json_schema", shaped.json_schema) if isinstance(shaped, JSONSchemaFormat) else None


def _json_format(field: str, asked: JSONSchema) -> dict[str, Any]:
    name = asked.name or "answer"
    if not re.fullmatch(_FORMAT_NAME, name):
        refuse(f"{field}.name", "must be 1 to 64 letters, digits, `_` or `-`")
    said: dict[str, Any] = {"name": name, "schema": _object_on_top(f"{field}.schema", asked.schema)}
    for further in ("description", "strict"):
        if getattr(asked, further) is not None:
            said[further] = getattr(asked, further)
    return {"type": "json_schema", "json_schema": said}


def _object_on_top(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with an object at the top, as the server requires; a recursive type has a `$ref` there."""
    top = schema.get("$ref")
    definitions = schema.get("$defs")
    if isinstance(top, str) and isinstance(definitions, dict):
        body = cast("dict[str, Any]", definitions).get(top.removeprefix("#/$defs/"))
        if isinstance(body, dict):
            schema = {**cast("dict[str, Any]", body), "$defs": definitions}
    if schema.get("type") != "object":
        refuse(field, "must have `object` as its type at the top; wrap a list or a single value in an object")
    return schema
