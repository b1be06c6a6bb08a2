"""A `ResearchRequest` translated for the Agent API, or a refusal that names what has no counterpart there.

The mapping is the provider's own (the request mapping of its skill `migrate-sonar-to-agent-api`, in the GitHub
repository perplexityai/api-platform-developers); the field names of the tool are those of its SDK (perplexityai
0.46.1). This module knows nothing of endpoints, of sending, or of which API a session uses.
"""

from __future__ import annotations

from typing import Any

from aiopplx._checks.rules import DATES, as_name
from aiopplx._errors import InvalidRequest
from aiopplx._wire.messages import (
    URL,
    FilePart,
    ImagePart,
    Message,
    Part,
    PDFPart,
    RegexFormat,
    TextPart,
    WebSearchOptions,
)
from aiopplx._wire.request import ResearchRequest
from aiopplx.agent._request import EFFORTS, AgentRequest
from aiopplx.agent._tools import (
    InputImage,
    InputMessage,
    InputText,
    Reasoning,
    WebSearchFilters,
    WebSearchTool,
)

# The provider's guide of July to September 2026. Its skill, as of August, maps deep research to `medium`, which does a
# fraction of the work at a fraction of the price; `model="medium"` asks for that.
PRESETS = {
    "sonar": "fast",
    "sonar-pro": "low",
    "sonar-reasoning-pro": "medium",
    "sonar-deep-research": "high",
}
_PRESET_NAMES = frozenset(
    EFFORTS
    | {
        "wide-research",
        "fast-search",
        "pro-search",
        "deep-research",
        "advanced-deep-research",
    }  # names before August 2026, still accepted
)

_IMAGES = 'the tool {"type": "image_search"} of an AgentRequest, or ask for image addresses in the question'
_NONE = "there is no replacement"
_INSTEAD = {
    "stop": "say in the question where the answer should end",
    "search_mode": 'for `sec` the tool {"type": "finance_search"} of an AgentRequest; for `academic` name journals'
    " and archives in search_domain_filter",
    "search_language_filter": "language_preference for the answer, search_domain_filter for the pages",
    "return_images": _IMAGES,
    "image_domain_filter": _IMAGES,
    "image_format_filter": _IMAGES,
    "return_related_questions": "ask for them in the question, or in a response_format",
    "disable_search": "AgentRequest(..., max_tool_calls=0)",
    "web_search_options.search_type": "a preset as the model (`low`, `high`, ...), or max_steps of an AgentRequest",
    "web_search_options.image_results_enhanced_relevance": _IMAGES,
}
_INSTEAD_OF_EXTRA = {
    "num_search_results": "AgentRequest(..., tools=[WebSearchTool(max_results=...)])",
    "tools": "AgentRequest(..., tools=[FunctionTool(...)])",
    "tool_choice": "AgentRequest(..., tool_choice=...)",
    "parallel_tool_calls": "AgentRequest(..., parallel_tool_calls=...)",
    "safe_search": _NONE,
    "top_k": _NONE,
    "presence_penalty": _NONE,
    "frequency_penalty": _NONE,
    "logprobs": _NONE,
    "top_logprobs": _NONE,
    "n": "submit the question several times",
    "best_of": "submit the question several times",
    "num_images": _IMAGES,
    "return_videos": _NONE,
    "num_videos": _NONE,
    "media_response": _NONE,
}
# Values that request the Agent API's default behaviour.
_SAYS_NOTHING: dict[str, tuple[object, ...]] = {
    "search_mode": ("web",),
    "return_images": (False,),
    "return_related_questions": (False,),
    "disable_search": (False,),
}
# There the model decides whether to search, as the classifier did: both values are without effect.
_DROPPED = frozenset({"enable_search_classifier"})
_SAME = ("temperature", "top_p", "language_preference")


