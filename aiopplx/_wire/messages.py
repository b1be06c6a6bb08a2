"""The parts of a request: messages, search options, the form of the answer.

This module knows nothing of the request itself, of any endpoint, or of when something is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

import msgspec
from msgspec import Meta

from aiopplx._checks import rules
from aiopplx._checks.conversion import converted
from aiopplx._checks.rules import Country, refuse

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
_ROLES: tuple[str, ...] = get_args(Role)


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """Shared by all parts of a message: the wire's `type` tells them apart."""


class URL(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address in the server's longer form; a plain string means the same."""

    url: str


class VideoURL(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The address of a video. `frame_interval`: which frames to use; None is the server's default (25)."""

    url: str
    frame_interval: str | int | None = None


class TextPart(_Part, frozen=True, tag="text"):
    """Text within a message of several parts."""

    text: str


class ImagePart(_Part, frozen=True, tag="image_url"):
    """An image: its https address, or a `data:` address that holds it."""

    image_url: str | URL


class FilePart(_Part, frozen=True, tag="file_url"):
    """A file to read. `file_name` is what the answer may call it."""

    file_url: str | URL
    file_name: str | None = None


class PDFPart(_Part, frozen=True, tag="pdf_url"):
    """A PDF to read."""

    pdf_url: str | URL


class VideoPart(_Part, frozen=True, tag="video_url"):
    """A video."""

    video_url: str | VideoURL


Part: TypeAlias = TextPart | ImagePart | FilePart | PDFPart | VideoPart


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a conversation.

    Attributes:
        role: `system` (first, if at all), `user`, `assistant` or `tool`.
        content: text, or a list of parts. None is allowed for an assistant's message that only called tools.
    """

    role: Role
    content: str | list[TextPart | ImagePart | FilePart | PDFPart | VideoPart] | None


class UserLocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the user is, for answers that depend on the place.

    `latitude` -90 to 90 and `longitude` -180 to 180 in degrees; `country` is an ISO 3166-1 two-letter code.
    """

    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    country: Country | None = None
    region: str | None = None
    city: str | None = None


class WebSearchOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the web is searched. None leaves a setting to the server.

    Attributes:
        search_context_size: how much of the pages is read (the server's default is `low`); more costs more.
        search_type: `fast`, `pro`, or `auto` to let the model decide.
        user_location: where the user is.
        image_results_enhanced_relevance: filter images more strictly.
    """

    search_context_size: Literal["low", "medium", "high"] | None = None
    search_type: Literal["fast", "pro", "auto"] | None = None
    user_location: UserLocation | None = None
    image_results_enhanced_relevance: bool | None = None


class JSONSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A JSON Schema for the answer. None leaves `name`, `description` and `strict` to the server."""

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class Regex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A regular expression that the whole answer matches."""

    regex: str


class TextFormat(_Part, frozen=True, tag="text"):
    """Free text: the server's default."""


class JSONSchemaFormat(_Part, frozen=True, tag="json_schema"):
    """The answer is JSON of this schema; read it with `job.parse(Type)`."""

    json_schema: JSONSchema


class RegexFormat(_Part, frozen=True, tag="regex"):
    """The answer matches a regular expression. Known to the provider's SDK, not to its public document."""

    regex: Regex


ResponseFormat: TypeAlias = TextFormat | JSONSchemaFormat | RegexFormat


def as_options(field: str, value: Any) -> WebSearchOptions:
    """Search options as a checked struct. Raises `InvalidRequest`."""
    options = converted(field, value, WebSearchOptions)
    rules.writable(field, options)
    return options


def as_message(value: Message | Mapping[str, Any], field: str) -> Message:
    """A message as a struct, checked at every level; `field` is its place. Raises `InvalidRequest`."""
    if isinstance(value, Message) and isinstance(cast("object", value.content), str):
        message = value
        if message.role not in _ROLES:
            refuse(f"{field}.role", f"must be one of {', '.join(_ROLES)}")
    else:
        message = converted(field, value, Message)
    rules.writable(f"{field}.content", message.content)
    return message


def _is_blank(message: Message) -> bool:
    content = message.content
    if isinstance(content, str):
        return not content or content.isspace()
    return all(isinstance(part, TextPart) and not part.text.strip() for part in content or ())


def conversation_of(messages: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """The messages as structs, in an order that the server accepts.

    Its rule: system messages first, if any; then user (or tool) and assistant alternate; the user's is the last.

    Raises:
        InvalidRequest: names the message by its index.
    """
    conversation = [as_message(message, f"messages[{at}]") for at, message in enumerate(messages)]
    turn = ""
    for at, message in enumerate(conversation):
        if message.role == "user" and _is_blank(message):
            refuse(f"messages[{at}].content", "must not be empty")
        if message.role == "system":
            if turn:
                refuse(f"messages[{at}].role", "a system message must come before all others")
            continue
        now = "assistant" if message.role == "assistant" else "user"
        if not turn and now == "assistant":
            refuse(f"messages[{at}].role", "an assistant message cannot open a conversation; a user message must")
        if now == turn:
            refuse(
                f"messages[{at}].role",
                f"follows another {message.role} message"
                if message.role == conversation[at - 1].role
                else f"{message.role} follows {conversation[at - 1].role}; user or tool and assistant must alternate",
            )
        turn = now
    if conversation and conversation[-1].role != "user":
        refuse(f"messages[{len(conversation) - 1}].role", "the last message must be the user's")
    return conversation


def as_format(field: str, value: Any) -> ResponseFormat:
    """A response format as a struct: one of the three, a mapping of that shape, or a Python type's JSON Schema.

    Raises:
        InvalidRequest: it is none of these, or the type has no JSON Schema.
    """
    if isinstance(value, type) or hasattr(value, "__origin__"):
        try:
            hash(value)
        except TypeError:
            return JSONSchemaFormat(_schema_of.__wrapped__(value))
        return JSONSchemaFormat(_schema_of(value))
    if not isinstance(value, Mapping | TextFormat | JSONSchemaFormat | RegexFormat):
        refuse(
            field, f"must be a Python type, a mapping or a response format, not {rules.kind_of(cast('object', value))}"
        )
    shaped = converted(field, value, cast("type[ResponseFormat]", ResponseFormat))
    rules.writable(field, shaped)
    return shaped


@lru_cache(maxsize=64)  # making a schema costs a hundred times what freezing a request does
def _schema_of(kind: Any) -> JSONSchema:
    """The JSON Schema of a Python type, named after it."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", getattr(kind, "__name__", "schema"))[:64]
    schema: Any = None
    try:
        own = getattr(kind, "model_json_schema", None)
        schema = own() if own is not None else _without_top_ref(msgspec.json.schema(kind))
    except Exception:  # the class may be anything; pydantic's own refusals are RuntimeErrors
        schema = None
    if not isinstance(schema, dict):
        refuse(
            "response_format",
            f"{name} cannot be converted to a JSON Schema; use a msgspec Struct, a dataclass or a pydantic model",
        )
    return JSONSchema(cast("dict[str, Any]", schema), name=name)


def _without_top_ref(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the type itself at the top: services require an object there, and msgspec puts a `$ref`."""
    definitions: dict[str, Any] = dict(schema.get("$defs", {}))
    top = schema.get("$ref", "").removeprefix("#/$defs/")
    if top not in definitions:
        return schema
    body = definitions[top]
    ref = msgspec.json.encode({"$ref": f"#/$defs/{top}"})[1:-1]
    if ref not in msgspec.json.encode(definitions):  # otherwise it refers to itself, and the definition must stay
        del definitions[top]
    return {**body, "$defs": definitions} if definitions else body
