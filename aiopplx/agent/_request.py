"""The request of the Agent API in its own words, its rules, and its form on the wire.

Whatever the server would refuse is refused here, before anything is sent or paid, by a message that names the field and
the rule and never repeats the prompt. This module knows nothing of endpoints, of retries, of jobs, or of the other API.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, cast

import msgspec

from aiopplx._errors import InvalidRequest
from aiopplx._wire import checks
from aiopplx._wire.checks import Rule, refuse
from aiopplx.agent._tools import InputItem, Reasoning, Tool, as_agent_format, as_input, as_reasoning, as_tools

if TYPE_CHECKING:
    from aiopplx._wire.messages import ResponseFormat

    Input: TypeAlias = str | Sequence[InputItem]
    Tools: TypeAlias = Sequence[Tool]
    Format: TypeAlias = ResponseFormat | type[Any] | Mapping[str, Any]
else:
    # What mappings are read into: these have readers of their own, since they may hold what is no JSON.
    Input = Tools = Format = Any

DEFAULT_PRESET = "high"
"""What `sonar-deep-research` maps to in the provider's migration guide."""


class _Asked(msgspec.Struct, frozen=True):
    """The one field that may be given by position."""

    input: Input = ""


class AgentRequest(
    _Asked, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, repr_omit_defaults=True
):
    """One run of the Agent API, with everything that may be said about it in that API's own words.

    `AgentRequest("Why did the Vasa sink?")` is enough. What is None is not sent: the server's own default holds.
    Building one checks nothing; `check_agent` does, and every submission is checked before it is sent.

    Attributes:
        input: the question, or a list of items: `InputMessage`s, or mappings of the server's shapes.
        effort: how much work goes into the run; the provider's newer word for `preset`, and stronger than it.
        preset: model, prompt and tools under one name: `fast`, `low`, `medium`, `high`, `xhigh`, `wide-research`, ...
            `high`, the one for deep research, where no `effort`, `model`, `models` or `profile` is given.
        model: which model answers, as `provider/model`. Without a preset it has no tools unless `tools` names them.
        models: at most 5 models, tried in order.
        profile: a stored configuration: `{"type": "custom", "id": ...}`.
        instructions: what the model is told beforehand; takes the place of the preset's own prompt.
        tools: `WebSearchTool`, `FetchURLTool`, `FunctionTool`, or mappings of the server's other shapes. Each takes the
            place of the preset's tool of that type.
        tool_choice: `none`, `auto`, `required`, or a mapping that names a tool.
        parallel_tool_calls: whether tools may run at once.
        max_tool_calls: at most this many calls of tools; 0 switches all off.
        max_steps: at most this many rounds of research, 1 to 100.
        max_output_tokens: at most this many tokens of output; the Anthropic models want it given.
        reasoning: how hard the model thinks.
        response_format: the form of the answer: a msgspec Struct, a dataclass or a pydantic model (the answer is then
            JSON for `job.parse(Type)`), or a `JSONSchemaFormat`, or a mapping of that shape.
        temperature: 0 to 2; more is more varied.
        top_p: 0 to 1; nucleus sampling.
        language_preference: ISO 639-1 code of the answer's language.
        previous_response_id: the run that this one goes on from.
        metadata: at most 16 texts of yours that the server keeps with the run: names of at most 64 characters, values
            of at most 512.
        prompt_cache_key: requests under one key share the server's cache.
        service_tier: how fast, at what price.
        skills: what the model may load as it works, as mappings of the server's shapes.
        step_budget_reminder: tell the model how many steps it has left.
        truncation: `auto` or `disabled`: whether an input that is too long may be cut.
        store: True or nothing. The run could not be collected otherwise, and would be paid for all the same.
        background: True or nothing: a job is a run in the background.
        stream, stream_options: no meaning for a job, never sent.
        extra: further fields for the server, sent as they are, at your own risk: it refuses any that it does not know.
        tag: yours: it comes back on the job, and is not sent.
        idempotency_key: your own name for the submission, printable ASCII of at most 255 characters; kept on the job
            and not sent, since this API knows no such field: sent twice is paid twice.
        timeout: seconds for this job; None takes the session's.
    """

    effort: str | None = None
    preset: str | None = None
    model: str | None = None
    models: list[str] | None = None
    profile: dict[str, Any] | None = None
    instructions: str | None = None
    tools: Tools | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    max_steps: int | None = None
    max_output_tokens: int | None = None
    reasoning: Reasoning | None = None
    response_format: Format | None = None
    temperature: float | None = None
    top_p: float | None = None
    language_preference: str | None = None
    previous_response_id: str | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "fast"] | None = None
    skills: list[dict[str, Any]] | None = None
    step_budget_reminder: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    extra: dict[str, Any] = {}
    tag: str | int | None = None
    idempotency_key: str | None = None
    timeout: float | None = None

    @classmethod
    def of(cls, item: str | Mapping[str, object] | AgentRequest) -> AgentRequest:
        """A request from what a user has: a question, a mapping of these fields (a line of JSONL), or a request.

        In a mapping, None means not given. Types are checked here; the rules of the values in `check_agent`.

        Raises:
            InvalidRequest: no such field (the nearest is named), or a value of the wrong type (its path is named). It
                bears the mapping's `tag`.
        """
        if isinstance(item, AgentRequest):
            return item
        if isinstance(item, str):
            return cls(item)
        if isinstance(cast("object", item), Mapping):
            return _of_mapping(item)
        raise InvalidRequest(f"must be a question, a mapping or an AgentRequest, not {checks.kind_of(item)}")


