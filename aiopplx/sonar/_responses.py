"""The answers of the Sonar job API as structs, which convert themselves to the job model.

Unknown fields are ignored, and all fields but the job's id may be missing. The structs are frozen and read from JSON,
so none is part of a cycle: the garbage collector need not visit the hundred sources of each of ten thousand results
(`gc=False`). This module knows nothing of endpoints, of bytes or of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, cast

import msgspec

from aiopplx._job import Answer, Source, Usage
from aiopplx._text.thought import is_thought, joined, split, thought_in
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import words_of
from aiopplx._wire.addresses import address_of, annotated, with_urls
from aiopplx._wire.decoding import loosely_within, salvaged
from aiopplx._wire.roles import Marked, Part, answering, is_of_another, part_of
from aiopplx._wire.thinking import Thinking


class Cost(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a job was billed, in US dollars, by purpose."""

    input_tokens_cost: float | None = None
    output_tokens_cost: float | None = None
    reasoning_tokens_cost: float | None = None
    request_cost: float | None = None
    citation_tokens_cost: float | None = None
    search_queries_cost: float | None = None
    total_cost: float | None = None


class UsageInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a job consumed. `total_tokens` is prompt and completion; it excludes reasoning and citation tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    search_context_size: str | None = None
    citation_tokens: int | None = None
    num_search_queries: int | None = None
    reasoning_tokens: int | None = None
    cost: Cost | None = None

    def usage(self) -> Usage:
        """The same facts in the words of the job model."""
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=self.completion_tokens,
            total_tokens=self.total_tokens,
            reasoning_tokens=self.reasoning_tokens,
            citation_tokens=self.citation_tokens,
            search_queries=self.num_search_queries,
            cost=self.cost.total_cost if self.cost is not None else None,
        )