class _Missing:
    """Collects fields without a counterpart, so that one refusal names all of them."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}

    def add(self, field: str, instead: str = _NONE) -> None:
        self.fields.setdefault(field, instead)

    def refuse(self, tag: str | int | None) -> None:
        if not self.fields:
            return
        said = "; ".join(f"{field}: {instead}" for field, instead in self.fields.items())
        raise InvalidRequest(
            f"unknown to the Agent API, which would refuse the request. Instead: {said}",
            field=", ".join(self.fields),
            tag=tag,
        )


def translate(request: ResearchRequest) -> AgentRequest:
    """The same question as a request of the Agent API.

    Messages become `input` and `instructions`; the model becomes an effort (`sonar-deep-research` is `high`; the name
    of an effort, a release of one, or a `provider/model`, is used unchanged); filters and options become those of the
    web search tool; `max_tokens` becomes `max_output_tokens`, and `reasoning_effort` becomes `reasoning.effort`. Tag,
    timeout and idempotency key are kept. Note that `instructions`, the system messages, replace the effort's own
    prompt.

    Raises:
        InvalidRequest: the request breaks a rule of its own API; or it has fields without a counterpart in the Agent
            API: one error, whose `field` names all of them, and whose message says for each what to use instead.
    """
    said = request.wire()
    missing = _Missing()
    text, instructions = _conversation(said["messages"], missing)
    fields: dict[str, Any] = {name: said[name] for name in _SAME if name in said}
    fields |= _model(request.model, missing)
    tool = _search_tool(said, missing)
    if tool is None and "model" in fields:
        tool = WebSearchTool()  # a bare model only searches if it is given the tool
    if tool is not None:
        fields["tools"] = [tool]
    _unknown(request, said, missing)
    missing.refuse(request.tag)
    return AgentRequest(
        text,
        instructions=instructions,
        max_output_tokens=request.max_tokens,
        reasoning=Reasoning(request.reasoning_effort) if request.reasoning_effort is not None else None,
        response_format=said.get("response_format"),
        tag=request.tag,
        idempotency_key=request.idempotency_key,
        timeout=request.timeout,
        **fields,
    )


def _model(model: str, missing: _Missing) -> dict[str, str]:
    if "/" in model:
        return {"model": model}
    name, at, version = model.partition("@")
    preset = PRESETS.get(model) or (model if name in _PRESET_NAMES and (version or not at) else "")
    if not preset:
        missing.add(
            "model",
            f"one of {', '.join(PRESETS)}, an effort such as `high`, a release of one such as `high@2026-10-16.0`, or a"
            " name as `provider/model`",
        )
    return {"preset": preset or "high"}


def _conversation(messages: list[Message], missing: _Missing) -> tuple[str | list[InputMessage], str | None]:
    """(input, instructions): a single question stays a text; system messages become the instructions."""
    system = [_system_text(at, message, missing) for at, message in enumerate(messages) if message.role == "system"]
    items = [_item(at, message, missing) for at, message in enumerate(messages) if message.role != "system"]
    spoken = [item for item in items if item is not None]
    instructions = "\n\n".join(system) if system else None
    if len(spoken) == 1 and isinstance(spoken[0].content, str):
        return spoken[0].content, instructions
    return spoken, instructions


def _system_text(at: int, message: Message, missing: _Missing) -> str:
    return _joined(f"messages[{at}].content", message, missing)


def _joined(field: str, message: Message, missing: _Missing) -> str:
    """A content as one text, for places where the Agent API accepts no parts."""
    if not isinstance(message.content, list):
        return message.content or ""
    for place, part in enumerate(message.content):
        if not isinstance(part, TextPart):
            missing.add(f"{field}[{place}]", "give it in a user message")
    return "".join(part.text for part in message.content if isinstance(part, TextPart))


def _item(at: int, message: Message, missing: _Missing) -> InputMessage | None:
    field = f"messages[{at}]"
    if message.role == "tool":
        missing.add(f"{field}.role", "for `tool` an item of type function_call_output in the input of an AgentRequest")
        return None
    if message.role == "assistant":
        if message.content is None:
            missing.add(f"{field}.content", "an item of type function_call in the input of an AgentRequest")
        return InputMessage("assistant", _joined(f"{field}.content", message, missing))
    if not isinstance(message.content, list):
        return InputMessage("user", message.content or "")
    parts = [_part(f"{field}.content[{place}]", part, missing) for place, part in enumerate(message.content)]
    return InputMessage("user", [part for part in parts if part is not None])


def _part(field: str, part: Part, missing: _Missing) -> InputText | InputImage | None:
    if isinstance(part, TextPart):
        return InputText(part.text)
    if isinstance(part, ImagePart):
        return InputImage(part.image_url.url if isinstance(part.image_url, URL) else part.image_url)
    kind = "file_url" if isinstance(part, FilePart) else "pdf_url" if isinstance(part, PDFPart) else "video_url"
    # The SDK has an `input_file` part, but the guide says that files are gone: not translated without being asked.
    instead = "an InputFile in the input of an AgentRequest, at the caller's risk, or the address in the question"
    missing.add(field, f"for {kind} {_NONE if kind == 'video_url' else instead}")
    return None


def _search_tool(said: dict[str, Any], missing: _Missing) -> WebSearchTool | None:
    """The tool with the filters and options; None if there are none, so that the preset keeps its own."""
    names = ("search_domain_filter", "search_recency_filter", *DATES)
    filters = {name: said[name] for name in names if name in said}
    options: WebSearchOptions = said.get("web_search_options") or WebSearchOptions()
    if options.search_type is not None:
        missing.add("web_search_options.search_type", _INSTEAD["web_search_options.search_type"])
    if options.image_results_enhanced_relevance:
        missing.add("web_search_options.image_results_enhanced_relevance", _IMAGES)
    tool = WebSearchTool(
        filters=WebSearchFilters(**filters) if filters else None,
        user_location=options.user_location,
        search_context_size=options.search_context_size,
    )
    return tool if tool != WebSearchTool() else None


_COUNTERPARTS = frozenset(
    {"model", "messages", "max_tokens", "reasoning_effort", "response_format", "web_search_options", *_SAME, *DATES}
    | {"search_domain_filter", "search_recency_filter"}
)


def _unknown(request: ResearchRequest, said: dict[str, Any], missing: _Missing) -> None:
    """Adds all given fields that are not known to have a counterpart, so that no new field slips through."""
    for name, value in said.items():
        if name in request.extra:
            place = f"extra.{as_name(name)}".rstrip(".")
            missing.add(place, _INSTEAD_OF_EXTRA.get(name, "a field of the Agent API goes into an AgentRequest"))
        elif name not in _COUNTERPARTS and name not in _DROPPED and value not in _SAYS_NOTHING.get(name, ()):
            missing.add(name, _INSTEAD.get(name, _NONE))
    if isinstance(said.get("response_format"), RegexFormat):
        missing.add("response_format", "for a regex a json_schema with a `pattern`")
