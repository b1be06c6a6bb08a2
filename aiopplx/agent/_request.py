"""The request of the Agent API with its own fields, and its form on the wire.

The rule of a field is its type (see `_checks`); rules across fields are in `_wire`. The fields and limits are those of
the provider's SDK (perplexityai 0.46.1) and of its migration guide. This module knows nothing of endpoints, of retries,
of jobs, or of the other API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import Meta

from aiopplx._checks.rules import Filled, Fraction, Language, Temperature, refuse
from aiopplx._job import TagT
from aiopplx._wire.request import Reader, Request
from aiopplx.agent._tools import InputItem, Reasoning, Tool, as_agent_format, as_input, as_reasoning, as_tools

if TYPE_CHECKING:
    from aiopplx._wire.messages import ResponseFormat

    Input: TypeAlias = str | Sequence[InputItem]
    Tools: TypeAlias = Sequence[Tool]
    Format: TypeAlias = ResponseFormat | type[Any] | Mapping[str, Any]
else:
    # These have readers of their own, as they may not be plain JSON.
    Input = Tools = Format = Any

DEFAULT_PRESET = "high"
"""The counterpart of `sonar-deep-research` in the provider's migration guide."""

EFFORTS = frozenset({"fast", "low", "medium", "high", "xhigh"})
"""The names that `effort` has, by the provider's page of October 2026."""

_Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
_INT32 = 2**31 - 1


class _Asked(Request[TagT], frozen=True):
    """The one field that may be given by position: `kw_only` applies to all fields that a class declares."""

    input: Input = ""


