"""The bodies of the Sonar API: a job, a list, a finished answer, with keys and nulls in the captured order.

This module knows nothing of routes, of faults or of when a job is finished.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from aiopplx.emulator._cache import Cache
from aiopplx.emulator._example import Example
from aiopplx.emulator._jobs import State
from aiopplx.emulator._json_types import is_list
from aiopplx.emulator._ledger import JobRecord
from aiopplx.emulator._prices import Plan, plan, usage
from aiopplx.emulator._prose import Library, images, pages, related, think, topic_of

FAILURE = "Internal error while processing the request"
_NULLS = {"reasoning_steps": None, "tool_calls": None, "tool_call_id": None}


class Summary(msgspec.Struct):
    """One row of the list."""

    id: str
    created_at: int
    started_at: int | None
    completed_at: int | None
    failed_at: int | None
    model: str
    status: str


class Body(msgspec.Struct):
    """A job without an answer: all nine keys, with explicit nulls."""

    id: str
    model: str
    created_at: int
    started_at: int | None
    completed_at: int | None
    response: None
    failed_at: int | None
    error_message: str | None
    status: str


class _Moments(msgspec.Struct):
    started: int | None
    completed: int | None
    failed: int | None


def _moments(job: JobRecord, state: State) -> _Moments:
    started = None if state == "CREATED" else int(job.started_at)
    ended = int(job.finished_at) if state in ("COMPLETED", "FAILED") else None
    return _Moments(started, ended if state == "COMPLETED" else None, ended if state == "FAILED" else None)


def created(job: JobRecord) -> bytes:
    """The answer to a submission, also to a repeated one: the first answer again."""
    return msgspec.json.encode(
        Body(job.told_id, job.model, int(job.created_at), None, None, None, None, None, "CREATED")
    )


def unfinished(job: JobRecord, state: State) -> bytes:
    """The body of a job without an answer (yet)."""
    at = _moments(job, state)
    message = FAILURE if state == "FAILED" else None
    return msgspec.json.encode(
        Body(job.id, job.model, int(job.created_at), at.started, at.completed, None, at.failed, message, state)
    )


def summary(job: JobRecord, state: State) -> Summary:
    at = _moments(job, state)
    return Summary(job.told_id, int(job.created_at), at.started, at.completed, at.failed, job.model, state)


def question_of(request: dict[str, Any]) -> str:
    """The text of the last message that has any."""
    messages: list[dict[str, Any]] = request["messages"]
    for message in reversed(messages):
        text = _text(message["content"])
        if text:
            return text
    return ""


def _text(content: Any) -> str:
    if is_list(content):
        return " ".join(str(part["text"]) for part in content if part["type"] == "text")
    return str(content or "")


class Answers:
    """Writes finished answers from seed and request: the same question gets the same answer, whoever asks.

    Answers are not stored with the jobs: the latest 16 MiB are cached, and any other is generated again.
    """

    def __init__(self, *, seed: int, chars: int | None, think: bool) -> None:
        self._seed = seed
        self._chars = chars
        self._think = think
        self._library = Library(seed)
        self._cache = Cache[bytes]()

    def _rng(self, digest: bytes) -> random.Random:
        # Not security-relevant: an answer must be repeatable.
        return random.Random(b"%d/answer/" % self._seed + digest)  # noqa: S311

    def _plan(self, rng: random.Random, request: dict[str, Any]) -> Plan:
        said = sum(len(_text(message["content"])) for message in request["messages"])
        return plan(
            rng,
            prompt_chars=said,
            chars=self._chars,
            max_tokens=request.get("max_tokens"),
            effort=request.get("reasoning_effort"),
        )

    def cost(self, digest: bytes, request: dict[str, Any]) -> float:
        """US dollars that the job will be billed."""
        return self._plan(self._rng(digest), request).cost

    def finished(self, job: JobRecord) -> bytes:
        """The complete body of a finished job."""
        tail = self._cache.get(job.digest, lambda: self._tail(job))
        started, ended = int(job.started_at), int(job.finished_at)
        model = msgspec.json.encode(job.model)
        return (
            b'{"id":"%b","model":%b,"created_at":%d,"started_at":%d,"completed_at":%d,"response":'
            b'{"id":"%b","model":%b,"created":%d,%b,"failed_at":null,"error_message":null,"status":"COMPLETED"}'
        ) % (
            job.id.encode(), model, int(job.created_at), started, ended,
            job.id.encode(), model, ended, tail,
        )  # fmt: skip

    def _tail(self, job: JobRecord) -> tuple[bytes, int]:
        """The `response` object from `usage` on, and its length: the part that does not depend on the job's id and
        times.
        """
        body: Any = msgspec.json.decode(job.body)
        request: dict[str, Any] = body["request"]
        rng = self._rng(job.digest)
        sized = self._plan(rng, request)
        topic = topic_of(question_of(request))
        results = pages(rng, topic, sized.sources)
        web: dict[str, Any] = request.get("web_search_options") or {}
        tail: dict[str, Any] = {
            "usage": usage(sized, web.get("search_context_size")),
            "object": "chat.completion",
            "choices": [self._choice(self._content(rng, request, topic, sized), cut=sized.cut)],
            "citations": [result["url"] for result in results],
            "search_results": results,
        }
        if request.get("return_images"):
            tail["images"] = images(rng, results)
        if request.get("return_related_questions"):
            tail["related_questions"] = related(topic)
        written = msgspec.json.encode({**tail, "type": None, "status": None})[1:]
        return written, len(written)

    def _choice(self, content: str, *, cut: bool) -> dict[str, Any]:
        return {
            "index": 0,
            "finish_reason": "length" if cut else "stop",
            "message": {"role": "assistant", "content": content, **_NULLS},
            "delta": {"role": "assistant", "content": "", **_NULLS},
        }

    def _content(self, rng: random.Random, request: dict[str, Any], topic: str, sized: Plan) -> str:
        thought = think(rng, topic) if self._think else ""
        form: dict[str, Any] = request.get("response_format") or {}
        if form.get("type") == "json_schema":
            value = Example(form["json_schema"]["schema"], rng).make()
            return thought + msgspec.json.encode(value).decode()
        return thought + self._library.report(rng, topic=topic, chars=sized.chars, sources=sized.sources)
