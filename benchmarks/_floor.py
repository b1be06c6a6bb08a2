"""The floor that the library is measured against: the same exchanges by aiohttp and msgspec, and nothing else.

What a careful person writes in an afternoon: typed structs, bytes in and out, no retries, no pacing, no limits. This
module knows nothing of the library.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import aiohttp
import msgspec


class Cost(msgspec.Struct):
    input_tokens_cost: float | None = None
    output_tokens_cost: float | None = None
    reasoning_tokens_cost: float | None = None
    request_cost: float | None = None
    citation_tokens_cost: float | None = None
    search_queries_cost: float | None = None
    total_cost: float | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    search_context_size: str | None = None
    citation_tokens: int | None = None
    num_search_queries: int | None = None
    reasoning_tokens: int | None = None
    cost: Cost | None = None


class Source(msgspec.Struct):
    url: str
    title: str | None = None
    date: str | None = None
    last_updated: str | None = None
    snippet: str | None = None
    source: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str
    reasoning_steps: list[Any] | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


class Choice(msgspec.Struct):
    index: int
    finish_reason: str | None = None
    message: Message | None = None
    delta: Message | None = None


class Response(msgspec.Struct):
    id: str
    model: str
    created: int
    object: str
    choices: list[Choice]
    usage: Usage | None = None
    citations: list[str] | None = None
    search_results: list[Source] | None = None


class Job(msgspec.Struct):
    id: str
    status: str
    model: str
    created_at: int
    started_at: int | None = None
    completed_at: int | None = None
    response: Response | None = None
    failed_at: int | None = None
    error_message: str | None = None


class Line(msgspec.Struct):
    role: str
    content: str


class Request(msgspec.Struct):
    model: str
    messages: list[Line]


class Submission(msgspec.Struct):
    request: Request
    idempotency_key: str


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Job)


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def body(question: str) -> bytes:
    return _ENCODER.encode(Submission(Request("sonar-deep-research", [Line("user", question)]), uuid.uuid4().hex))


async def job(session: aiohttp.ClientSession, url: str, question: str, *, gap: float = 0.0) -> Job:
    """One job from question to result, by aiohttp's defaults; `gap` seconds before each poll."""
    async with session.post(url, data=body(question)) as reply:
        found = _DECODER.decode(await reply.read())
    while found.status != "COMPLETED":
        if gap:
            await asyncio.sleep(gap)
        async with session.get(f"{url}/{found.id}") as reply:
            found = _DECODER.decode(await reply.read())
    return found


async def tuned_job(session: aiohttp.ClientSession, url: str, question: str) -> Job:
    """The same by the settings that cost least; nothing bounds its time."""
    reply = await session.post(url, data=body(question), allow_redirects=False)
    found = _DECODER.decode(await reply.read())
    while found.status != "COMPLETED":
        reply = await session.get(f"{url}/{found.id}", allow_redirects=False)
        found = _DECODER.decode(await reply.read())
    return found
