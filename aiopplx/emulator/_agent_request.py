"""Validation of Agent API create bodies: which ones the service accepts, and how it words its refusals.

The API is strict: an unknown field is refused at any depth. Fields and ranges are those of the service's documents; the
wording is captured where a capture exists, and imitates the captures elsewhere. Pure.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from typing import Any, Literal

import msgspec

from aiopplx.emulator._agent_tools import check_tool
from aiopplx.emulator._json_types import is_list, is_object
from aiopplx.emulator._strict import Refused, Strict, converted, refusal_of, within

# The levels, which `effort` and `preset` both name.
LEVELS = ("fast", "low", "medium", "high", "xhigh")
# Those that `preset` names, with their former names as far as these are known.
PRESETS = {
    **{name: name for name in LEVELS},
    "fast-search": "fast",
    "pro-search": "low",
    "deep-research": "medium",
    "advanced-deep-research": "high",
    "wide-research": "xhigh",
}
LATEST = "2026-10-16.0"
"""The release that a level without a version stands for."""
_VERSION = re.compile(r"\d{4}-\d\d-\d\d\.\d{1,4}")
_SLUG = re.compile(r"[a-z0-9_-]+/[A-Za-z0-9][\w.:-]*")
# Accepted unchecked: their members are documented only in part.
_OTHER_ITEMS = (
    "function_call",
    "function_call_output",
    "reasoning",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
)


class _Part(Strict):
    type: Literal["input_text", "input_image", "input_file"]
    text: str | None = None
    image_url: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None


class _Message(Strict):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Part]
    type: str | None = None


class _Schema(Strict):
    schema: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class _Format(Strict):
    type: str
    json_schema: _Schema | None = None


class _Reasoning(Strict):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None


class _StreamOptions(Strict):
    include_usage: bool | None = None


class Asking(Strict):
    """The body of a create, once all its fields have the right types."""

    input: Any = None
    background: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    model: str | None = None
    models: list[str] | None = None
    preset: str | None = None
    effort: str | None = None
    profile: dict[str, Any] | None = None
    instructions: str | None = None
    language_preference: str | None = None
    max_output_tokens: int | None = None
    max_steps: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning: _Reasoning | None = None
    response_format: _Format | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "fast"] | None = None
    skills: list[dict[str, Any]] | None = None
    step_budget_reminder: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    tool_choice: Any = None
    tools: list[dict[str, Any]] | None = None
    truncation: str | None = None

    @property
    def named_model(self) -> str:
        """The model that was asked for; "" if a preset chooses it."""
        return self.models[0] if self.models else self.model or ""

    @property
    def level(self) -> str:
        """The level that was asked for, without its version; effort takes precedence. "" if none was."""
        return PRESETS[(self.effort or self.preset or "").partition("@")[0]] if self.effort or self.preset else ""

    @property
    def configuration(self) -> str:
        """The level with its version, as the answer names it under both words; "" if none was asked for."""
        version = (self.effort or self.preset or "").partition("@")[2]
        return f"{self.level}@{version or LATEST}" if self.level else ""

    @property
    def bundle(self) -> str:
        """What supplies model and tools where they are not named: a level, or a profile; "" for a bare model."""
        return self.level or ("custom" if self.profile is not None else "")

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema for the answer; None without one."""
        form = self.response_format
        return form.json_schema.schema if form is not None and form.json_schema is not None else None

    @property
    def question(self) -> str:
        """The text of the last user message."""
        if isinstance(self.input, str):
            return self.input
        said = [_text(item) for item in self.input if item.get("role") == "user"]
        return next((text for text in reversed(said) if text), "")

    @property
    def chars(self) -> int:
        """How many characters the model has to read."""
        items: list[Any] = [] if isinstance(self.input, str) else self.input
        texts = [self.input] if isinstance(self.input, str) else [_text(item) for item in items]
        return len(self.instructions or "") + sum(len(text) for text in texts)

    def has_tool(self, type: str) -> bool | None:
        """Whether the request lists this tool; None if it has no `tools`, in which case the preset's own are used."""
        return any(tool.get("type") == type for tool in self.tools) if self.tools else None


