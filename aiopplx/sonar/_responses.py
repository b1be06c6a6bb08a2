"""The answers of the Sonar job API as structs, which convert themselves to the job model.

Unknown fields are ignored, and all fields but the job's id may be missing. The structs are frozen and read from JSON,
so none is part of a cycle: the garbage collector need not visit the hundred sources of each of ten thousand results
(`gc=False`). This module knows nothing of endpoints, of bytes or of HTTP.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from aiopplx._job import Answer, Source, Usage

_THINK, _THOUGHT = "<think>", "</think>"


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


class ResponseMessage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The model's message. `content` is text; parts of any shape are kept unchanged."""

    role: str | None = None
    content: str | list[Any] | None = None
    reasoning_steps: list[ReasoningStep] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def text(self) -> str:
        """The content as one text; `""` if there is none."""
        content = self.content
        if isinstance(content, str):
            return content
        return "".join(_part_text(part) for part in content) if content else ""


class Choice(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One answer. `delta` belongs to streaming; in the answer of a job it is present and empty."""

    index: int | None = None
    finish_reason: str | None = None
    message: ResponseMessage | None = None
    delta: ResponseMessage | None = None

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

    def choice(self) -> Choice | None:
        """The first choice with a text; None if there is none."""
        for choice in self.choices or ():
            written = choice.text()
            if written and not written.isspace():
                return choice
        return None

    def answer(self) -> Answer:
        """The same facts in the words of the job model.

        If the server sent only one of `search_results` and `citations`, the other is derived from it.
        """
        choice = self.choice()
        reasoning, text = split_thought(choice.text()) if choice is not None else (None, "")
        sources, citations = self.search_results or [], self.citations or []
        if not sources and citations:
            sources = [Source(url=url) for url in citations]
        elif not citations and sources:
            citations = [source.url for source in sources]
        return Answer(
            text=text,
            reasoning=reasoning,
            sources=sources,
            citations=citations,
            usage=self.usage.usage() if self.usage is not None else None,
            finish_reason=choice.finish_reason if choice is not None else None,
            model=self.model or "",
        )


class AsyncJob(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The server's record of a job; the rows of its list have no `response` and no `error_message`."""

    id: str
    model: str | None = None
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    response: CompletionResponse | None = None
    failed_at: int | None = None
    error_message: str | None = None
    status: str | None = None


def _part_text(part: Any) -> str:
    said: object = cast("dict[str, object]", part).get("text") if isinstance(part, dict) else part
    return said if isinstance(said, str) else ""


def split_thought(content: str) -> tuple[str | None, str]:
    """(reasoning, text) of a content that may begin with a `<think>` part.

    A part that is never closed stays in the text, with its tag: the end of the reasoning is then unknown, and the
    answer may be in it, so it must not be moved out of the text that people read and keep.
    """
    if content[:64].lstrip()[: len(_THINK)] != _THINK:
        return None, content
    end = content.find(_THOUGHT)
    if end < 0:
        return None, content
    start = content.index(_THINK) + len(_THINK)
    return content[start:end].strip(), content[end + len(_THOUGHT) :].lstrip()
