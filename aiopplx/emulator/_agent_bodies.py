"""The bodies of the Agent API: a run in each of its states, members in the captured order.

This module knows nothing of routes, of faults or of when a run ends.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from aiopplx.emulator._agent_calls import items, pending
from aiopplx.emulator._agent_files import Files
from aiopplx.emulator._agent_request import Asking, read
from aiopplx.emulator._agent_usage import IDS_PER_SEARCH, Run, cost, draw, tool_costs, usage
from aiopplx.emulator._cache import Cache
from aiopplx.emulator._example import Example
from aiopplx.emulator._jobs import State
from aiopplx.emulator._ledger import JobRecord
from aiopplx.emulator._prose import Library, pages, think, topic_of

NULL = msgspec.Raw(b"null")
ASPECTS = ("overview", "primary sources", "figures", "criticism", "timeline", "official report", "recent findings")
# `web:` lengthens each citation mark, so a shorter report is written: with the marks it has the length that was drawn.
MARKED = 0.96
_MARK = re.compile(r"\[(\d+)\]")


class Error(msgspec.Struct):
    """The error of a run that did not complete. Its code is a word; in the error bodies of HTTP it is a number."""

    code: str
    message: str
    type: str


class Details(msgspec.Struct):
    """Why a run's answer is incomplete."""

    reason: str


class Body(msgspec.Struct, kw_only=True):
    """A run with all its members; unknown ones are null, and `effort` and `preset` are absent if none was asked for."""

    background: bool
    completed_at: int | None
    created_at: int
    effort: str | msgspec.UnsetType = msgspec.UNSET
    error: Error | None
    frequency_penalty: int
    id: str
    incomplete_details: Details | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    object: str
    output: msgspec.Raw
    parallel_tool_calls: bool
    presence_penalty: int
    preset: str | msgspec.UnsetType = msgspec.UNSET
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: Any
    safety_identifier: None
    service_tier: str
    status: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: msgspec.Raw
    user: None


class Cancelling(msgspec.Struct):
    """The answer to an accepted cancel."""

    response_id: str
    status: str = "cancelling"


class Written(NamedTuple):
    """A complete run: `items` are its searches and pages in order of arrival, each as JSON."""

    asking: Asking
    run: Run
    items: tuple[bytes, ...]
    text: bytes
    usage: msgspec.Raw

    def shown(self, share: float) -> int:
        """How many items are visible when this share of the run is done; the message is the last step."""
        return min(len(self.items), int(share * (len(self.items) + 1)))


_FAILED = Error("internal_error", "Internal error while processing the request", "internal_error")
_CANCELLED = Error("cancelled", "cancelled", "cancelled")
_STATUS = {"IN_PROGRESS": "in_progress", "FAILED": "failed", "CANCELLED": "cancelled"}