AGENT_FIELDS = AgentRequest.__struct_fields__
_CHOICES = ("none", "auto", "required")
_TIERS = ("auto", "default", "flex", "priority", "fast")
_TRUNCATIONS = ("auto", "disabled")
_ENOUGH = 2**31 - 1


def _models(field: str, value: Any) -> None:
    checks.each(checks.filled)(field, value)
    if not 1 <= len(value) <= 5:
        refuse(field, f"has {len(value)} models; 1 to 5 are taken")


def _metadata(field: str, value: Any) -> None:
    _object(field, value)
    if len(value) > 16:
        refuse(field, f"has {len(value)} names; at most 16 are taken")
    for name, said in value.items():
        checks.text(field, name)
        if not 1 <= len(name) <= 64:
            refuse(field, "has a name that is empty or longer than 64 characters")
        place = f"{field}.{checks.as_name(name)}".rstrip(".")
        checks.text(place, said)
        if len(said) > 512:
            refuse(place, "must be at most 512 characters long")


def _object(field: str, value: Any) -> None:
    if not isinstance(value, dict):
        refuse(field, f"must be a mapping, not {checks.kind_of(value)}")
    checks.writable(field, value)


def _choice(field: str, value: Any) -> None:
    (_object if isinstance(value, dict) else checks.one_of(*_CHOICES))(field, value)


_SENT: dict[str, Rule] = {
    "effort": checks.filled,
    "preset": checks.filled,
    "model": checks.filled,
    "models": _models,
    "profile": _object,
    "instructions": checks.text,
    "tool_choice": _choice,
    "parallel_tool_calls": checks.flag,
    "max_tool_calls": checks.whole(0, _ENOUGH),
    "max_steps": checks.whole(1, 100),
    "max_output_tokens": checks.whole(1, _ENOUGH),
    "temperature": checks.number(0, 2),
    "top_p": checks.number(0, 1),
    "language_preference": checks.two_letters("ISO 639-1 language", "en"),
    "previous_response_id": checks.filled,
    "metadata": _metadata,
    "prompt_cache_key": checks.filled,
    "service_tier": checks.one_of(*_TIERS),
    "skills": checks.each(_object),
    "step_budget_reminder": checks.flag,
    "truncation": checks.one_of(*_TRUNCATIONS),
    "store": checks.flag,
}
"""The plain fields that are sent, each with its rule."""

_KEPT: dict[str, Rule] = {
    "idempotency_key": checks.idempotency_key,
    "timeout": checks.positive,
    "background": checks.flag,
    "stream": checks.flag,
}


def agent_wire(request: AgentRequest) -> dict[str, Any]:
    """The request as the server reads it, checked: what is None left out, `background` always True.

    Raises:
        InvalidRequest: a rule is broken; names the field and the rule, bears the request's tag.
    """
    try:
        return _wire(request)
    except InvalidRequest as error:
        error.tag = request.tag if isinstance(cast("object", request.tag), str | int) else None
        raise