class SearchDetails(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The searches of one reasoning step, and their results."""

    search_keywords: list[str] | None = None
    search_results: list[Source] | None = None


class FetchDetails(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The pages read in one reasoning step."""

    contents: list[Source] | None = None


class PythonDetails(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The program run in one reasoning step, and its output."""

    code: str | None = None
    result: str | None = None


class ReasoningStep(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One step of the model's reasoning."""

    thought: str | None = None
    type: str | None = None
    web_search: SearchDetails | None = None
    finance_search: SearchDetails | None = None
    fetch_url_content: FetchDetails | None = None
    execute_python: PythonDetails | None = None


class ToolCallFunction(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The function that the model wants to call; `arguments` is JSON text."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A tool that the model wants to call."""

    id: str | None = None
    type: str | None = None
    function: ToolCallFunction | None = None


class ResponseMessage(Marked, frozen=True, gc=False, kw_only=True):
    """The model's message. `content` is text; parts of any shape are kept unchanged.

    `refusal`, `annotations`, `channel`, `phase`, `recipient` and the fields for its reasoning are not Perplexity's own:
    gateways and other servers of this API send them.
    """

    role: str | None = None
    content: str | list[Any] | None = None
    reasoning_steps: list[ReasoningStep] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: Any = None
    annotations: Any = None

    def text(self) -> str:
        """The content as one text; `""` if there is none, or if it is not a message of the model."""
        if is_of_another(self.role):
            return ""
        content = self.content
        if isinstance(content, str):
            return content
        return "".join(map(_part_text, self._parts())) if content else ""

    def _parts(self) -> list[Any]:
        """The parts of its content that have a text of the answer."""
        texts = [part for part in self.content or () if _part_text(part)]
        return texts if len(texts) == 1 else answering((_part_of(part), part) for part in texts)

    def kind(self) -> Part:
        """What it is, by what it says of itself, or by what its text is if that is all of one kind."""
        part = self.part()
        if part is Part.UNSAID and isinstance(self.content, list):
            return min(map(_part_of, self._parts()), default=part)
        return part

    def declined(self) -> str:
        """The words of a refusal; `""` if there is none."""
        if self.refusal is not None:
            return words_of(self.refusal)
        parts = self.content if isinstance(self.content, list) else ()
        return " ".join(words_of(part) for part in parts if _type_of(part) == "refusal")

    def pages(self) -> Iterator[Source]:
        """The pages that annotations cite, and those of the steps of the reasoning."""
        yield from annotated(self.annotations)
        for step in self.reasoning_steps or ():
            for details in (step.web_search, step.finance_search):
                if details is not None:
                    yield from details.search_results or ()
            if step.fetch_url_content is not None:
                pages = step.fetch_url_content.contents or ()
                yield from (msgspec.structs.replace(page, kind="fetch_url_content") for page in pages)

    def has_thoughts(self) -> bool:
        """Whether `thoughts_said` may find any; nearly every message has none of these."""
        return self.has_thinking() or self.reasoning_steps is not None or not isinstance(self.content, str)

    def thoughts_said(self) -> Iterator[str | None]:
        """The reasoning that stands beside the text, in the order in which it is shown."""
        yield from self.thoughts_beside()
        if isinstance(self.content, list):
            kept = self._parts()
            for part in self.content:
                if is_thought(_type_of(part)):
                    yield thought_in(part)
                elif not any(part is each for each in kept):
                    yield _part_text(part) or None
        if self.reasoning_steps:
            yield "\n\n".join(step.thought for step in self.reasoning_steps if step.thought) or None


class Choice(Thinking, frozen=True, gc=False, kw_only=True):
    """One answer. `delta` belongs to streaming; in the answer of a job it is present and empty."""

    index: int | None = None
    finish_reason: str | None = None
    message: ResponseMessage | None = None
    delta: ResponseMessage | None = None
    stop_reason: Any = None
    native_finish_reason: Any = None

    def why(self) -> str | None:
        """The server's word for why its text ends; other servers of this API have it under another name."""
        others = (said for said in (self.stop_reason, self.native_finish_reason) if isinstance(said, str) and said)
        return self.finish_reason or next(others, None)

    def names_pages(self) -> bool:
        """Whether its messages may name pages themselves; nearly none do."""
        for message in (self.message, self.delta):
            if message is not None and (message.annotations is not None or message.reasoning_steps is not None):
                return True
        return False

    def refusal(self) -> str:
        """The model's words where it declined to answer, in a field or a part of their own; `""` if it did not."""
        for message in (self.message, self.delta):
            if message is not None and (said := message.declined()):
                return said
        return ""

    def split(self) -> tuple[str | None, str]:
        """(reasoning, text); None if it has no reasoning."""
        reasoning, text = split(self.text())
        beside: list[str | None] = [*self.thoughts_beside()] if self.has_thinking() else []
        for message in (self.message, self.delta):
            if message is not None and message.has_thoughts():
                beside += message.thoughts_said()
        return (joined([*beside, reasoning]) if beside else reasoning), text

    def kind(self) -> Part:
        """What its text is, by what its message says of itself."""
        return self.message.kind() if self.message is not None else Part.UNSAID

    def text(self) -> str:
        """The text, `""` if there is none."""
        said = self.message.text() if self.message is not None else ""
        return said or (self.delta.text() if self.delta is not None else "")


class ImageResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An image for the answer; `width` and `height` in pixels."""

    image_url: str | None = None
    origin_url: str | None = None
    title: str | None = None
    width: int | None = None
    height: int | None = None


class Video(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A video for the answer; sizes in pixels, `duration` in seconds."""

    url: str | None = None
    thumbnail_url: str | None = None
    thumbnail_width: int | None = None
    thumbnail_height: int | None = None
    duration: float | None = None


class CompletionResponse(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The result of a job, as the server sent it. `status` is not the job's status."""

    id: str | None = None
    model: str | None = None
    created: int | None = None
    object: str | None = None
    type: str | None = None
    status: str | None = None
    choices: list[Choice] | None = None
    usage: UsageInfo | None = None
    citations: list[str] | None = None
    search_results: list[Source] | None = None
    images: list[ImageResult] | None = None
    videos: list[Video] | None = None
    related_questions: list[str] | None = None
    stop_reason: Any = None

    def choice(self) -> Choice | None:
        """The first choice with a text that is the answer; None if none has any."""
        choices = self.choices or ()
        said = choices if len(choices) == 1 else self._answering()
        for choice in said:
            written = choice.text()
            if written and not written.isspace():
                return choice
        return None

    def _answering(self) -> list[Choice]:
        written = [choice for choice in self.choices or () if choice.text() and not choice.text().isspace()]
        return answering((choice.kind(), choice) for choice in written)

    def is_on_the_way(self) -> bool:
        """Whether it has a text, and all of it is only said on the way to an answer."""
        choice = self.choice()
        return choice is not None and choice.kind() >= Part.BESIDE

    def _said_beside(self) -> Iterator[str | None]:
        """What choices say that are no answer; alternatives to the first one are left where they are."""
        kept = self._answering()
        for choice in self.choices or ():
            if not any(choice is each for each in kept):
                yield from filter(None, choice.split())

    def answer(self) -> Answer:
        """The same facts in the words of the job model."""
        choice = self.choice()
        # Without a text there may still be reasoning, and a reason why it ends.
        shown = choice or next(iter(self.choices or ()), None)
        reasoning, text = shown.split() if shown is not None else (None, "")
        if choice is not None and len(self.choices or ()) > 1:
            reasoning = joined([*self._said_beside(), reasoning])
        sources, citations = self._pages()
        return Answer(
            text=text if choice is not None else "",
            reasoning=reasoning,
            sources=sources,
            citations=citations,
            usage=self.consumed(),
            finish_reason=self.finish_reason(choice),
            model=self.model or "",
        )

    def consumed(self) -> Usage | None:
        """What the job consumed, in the words of the job model."""
        return self.usage.usage() if self.usage is not None else None

    def finish_reason(self, choice: Choice | None) -> str | None:
        """The server's word for why the text ends: that of the choice with a text, else the first there is."""
        if choice is not None and (why := choice.why()) is not None:
            return why
        beside = self.stop_reason if isinstance(self.stop_reason, str) else None
        return next(filter(None, (other.why() for other in self.choices or ())), None) or beside

    def refusal(self) -> str:
        """The model's words where it declined to answer; `""` if it did not."""
        return next(filter(None, (choice.refusal() for choice in self.choices or ())), "")

    def tool_calls(self) -> list[ToolCall]:
        """The caller's functions that the model wants to call."""
        messages = [choice.message for choice in self.choices or () if choice.message is not None]
        return [call for message in messages for call in message.tool_calls or ()]

    def _pages(self) -> tuple[list[Source], list[str]]:
        """(sources, citations): the same pages in the same order, which is that of the marks in the text."""
        found, cited = self.search_results or [], self.citations or []
        if [source.url for source in found] != cited:
            found = _merged(found, cited) if cited else found
            cited = [source.url for source in found]
        if not any(choice.names_pages() for choice in self.choices or ()):
            return found, cited
        known = set(cited)
        more = {source.url: source for source in self._named_elsewhere() if source.url not in known}
        return [*found, *more.values()], [*cited, *more]

    def _named_elsewhere(self) -> Iterator[Source]:
        """Pages in the steps of the reasoning and in annotations."""
        for choice in self.choices or ():
            for message in (choice.message, choice.delta):
                if message is not None:
                    yield from message.pages()


def salvaged_completion(value: dict[str, Any]) -> CompletionResponse | None:
    """A result from plain values, with every readable part, and addresses in whatever form they are."""
    value = {name: loosely_within(said) if name in _LISTS else said for name, said in value.items()}
    found, cited = with_urls(value.get("search_results")), value.get("citations")
    if is_array(cited):
        if not found and any(map(is_object, cited)):
            found = with_urls(cited)  # they say as much as results do
        cited = [address_of(page) for page in cited]
    return salvaged({**value, "search_results": found, "citations": cited}, CompletionResponse)


_LISTS = frozenset({"search_results", "citations", "choices"})
_URL = attrgetter("url")


def lacks_addresses(response: CompletionResponse) -> bool:
    """Whether a page has no address where it should be: it may have it under another name."""
    return not all(map(_URL, response.search_results or ()))


def _merged(found: list[Source], cited: list[str]) -> list[Source]:
    """Search results and citations that do not agree. `[n]` is a place in the longer of the two lists."""
    if len(cited) > len(found):
        by_url = {source.url: source for source in reversed(found)}
        named = set(cited)
        at_places = [by_url.get(url) or Source(url=url) for url in cited]
        return at_places + [source for source in found if source.url not in named]
    known = {source.url for source in found}
    # A result without an address keeps its place, and the citation at that place is most likely the same page.
    missing = dict.fromkeys(url for place, url in enumerate(cited) if url and url not in known and found[place].url)
    return [*found, *(Source(url=url, kind="citations") for url in missing)]


class AsyncJob(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The server's record of a job; the rows of its list have no `response` and no `error_message`.

    `error` is not documented; gateways send it. `choices` is there only where a server that is not asynchronous answers
    a submission with the answer itself.
    """

    id: str
    model: str | None = None
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    response: CompletionResponse | None = None
    failed_at: int | None = None
    error_message: str | None = None
    error: Any = None
    status: str | None = None
    choices: msgspec.Raw | None = None


def _type_of(part: Any) -> object:
    return cast("dict[str, object]", part).get("type") if isinstance(part, dict) else None


def _part_of(part: Any) -> Part:
    """What a part of a message is by what it says of itself."""
    if not is_object(part):
        return Part.UNSAID
    if part.get("thought") is True:
        return Part.THOUGHT
    return part_of(part.get("channel"), part.get("phase"), part.get("recipient"), part.get("status"))


def _part_text(part: Any) -> str:
    if is_thought(_type_of(part)):
        return ""
    if _type_of(part) == "refusal":
        return ""
    said: object = cast("dict[str, object]", part).get("text") if isinstance(part, dict) else part
    return said if isinstance(said, str) else ""
