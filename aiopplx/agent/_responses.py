"""The answers of the Agent API as structs, which convert themselves to the job model.

Unknown fields are ignored, unknown items of the output are kept unchanged, and all fields but the run's id may be
missing. The structs are frozen and read from JSON, so none is part of a cycle: the garbage collector need not visit the
hundred sources of each of ten thousand results (`gc=False`). This module knows nothing of endpoints, of bytes or of
HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeAlias

import msgspec

from aiopplx._errors import RequiredAction
from aiopplx._job import Answer, JobFile, Source, Usage
from aiopplx._text.thought import is_thought, joined, split, thought_in
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import words_of
from aiopplx._wire.addresses import annotated, pages_in, with_urls
from aiopplx._wire.decoding import loosely_within, salvaged
from aiopplx._wire.roles import Marked, Part, answering, is_of_another
from aiopplx._wire.status import is_answer


class Annotation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A range of the text and the page it cites. The server defines the form, but no answer seen so far has any.

    Some gateways put the page into an object, `url_citation`.
    """

    type: str | None = None
    url_citation: Any = None
    url: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class ContentPart(Marked, frozen=True, gc=False, kw_only=True):
    """One part: `output_text` or `refusal` in a message, `summary_text` or `reasoning_text` in reasoning.

    `content`, `summary`, the other fields for reasoning, `channel`, `phase` and `recipient` are not the provider's own.
    """

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    annotations: list[Annotation] | None = None
    content: Any = None
    summary: Any = None

    def kind(self) -> Part:
        """What it is, by what it says of itself. A flag that it is thought stands in the place of the thought."""
        return Part.THOUGHT if self.thought is True else self.part()

    def said(self) -> str | None:
        """Its text, or what stands in a field for reasoning."""
        if self.text:
            return self.text
        beside = self.thoughts_beside() if self.has_thinking() else ()
        return joined([*beside, thought_in(self.content), thought_in(self.summary)]) or None


class _Item(Marked, frozen=True, gc=False, kw_only=True, tag_field="type"):
    """Base of all output items; the wire's `type` distinguishes them."""


class MessageItem(_Item, frozen=True, kw_only=True, tag="message"):
    """A message of the model. `channel`, `phase` and `recipient` are not the provider's own."""

    id: str | None = None
    role: str | None = None
    status: str | None = None
    content: list[ContentPart] | str | None = None

    def text(self) -> str:
        """Its text parts, joined; `""` if there are none, or if it is not a message of the model."""
        content = self.content
        if is_of_another(self.role):
            return ""
        if content is None or isinstance(content, str):
            return content or ""
        if len(content) == 1:
            return content[0].text or "" if content[0].type in _TEXT else ""
        texts = [part for part in content if part.type in _TEXT and part.text]
        if len(texts) > 1:
            texts = answering((part.kind(), part) for part in texts)
        return "".join(part.text or "" for part in texts)

    def kind(self) -> Part:
        """What it is, by what it says of itself, or by what its text is if that is all of one kind."""
        part = self.part(self.status)
        if part is Part.UNSAID and is_array(self.content):
            return min((part.kind() for part in self.content if part.type in _TEXT and part.text), default=part)
        return part

    def said_beside(self) -> str:
        """Its parts that are a text and not its answer, joined."""
        if not is_array(self.content) or len(self.content) <= 1 or is_of_another(self.role):
            return ""
        texts = [part for part in self.content if part.type in _TEXT and part.text]
        kept = answering((part.kind(), part) for part in texts)
        return "".join(part.text or "" for part in texts if not any(part is each for each in kept))

    def thoughts_said(self) -> list[str | None]:
        """The reasoning beside its text, and its parts that are reasoning."""
        beside = [*self.thoughts_beside()] if self.has_thinking() else []
        parts = self.content if is_array(self.content) else ()
        return [*beside, *(part.said() for part in parts if is_thought(part.type))]

    def declined(self) -> str:
        """The words of a refusal; `""` if there is none."""
        parts = self.content if is_array(self.content) else ()
        return " ".join(part.refusal or part.text or "" for part in parts if part.type == "refusal" or part.refusal)

    def cited(self) -> Iterator[Source]:
        """The pages that its annotations cite."""
        for part in self.content if is_array(self.content) else ():
            if part.annotations:
                yield from annotated(msgspec.to_builtins(part.annotations))