def check_agent(request: AgentRequest) -> None:
    """Refuse whatever the server would refuse. Raises `InvalidRequest`, as `agent_wire` does."""
    agent_wire(request)


def _wire(request: AgentRequest) -> dict[str, Any]:
    sent: dict[str, Any] = {"input": as_input(request.input), "background": True}
    for name, rule in _SENT.items():
        value = getattr(request, name)
        if value is not None:
            rule(name, value)
            sent[name] = value
    if request.tools is not None:
        sent["tools"] = as_tools(request.tools)
    if request.reasoning is not None:
        sent["reasoning"] = as_reasoning(request.reasoning)
    written = as_agent_format(request.response_format) if request.response_format is not None else None
    if written is not None:
        sent["response_format"] = written
    if not any(name in sent for name in ("effort", "preset", "model", "models", "profile")):
        sent["preset"] = DEFAULT_PRESET
    _check_models(sent)
    _check_kept(request)
    sent.update(_extra(request.extra))
    return sent


def _check_models(sent: dict[str, Any]) -> None:
    """A rule of the server's that is in a captured refusal only."""
    named = [sent.get("model", ""), *sent.get("models", ())]
    if "max_output_tokens" not in sent and any(name.startswith("anthropic/") for name in named):
        refuse("max_output_tokens", "must be given with a model of Anthropic's")


def _check_kept(request: AgentRequest) -> None:
    """The fields that are not sent, and those that have one value only."""
    for name, rule in _KEPT.items():
        value = getattr(request, name)
        if value is not None:
            rule(name, value)
    if request.background is False:
        refuse("background", "a job is a run in the background; leave background out")
    if request.store is False:
        refuse("store", "a run that is not stored cannot be collected, and is billed all the same; leave store out")
    if request.stream:
        refuse("stream", "a job is collected when it is finished and cannot be streamed; leave stream out")
    if not isinstance(cast("object", request.tag), str | int | None):
        refuse("tag", f"must be text, a whole number or None, not {checks.kind_of(request.tag)}")


def _extra(extra: Any) -> dict[str, Any]:
    if not isinstance(extra, dict):
        refuse("extra", f"must be a mapping of further fields, not {checks.kind_of(extra)}")
    further = cast("dict[str, Any]", extra)
    for name in further:
        if name in AGENT_FIELDS:
            refuse(f"extra.{name}", f"is a field of its own: give {name}=... instead")
        if not isinstance(cast("object", name), str):
            refuse("extra", "has a name that is not text")
    checks.writable("extra", further)
    return further


_WORDS = {"service_tier": _TIERS, "truncation": _TRUNCATIONS}
_READ_APART: dict[str, Callable[[Any], Any]] = {
    "input": as_input,
    "tools": as_tools,
    "reasoning": as_reasoning,
    "extra": _extra,
}
_OTHER_NAMES = {
    **dict.fromkeys(("content", "messages", "prompt", "q", "query", "question", "text"), "input"),
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning",
    "web_search_options": "tools",
}


def _of_mapping(item: Mapping[str, object]) -> AgentRequest:
    tag = item.get("tag")
    try:
        return _read(item)
    except InvalidRequest as error:
        error.tag = tag if isinstance(tag, str | int) else None
        raise


def _read(item: Mapping[str, object]) -> AgentRequest:
    given = {name: value for name, value in item.items() if value is not None}
    for name in given:
        if name not in AGENT_FIELDS:
            _refuse_field(name)
    whole = {name: read(given.pop(name)) for name, read in _READ_APART.items() if name in given}
    if "response_format" in given:
        # Kept as it was given: `as_agent_format` has no word for free text. Read for its refusals.
        whole["response_format"] = given.pop("response_format")
        as_agent_format(whole["response_format"])
    return msgspec.structs.replace(checks.converted("", given, AgentRequest, _WORDS), **whole)


def _refuse_field(name: object) -> NoReturn:
    text = name if isinstance(name, str) else ""
    nearest = difflib.get_close_matches(text, AGENT_FIELDS, n=1)
    meant = _OTHER_NAMES.get(text) or (nearest[0] if nearest else "")
    hint = f"did you mean `{meant}`?" if meant else "a field that only the server knows goes into `extra`"
    raise InvalidRequest(f"an Agent request has no field {checks.shown(name)}; {hint}", field=checks.as_name(name))