class Runs:
    """Writes runs from seed and request: the same request gets the same answer. The latest 16 MiB are cached."""

    def __init__(self, *, seed: int, chars: int | None, think: bool, files: Files) -> None:
        self._seed = seed
        self._files = files
        self._chars = chars
        self._think = think
        self._library = Library(seed)
        self._cache = Cache[Written]()

    def _rng(self, digest: bytes) -> random.Random:
        # Not security-relevant: an answer must be repeatable.
        return random.Random(b"%d/run/" % self._seed + digest)  # noqa: S311

    def _drawn(self, digest: bytes, asking: Asking) -> Run:
        return draw(self._rng(digest), asking, self._chars)

    def cost(self, digest: bytes, asking: Asking) -> float:
        """US dollars that the whole run will be billed."""
        return cost(self._drawn(digest, asking))

    def spent(self, job: JobRecord, share: float) -> float:
        """US dollars for the tools that were used by the time this share of the run was done."""
        written = self._written(job)
        return round(sum(tool_costs(written.run, written.shown(share)).values()), 5)

    def queued(self, job: JobRecord) -> bytes:
        """The answer to a background create."""
        # Parsed but not generated: nothing is written before the first poll, so many creates at once are cheap.
        body = self._body(job, read(job.body), "queued", int(job.created_at), b"[]")
        body.id = job.told_id
        return msgspec.json.encode(body)

    def body(self, job: JobRecord, state: State, share: float, now: float, *, is_short: bool = False) -> bytes:
        """The run in this state; `now` is used for both its timestamps, as the service does at each poll.

        A short one has the messages of its output only. That is a guess: the service does not say what it leaves out.
        """
        if state == "CREATED":
            return msgspec.json.encode(self._body(job, read(job.body), "queued", int(now), b"[]"))
        written = self._written(job)
        if state == "COMPLETED":
            return self._ended(job, written, int(now), is_short=is_short)
        if state == "REQUIRES_ACTION":
            calls = items(job.id, pending(written.asking), self._rng(job.digest))
            output = _array(calls if is_short else [*written.items, *calls])
            return msgspec.json.encode(self._body(job, written.asking, "requires_action", int(now), output))
        shown = written.items if state == "FAILED" else written.items[: written.shown(share)]
        body = self._body(job, written.asking, _STATUS[state], int(now), _array(() if is_short else shown))
        if state in ("FAILED", "CANCELLED"):
            body.error = _FAILED if state == "FAILED" else _CANCELLED
            body.incomplete_details = Details("cancelled") if state == "CANCELLED" else None
        return msgspec.json.encode(body)

    def _ended(self, job: JobRecord, written: Written, now: int, *, is_short: bool) -> bytes:
        asking, run = written.asking, written.run
        status = "incomplete" if run.cut else "completed"
        message = [_message(job.id, written.text, status)] if run.chars else []
        found = () if is_short else (*written.items, *self._files.items(job, asking))
        body = self._body(job, asking, status, now, _array([*found, *message]))
        body.model = asking.named_model or run.tariff.model
        body.tools = asking.tools or _used(run)
        body.usage = written.usage
        if run.cut:
            body.incomplete_details = Details("max_output_tokens")
        else:
            body.completed_at = now
        return msgspec.json.encode(body)

    def _body(self, job: JobRecord, asking: Asking, status: str, now: int, output: bytes) -> Body:
        """A run without the members that are only known at its end."""
        return Body(
            background=asking.background or False,
            completed_at=None,
            created_at=now,
            error=None,
            frequency_penalty=0,
            id=job.id,
            incomplete_details=None,
            instructions=asking.instructions,
            max_output_tokens=asking.max_output_tokens,
            max_tool_calls=asking.max_tool_calls,
            metadata=asking.metadata or {},
            model=job.model,
            object="response",
            output=msgspec.Raw(output),
            parallel_tool_calls=asking.parallel_tool_calls is not False,
            presence_penalty=0,
            previous_response_id=asking.previous_response_id,
            prompt_cache_key=asking.prompt_cache_key,
            reasoning=asking.reasoning,
            safety_identifier=None,
            service_tier=asking.service_tier or "default",
            status=status,
            store=asking.store is not False,
            temperature=1 if asking.temperature is None else asking.temperature,
            # Plain text even where a schema was asked for, as captured.
            text={"format": {"type": "text"}},
            tool_choice="auto" if asking.tool_choice is None else asking.tool_choice,
            tools=[],
            top_logprobs=0,
            top_p=1 if asking.top_p is None else asking.top_p,
            truncation=asking.truncation or "",
            usage=NULL,
            user=None,
            # Of the service's types: both have the same configuration and version. The captures are older.
            effort=asking.configuration or msgspec.UNSET,
            preset=asking.configuration or msgspec.UNSET,
        )

    # --- writing

    def _written(self, job: JobRecord) -> Written:
        return self._cache.get(job.digest, lambda: self._write(job))

    def _write(self, job: JobRecord) -> tuple[Written, int]:
        asking = read(job.body)
        rng = self._rng(job.digest)
        run = draw(rng, asking, self._chars)
        topic = topic_of(asking.question)
        items, marks = _items(rng, run, topic)
        text = msgspec.json.encode(self._text(rng, asking, run, topic, marks)) if run.chars else b""
        written = Written(asking, run, items, text, msgspec.Raw(msgspec.json.encode(usage(run))))
        return written, sum(map(len, items)) + len(text) + len(job.body)

    def _text(self, rng: random.Random, asking: Asking, run: Run, topic: str, marks: list[int]) -> str:
        if asking.schema is not None:
            return msgspec.json.encode(Example(asking.schema, rng).make()).decode()
        thought = think(rng, topic) if self._think else ""
        chars = max(1, int(run.chars * MARKED))
        plain = self._library.report(rng, topic=topic, chars=chars, sources=max(1, len(marks)))
        return thought + _MARK.sub(lambda mark: f"[web:{marks[int(mark[1]) - 1]}]" if marks else "", plain)


def _items(rng: random.Random, run: Run, topic: str) -> tuple[tuple[bytes, ...], list[int]]:
    """(searches and then pages, as JSON; the citation number of each source).

    Searches run in parallel, so they arrive in any order, and each has its own range of ids.
    """
    found = pages(rng, topic, sum(run.found) or len(run.reads))
    if not run.found:
        # Pages without a search have no ids; they are numbered from 0, as in the only capture.
        return _fetched(found), list(range(len(found)))
    searches: list[bytes] = []
    marks: list[int] = []
    for number, count in enumerate(run.found):
        ids = sorted(rng.sample(range(1, IDS_PER_SEARCH + 1), count))
        ids = [number * IDS_PER_SEARCH + id for id in ids]
        results = [_result(id, page) for id, page in zip(ids, found[len(marks) :], strict=False)]
        query = f"{topic} {ASPECTS[number % len(ASPECTS)]}"
        searches.append(msgspec.json.encode({"queries": [query], "results": results, "type": "search_results"}))
        marks += ids
    rng.shuffle(searches)
    return (*searches, *_fetched(rng.sample(found, len(run.reads)))), marks


def _result(id: int, page: dict[str, Any]) -> dict[str, Any]:
    """One search result; an unknown date is absent, never null."""
    result = {**page, "id": id}
    members = ("date", "id", "last_updated", "snippet", "source", "title", "url")
    return {name: result[name] for name in members if result[name] is not None}


def _fetched(found: list[dict[str, Any]]) -> tuple[bytes, ...]:
    return tuple(
        msgspec.json.encode({
            "contents": [{"snippet": page["snippet"], "title": page["title"], "url": page["url"]}],
            "type": "fetch_url_results",
        })
        for page in found
    )


def _message(id: str, text: bytes, status: str) -> bytes:
    own = uuid.UUID(bytes=blake2b(id.encode(), digest_size=16).digest(), version=4)
    return (
        b'{"content":[{"annotations":[],"text":%b,"type":"output_text"}],"id":"msg_%b","role":"assistant",'
        b'"status":"%b","type":"message"}'
    ) % (text, str(own).encode(), status.encode())


def _array(items: Iterable[bytes]) -> bytes:
    return b"[%b]" % b",".join(items)


def _used(run: Run) -> list[dict[str, Any]]:
    names = [name for name, used in (("web_search", run.found), ("fetch_url", run.reads)) if used]
    return [{"type": name} for name in names]