class SearchResultsItem(_Item, frozen=True, kw_only=True, tag="search_results"):
    """One search: its queries and its results. The `id` of a result is the n of `[n]` or `[web:n]`."""

    queries: list[str] | None = None
    results: list[Source] | None = None


class PeopleSearchResultsItem(SearchResultsItem, frozen=True, kw_only=True, tag="people_search_results"):
    """One search for people; its results have the form of pages."""


class FetchURLResultsItem(_Item, frozen=True, kw_only=True, tag="fetch_url_results"):
    """Pages that were read in full. They have no `id`, and are often among the search results too."""

    contents: list[Source] | None = None


class ReasoningItem(_Item, frozen=True, kw_only=True, tag="reasoning"):
    """The model's reasoning, if the server shows it. `encrypted_content` is for sending back, not for reading."""

    id: str | None = None
    status: str | None = None
    summary: list[ContentPart] | str | None = None
    content: list[ContentPart] | str | None = None
    text: str | None = None
    encrypted_content: str | None = None

    def said(self) -> str:
        """The reasoning, or its summary if there is nothing else."""
        beside = joined(self.thoughts_beside()) if self.has_thinking() else None
        return _texts(self.content) or self.text or beside or _texts(self.summary)


def _texts(parts: list[ContentPart] | str | None) -> str:
    return parts if isinstance(parts, str) else "\n\n".join(filter(None, (part.said() for part in parts or ())))


class FunctionCallItem(_Item, frozen=True, kw_only=True, tag="function_call"):
    """A caller's function that the model wants to call; `arguments` is JSON text."""

    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    status: str | None = None
    thought_signature: str | None = None


class UnknownItem(_Item, frozen=True, kw_only=True, tag="unknown"):
    """An item of an unknown type: its `type` is in `item_name`, all of it in `payload`."""

    item_name: str | None = None
    payload: dict[str, Any] | None = None


OutputItem: TypeAlias = (
    MessageItem
    | SearchResultsItem
    | PeopleSearchResultsItem
    | FetchURLResultsItem
    | ReasoningItem
    | FunctionCallItem
    | UnknownItem
)
"""One thing that a run did, in the order in which it did them."""