class AgentRequest(_Asked[TagT], frozen=True, kw_only=True):
    """One run of the Agent API, with all of that API's options.

    `AgentRequest("Why did the Vasa sink?")` is enough. A field that is None is not sent: the server's default holds.
    Building one checks nothing; `check` does, and every submission is checked before it is sent.

    Attributes:
        input: the question, or a list of items: `InputMessage`s, or mappings of the server's shapes.
        effort: how much work goes into the run: model, prompt and tools under one name, `fast`, `low`, `medium`,
            `high` or `xhigh`, or a release of one (`high@2026-10-16.0`), which does not change. `high`, the one for
            deep research, if no `preset`, `model`, `models` or `profile` is given.
        preset: the server's older word for `effort`, which precedes it. It is sent as `effort`, unless it is one of the
            names that only it has, such as `wide-research`.
        model: the model that answers, as `provider/model`. Without an effort it has only the tools in `tools`.
        models: at most 5 models, tried in order.
        profile: a stored configuration, `{"type": "custom", "id": ...}`, in place of an effort.
        instructions: instructions for the model; they replace the preset's own prompt.
        tools: `WebSearchTool`, `ImageSearchTool`, `PeopleSearchTool`, `FetchURLTool`, `FunctionTool`, `ConnectorTool`,
            `MCPTool`, or mappings of the server's other shapes. Each replaces
            the preset's tool of that type.
        tool_choice: `none`, `auto`, `required`, or a mapping that names a tool.
        parallel_tool_calls: whether tools may run at the same time.
        max_tool_calls: at most this many tool calls; 0 disables all tools.
        max_steps: at most this many rounds of research, 1 to 100.
        max_output_tokens: at most this many tokens of output; required for the Anthropic models.
        reasoning: how hard the model thinks.
        response_format: the form of the answer: a msgspec Struct, a dataclass or a pydantic model (the answer is then
            JSON for `job.parse(Type)`), or a `JSONSchemaFormat`, or a mapping of that shape.
        temperature: 0 to 2; more is more varied.
        top_p: 0 to 1; nucleus sampling.
        language_preference: ISO 639-1 code of the answer's language.
        previous_response_id: the run that this one continues.
        metadata: at most 16 strings, of at most 512 characters, that the server stores with the run, by names of 1 to
            64 characters.
        prompt_cache_key: requests under one key share the server's cache.
        service_tier: speed against price.
        skills: skills that the model may load, as mappings of the server's shapes.
        step_budget_reminder: tell the model how many steps it has left.
        truncation: `auto` or `disabled`: whether an input that is too long may be cut.
        store: True or None. With False the run could not be collected, and would still be billed.
        background: True or None: a job is a background run.
        stream, stream_options: not applicable to a job, never sent.
        extra: further fields for the server, sent unchanged, at the caller's risk: it refuses unknown fields.
        meta: the caller's own columns for this question, as JSON values by name; never sent.
        tag: a value of the caller's choice; it is returned on the job, and not sent.
        idempotency_key: the caller's own name for the submission, 1 to 255 characters of printable ASCII; kept on the
            job and not sent, since this API has no such field: a submission that is sent twice is billed twice.
        timeout: seconds for this job, above 0; None is the session's.
    """

    effort: Filled | None = None
    preset: Filled | None = None
    model: Filled | None = None
    models: Annotated[list[Filled], Meta(min_length=1, max_length=5)] | None = None
    profile: dict[str, Any] | None = None
    instructions: str | None = None
    tools: Tools | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=0, le=_INT32)] | None = None
    max_steps: Annotated[int, Meta(ge=1, le=100)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=_INT32)] | None = None
    reasoning: Reasoning | None = None
    response_format: Format | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    language_preference: Language | None = None
    previous_response_id: Filled | None = None
    metadata: _Metadata | None = None
    prompt_cache_key: Filled | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "fast"] | None = None
    skills: list[dict[str, Any]] | None = None
    step_budget_reminder: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    asks_by: ClassVar[str] = "input"
    _home: ClassVar[str] = 'the Agent API: open the session with api="agent" or "auto"'
    _readers: ClassVar[Mapping[str, Reader]] = {
        "input": as_input,
        "tools": as_tools,
        "reasoning": as_reasoning,
        "response_format": as_agent_format,
    }
    _other_names: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("content", "messages", "prompt", "q", "query", "question", "text"), "input"),
        "max_tokens": "max_output_tokens",
        "reasoning_effort": "reasoning",
        "web_search_options": "tools",
    }

    @property
    def asked_model(self) -> str | None:
        """The model that is asked for by name; None if a preset, an effort or the server chooses."""
        return self.model

    @classmethod
    def is_meant_by(cls, item: Mapping[str, object]) -> bool:
        """Whether a mapping uses the Agent API's fields: it has `input`, and neither `question` nor `messages`."""
        return "input" in item and not {"question", "messages"} & item.keys()

    def _wire(self) -> dict[str, Any]:
        sent = self._checked()
        if "input" not in sent:
            as_input("input", self.input)  # refuses None
        if sent.pop("background", True) is False:
            refuse("background", "a job is a run in the background; leave background out")
        if sent.get("store") is False:
            refuse("store", "a run that is not stored cannot be collected, and is billed all the same; leave store out")
        if sent.pop("stream", False):
            refuse("stream", "a job is collected when it is finished and cannot be streamed; leave stream out")
        sent.pop("stream_options", None)
        if sent.get("response_format", ...) is None:
            del sent["response_format"]  # free text is the server's default, and cannot be asked for
        if "profile" in sent and ("effort" in sent or "preset" in sent):
            refuse("profile", "cannot be given together with an effort (or preset): leave one of them out")
        if _WHO_ANSWERS.isdisjoint(sent):
            sent["preset"] = DEFAULT_PRESET
        if "max_output_tokens" not in sent and ("model" in sent or "models" in sent):
            named = [sent.get("model", ""), *sent.get("models", ())]
            # An undocumented rule of the server, known only from a captured refusal.
            if any(name.startswith("anthropic/") for name in named):
                refuse("max_output_tokens", "must be given with an Anthropic model")
        sent["background"] = True
        return sent


def newest(sent: dict[str, Any]) -> dict[str, Any]:
    """A request in its form on the wire with the server's newest word: `effort` where it said `preset`.

    Apart from `wire`, whose bytes name a question in journals and must never change.
    """
    if "effort" in sent:
        sent.pop("preset", None)
    elif str(sent.get("preset")).partition("@")[0] in EFFORTS:
        sent["effort"] = sent.pop("preset")
    return sent


_WHO_ANSWERS = frozenset({"effort", "preset", "model", "models", "profile"})