def _text(item: dict[str, Any]) -> str:
    content: Any = item.get("content")
    if is_list(content):
        return " ".join(str(part.get("text") or "") for part in content)
    return content if isinstance(content, str) else ""


def refuse_unknown(body: bytes, unknown: Collection[str]) -> None:
    """Raises `Refused` for a member that a service of an earlier release does not know."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        for name in members.keys() & set(unknown):
            raise Refused(f'invalid request body: json: unknown field "{name}"', param=name)


def read(body: bytes) -> Asking:
    """Parse and check a create body.

    Raises:
        Refused: the service would refuse it.
    """
    try:
        asking = msgspec.json.decode(body, type=Asking)
    except msgspec.ValidationError as problem:
        raise refusal_of(problem) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("invalid request body: invalid JSON") from None
    _check_input(asking.input)
    _check_model(asking)
    _check_numbers(asking)
    _check_metadata(asking.metadata or {})
    _check_format(asking.response_format)
    for at, tool in enumerate(asking.tools or ()):
        check_tool(tool, f"tools[{at}]")
    if not (asking.tool_choice in (None, "none", "auto", "required") or is_object(asking.tool_choice)):
        raise Refused("validation failed: tool_choice must be none, auto, required or an object")
    return asking


def _check_input(value: Any) -> None:
    if value == "":
        raise Refused("validation failed: input cannot be empty")
    if isinstance(value, str):
        return
    if not is_list(value) or not value:
        # The service says the same of a number, of an object and of a missing input.
        raise Refused("validation failed: input array cannot be empty")
    for at, item in enumerate(value):
        kind = item.get("type") or "message" if is_object(item) else None
        if kind == "message":
            converted(_Message, item)
        elif kind not in _OTHER_ITEMS:
            raise Refused(f"validation failed: input[{at}]: unknown item")


def _check_model(asking: Asking) -> None:
    if asking.models is not None and not 1 <= len(asking.models) <= 5:
        raise Refused("validation failed: models must have 1 to 5 entries")
    _check_level("effort", asking.effort, LEVELS)
    _check_level("preset", asking.preset, PRESETS)
    if not asking.named_model and not asking.bundle:
        raise Refused("validation failed: one of model, models, preset, effort, profile is required")
    if asking.level and asking.profile is not None:
        raise Refused("validation failed: either effort (or preset) or profile can be given, not both")
    for model in asking.models or filter(None, [asking.model]):
        if not _SLUG.fullmatch(model):
            raise Refused(f"invalid model: {model}", "invalid_model")
        if model.startswith("anthropic/") and asking.max_output_tokens is None:
            raise Refused("validation failed: max_output_tokens is required when using Anthropic models")


def _check_level(field: str, value: str | None, names: Collection[str]) -> None:
    name, at, version = (value or "").partition("@")
    if value and (name not in names or (at and not _VERSION.fullmatch(version))):
        raise Refused(f"validation failed: unknown {field} {value!r}")


def _check_numbers(asking: Asking) -> None:
    within(asking.max_output_tokens, 1, None, "max output tokens")
    within(asking.max_steps, 1, 100, "max steps")
    within(asking.max_tool_calls, 0, None, "max tool calls")
    within(asking.temperature, 0, 2, "temperature")
    within(asking.top_p, 0, 1, "top p")


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > 16:
        raise Refused("validation failed: metadata must have at most 16 keys")
    if any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()):
        raise Refused("validation failed: metadata keys have at most 64 characters, values 512")


def _check_format(form: _Format | None) -> None:
    if form is None or form.type == "text":
        return
    if form.type != "json_schema":
        raise Refused(f"validation failed: response_format.type {form.type!r} is not supported")
    if form.json_schema is None or form.json_schema.schema is None:
        raise Refused('validation failed: response_format.json_schema is required when type is "json_schema"')
    root = form.json_schema.schema.get("type")
    if root != "object":
        raise Refused(
            f"json_schema.schema must have a root type of 'object' (got type=\"{root}\"). Wrap your data in an object"
            " property (e.g. {'type': 'object', 'properties': {'items': {'type': 'array', 'items': ...}}}).",
            "invalid_parameter",
        )