class AgentCost(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a run was billed, by purpose. `currency` is USD in every answer seen so far."""

    currency: str | None = None
    input_cost: float | None = None
    output_cost: float | None = None
    cache_creation_cost: float | None = None
    cache_read_cost: float | None = None
    tool_calls_cost: float | None = None
    tool_calls_cost_details: dict[str, float | None] | None = None
    total_cost: float | None = None


class InputTokensDetails(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How many of the input tokens were written to, and read from, the cache."""

    cached_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class OutputTokensDetails(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How many of the output tokens were reasoning."""

    reasoning_tokens: int | None = None


class ToolTokenUsage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a model within a tool consumed. These tokens are not counted in the run's."""

    model: str | None = None
    input_tokens: int | None = None
    input_tokens_details: InputTokensDetails | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputTokensDetails | None = None


class ToolCallDetails(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How often a tool was called, and the cost in US dollars."""

    invocation: int | None = None
    cost_usd: float | None = None
    token_usage: list[ToolTokenUsage] | None = None


class AgentUsage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a run consumed. `tool_calls_details` has tools by their billing names: `search_web`, `fetch_url`."""

    input_tokens: int | None = None
    input_tokens_details: InputTokensDetails | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputTokensDetails | None = None
    total_tokens: int | None = None
    tool_calls_details: dict[str, ToolCallDetails | None] | None = None
    cost: AgentCost | None = None

    def usage(self) -> Usage:
        """The same facts in the words of the job model."""
        details = self.output_tokens_details
        return Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            total_tokens=self.total_tokens,
            reasoning_tokens=details.reasoning_tokens if details is not None else None,
            search_queries=self._searches(),
            cost=self.cost.total_cost if self.cost is not None else None,
        )

    def _searches(self) -> int | None:
        """How often the web was searched: tool calls, each of which may have several queries."""
        if self.tool_calls_details is None:
            return None
        search = self.tool_calls_details.get("search_web")
        return search.invocation if search is not None else 0


class AgentError(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Why there is no result. `code` is a word here; in the body of a refused call it is the HTTP status."""

    message: str | None = None
    code: str | int | None = None
    type: str | None = None
    param: str | None = None

    def reason(self) -> str:
        """`message (code)`, or whichever of the two is present."""
        code = str(self.code or self.type or "")
        if not self.message or not code or code == self.message:
            return self.message or code
        return f"{self.message} ({code})"


class IncompleteDetails(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Why the server stopped early: `max_output_tokens`, `cancelled`, ..."""

    reason: str | None = None


class AgentResponse(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A run of the Agent API, as the server sent it.

    Attributes:
        created_at, completed_at: rewritten by the server at every poll, so they are not the run's times.
        failed_at, stop_reason: not the provider's own: gateways and other servers of this form of API send them.
        model: the name of the preset until the run is completed; then the model that answered.
        output: the run's output so far, in order; it grows while the run is in progress.
        usage: None until the run ends. Also None on a cancelled run, although its searches were charged.
    """

    id: str
    object: str | None = None
    status: str | None = None
    background: bool | None = None
    created_at: int | None = None
    completed_at: int | None = None
    failed_at: Any = None
    error: AgentError | None = None
    incomplete_details: IncompleteDetails | None = None
    required_action: Any = None
    model: str | None = None
    preset: str | None = None
    effort: str | None = None
    output: list[OutputItem] = []
    usage: AgentUsage | None = None
    instructions: Any = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, Any] | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    truncation: str | None = None
    user: str | None = None
    stop_reason: Any = None

    def written(self) -> str:
        """The text of the messages, in order, with a blank line between two; `""` if nothing is written yet."""
        return _paragraphs([item.text() for item in self._answering()])

    def is_on_the_way(self) -> bool:
        """Whether it has a text, and all of it is only said on the way to an answer."""
        said = [item for item in self._answering() if not _is_blank(item.text())]
        return bool(said) and all(item.kind() >= Part.BESIDE for item in said)

    def _answering(self) -> list[MessageItem]:
        """The messages that the answer consists of."""
        said = [item for item in self.output if isinstance(item, MessageItem)]
        if len(said) <= 1:
            return said
        return answering((item.kind(), item) for item in said if not _is_blank(item.text()))

    def lacks_addresses(self) -> bool:
        """Whether a page has no address where it should be: it may have it under another name."""
        return any(not source.url for item in self.output for source in _sources_of(item))

    def is_encoded(self) -> bool:
        """Whether the parts of a message may be encoded once more, as a text."""
        for item in self.output:
            said = item.content if isinstance(item, MessageItem) else None
            if isinstance(said, str) and said.lstrip()[:1] in ("[", '"'):
                return True
        return False

    def function_calls(self) -> list[FunctionCallItem]:
        """The caller's functions that the model wants to call."""
        return [item for item in self.output if isinstance(item, FunctionCallItem)]

    def has_unknown_items(self) -> bool:
        """Whether its output has an item of an unknown type."""
        return any(isinstance(item, UnknownItem) for item in self.output)

    def refusal(self) -> str:
        """The model's words where it declined to answer; `""` if it did not."""
        return " ".join(filter(None, (item.declined() for item in self.output if isinstance(item, MessageItem))))

    def failure(self) -> str:
        """The words of an item of the output that is an error; `""` if there is none."""
        errors = (item for item in self.output if isinstance(item, UnknownItem) and "error" in (item.item_name or ""))
        return next(filter(None, (words_of(item.payload) for item in errors)), "")

    def actions(self) -> tuple[RequiredAction, ...]:
        """What the run waits for: functions that were called, and approvals that were asked for, in order."""
        ended = {
            (item.payload or {}).get("call_id")
            for item in self.output
            if isinstance(item, UnknownItem) and (item.item_name or "").endswith("_output")
        }
        called = [
            RequiredAction("function_call", item.name or "", item.call_id or item.id or "")
            if isinstance(item, FunctionCallItem)
            else _asked_by(item, ended)
            for item in self.output
            if isinstance(item, FunctionCallItem | UnknownItem)
        ]
        return tuple(action for action in called if action is not None) or tuple(_required(self.required_action))

    def queries(self) -> list[str]:
        """What the web was searched for, in order."""
        searches = (item for item in self.output if isinstance(item, SearchResultsItem))
        return [query for search in searches for query in search.queries or ()]

    def sources(self) -> list[Source]:
        """The pages that were found and read, in order; then those that only annotations or unknown items name.

        A page that was found and then read is listed once, with its `id`. A page that two searches found under two ids
        is listed twice: a mark in the text may name either.
        """
        found = [source for item in self.output for source in _sources_of(item)]
        numbered = {source.url for source in found if source.id is not None}
        kept: dict[object, Source] = {}
        for place, source in enumerate(found):
            if source.id is not None:
                kept.setdefault((source.id, source.url), source)
            elif not source.url:
                kept[place] = source  # an unreadable one keeps its place: pages without ids are cited by position
            elif source.url not in numbered:
                kept.setdefault(source.url, source)
        # Last, so that they move none of the others from its place.
        known = {source.url for source in kept.values()}
        for source in self._named_elsewhere():
            if source.url not in known:
                kept.setdefault(source.url, source)
        return list(kept.values())

    def _named_elsewhere(self) -> Iterator[Source]:
        for item in self.output:
            if isinstance(item, MessageItem):
                yield from item.cited()
            elif isinstance(item, UnknownItem) and item.payload is not None:
                yield from pages_in(item.payload, item.item_name)

    def thoughts(self) -> str | None:
        """The text of the reasoning items; None if there are none, as in every answer seen so far."""
        return joined(item.said() or None for item in self.output if isinstance(item, ReasoningItem))

    def _split(self) -> tuple[str | None, str]:
        """(reasoning, text): each message may begin with reasoning."""
        thoughts: list[str | None] = []
        texts: list[str] = []
        answer = self._answering()
        for item in self.output:
            if isinstance(item, MessageItem):
                reasoning, text = split(item.text())
                thoughts += [*item.thoughts_said(), item.said_beside() or None, reasoning]
                if any(item is each for each in answer):
                    texts.append(text)
                elif not _is_blank(text):
                    thoughts.append(text)
            elif isinstance(item, ReasoningItem):
                thoughts.append(item.said() or None)
            elif isinstance(item, UnknownItem) and is_thought(item.item_name):
                thoughts.append(thought_in(item.payload))
        return joined(thoughts), _paragraphs(texts)

    def finish_reason(self) -> str | None:
        """The server's word for why the run stopped early; `stop` if it did not, None while it runs."""
        if self.incomplete_details is not None and self.incomplete_details.reason:
            return self.incomplete_details.reason
        if isinstance(self.stop_reason, str) and self.stop_reason:
            return self.stop_reason
        messages = [item for item in self.output if isinstance(item, MessageItem)]
        if messages and (messages[-1].status or "").strip().lower() == "incomplete":
            return "incomplete"
        return "stop" if (self.status or "").strip().lower() == "completed" else None

    def answer(self) -> Answer:
        """The same facts in the words of the job model."""
        sources = self.sources()
        reasoning, text = self._split()
        return Answer(
            text="" if text.isspace() else text,
            reasoning=reasoning,
            sources=sources,
            citations=[source.url for source in sources],
            usage=self.consumed(),
            finish_reason=self.finish_reason(),
            model=self.model or "",
            queries=self.queries(),
        )

    def consumed(self) -> Usage | None:
        """What the run consumed, in the words of the job model."""
        return self.usage.usage() if self.usage is not None else None


class CancelResponse(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The answer to a cancellation: `cancelling`. The run ends a little later; only a poll shows when."""

    status: str
    response_id: str | None = None


class FileRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One row of the list of a run's files."""

    id: str
    filename: str | None = None
    bytes: int | None = None
    created_at: int | None = None

    def file(self) -> JobFile:
        """The same in the words of the job model."""
        size = self.bytes if self.bytes is not None and self.bytes >= 0 else None
        return JobFile(self.id, self.filename or "", size, self.created_at)


_TEXT = ("output_text", "text", None)
_KINDS: dict[str, type[OutputItem]] = {
    "message": MessageItem,
    "search_results": SearchResultsItem,
    "people_search_results": PeopleSearchResultsItem,
    "fetch_url_results": FetchURLResultsItem,
    "reasoning": ReasoningItem,
    "function_call": FunctionCallItem,
    "unknown": UnknownItem,
}
# For items without a readable `type`: a field that only items of one type have, the most specific first.
_TELLING: dict[str, type[OutputItem]] = {
    "summary": ReasoningItem,
    "content": MessageItem,
    "results": SearchResultsItem,
    "contents": FetchURLResultsItem,
}


def _sources_of(item: OutputItem) -> Iterable[Source]:
    if isinstance(item, SearchResultsItem):
        return item.results or ()
    if not isinstance(item, FetchURLResultsItem):
        return ()
    return [msgspec.structs.replace(page, kind="fetch_url_results") for page in item.contents or ()]


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _paragraphs(texts: list[str]) -> str:
    """Texts of several messages with a blank line between two."""
    if len(texts) == 1:
        return texts[0]
    said = [text for text in texts if text and not text.isspace()]
    return "\n\n".join(
        text.lstrip("\n" if at else "").rstrip("\n" if at < len(said) - 1 else "") if len(said) > 1 else text
        for at, text in enumerate(said)
    )


def _required(value: Any) -> Iterator[RequiredAction]:
    """The calls in a field of their own, as another server of this form of API has it: any objects that have an id."""
    if is_array(value):
        for item in value:
            yield from _required(item)
    elif is_object(value) and isinstance(value.get("id"), str):
        function = value.get("function")
        name = function.get("name") if is_object(function) else value.get("name")
        kind = value.get("type")
        yield RequiredAction(
            kind if isinstance(kind, str) else "call", name if isinstance(name, str) else "", value["id"]
        )
    elif is_object(value):
        for item in value.values():
            yield from _required(item)


def _asked_by(item: UnknownItem, ended: Collection[object]) -> RequiredAction | None:
    """What an item of unknown type asks of the caller; None if it asks for nothing.

    Calls that the server runs itself have an `id` only; those of the caller have a `call_id`, which the output has too.
    """
    kind, payload = item.item_name or "", item.payload or {}
    call_id = payload.get("call_id")
    is_call = kind.endswith("_call") and isinstance(call_id, str) and call_id not in ended
    if not is_call and "approval_request" not in kind and payload.get("status") != "requires_action":
        return None
    names = [payload.get(name) for name in ("server_label", "name")]
    name = ".".join(name for name in names if isinstance(name, str) and name)
    job_id = call_id or payload.get("id")
    return RequiredAction(kind, name, job_id if isinstance(job_id, str) else "")


def salvaged_response(value: dict[str, Any]) -> AgentResponse | None:
    """A response from plain values, with every readable part; None if it has no id.

    Also used for a response with an item of unknown type, which a strict decoder refuses.
    """
    value = {**value, "error": _with_message(value.get("error")), "incomplete_details": _with_reason(value)}
    found = salvaged({name: said for name, said in value.items() if name != "output"}, AgentResponse)
    output = loosely_within(value.get("output"))
    if found is None:
        return None
    items = [_item(said) for said in map(loosely_within, output) if is_object(said)] if is_array(output) else []
    text = value.get("output_text") or output  # which official clients put together
    is_json = isinstance(text, str) and text.lstrip()[:1] in ("{", "[")  # may be a response itself
    if is_answer(text) and not is_json and not any(isinstance(item, MessageItem) for item in items):
        items.append(MessageItem(role="assistant", content=text))
    return msgspec.structs.replace(found, output=items)


def _with_message(error: Any) -> Any:
    """An error whose message is text: one in another form keeps its words."""
    if error is None or (is_object(error) and isinstance(error.get("message"), str)):
        return error
    said = words_of(error)
    if not is_object(error):
        return {"message": said} if said else None
    names = {str(error.get(name)) for name in ("code", "type")}
    return {**error, "message": None if said in names else said}


def _with_reason(value: dict[str, Any]) -> Any:
    details = value.get("incomplete_details")
    if details is None or (is_object(details) and isinstance(details.get("reason"), str)):
        return details
    return {"reason": words_of(details) or None}


def _item(value: dict[str, Any]) -> OutputItem:
    name = value.get("type")
    if not isinstance(name, str):
        name = None
    kind = _KINDS.get(name) if name else next((_TELLING[field] for field in _TELLING if field in value), None)
    for field in ("results", "contents"):
        if is_array(value.get(field)):
            value = {**value, field: with_urls(value[field])}
    if is_thought(name):
        value = _with_thought(value)
    elif is_array(content := _parts_in(value.get("content"))):
        value = {**value, "content": [*map(_with_thought, content)]}
    item = salvaged(value, kind) if kind is not None else None
    return item if item is not None else UnknownItem(item_name=name, payload=value)


def _parts_in(content: Any) -> Any:
    """The parts of a message that are encoded once more. JSON of another form may be the answer itself."""
    inner = loosely_within(content)
    is_parts = is_array(inner) and bool(inner) and all(is_object(part) and "type" in part for part in inner)
    return inner if is_parts else content


def _with_thought(part: Any) -> Any:
    """A part, or an item, that is reasoning, with a text of it that a struct can have."""
    if not is_object(part) or not is_thought(part.get("type")) or isinstance(part.get("text"), str):
        return part
    return {**part, "text": thought_in(part)}
