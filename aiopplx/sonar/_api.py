"""The Sonar job API (async chat completions) as a value: its endpoints as calls, their replies as snapshots.

Every readable part of a reply is used: one odd field never loses the others. This module knows nothing of when a call
is made, of retries, or of the session.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from aiopplx._errors import APIError, InvalidRequest, RequiredAction
from aiopplx._job import JobFile, JobStatus, Page, Snapshot
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import joined, words_of
from aiopplx._wire.api import Tier, quoted_id
from aiopplx._wire.call import Call, Lane, Reply
from aiopplx._wire.decoding import (
    check_has_id,
    check_id,
    is_usable,
    loosely,
    loosely_within,
    nameless,
    plain_values,
    salvaged,
    strictly,
    unusable,
    with_id,
)
from aiopplx._wire.kinds import Kind, Published, kind_named, unversioned
from aiopplx._wire.request import DEFAULT_MODEL, Request, ResearchRequest, last_words
from aiopplx._wire.status import ends_told, implied, is_moment, needs_caller, overruled, plainly, seconds_of, status_in
from aiopplx._wire.words import error_in, remarks_in, why_it_ended, with_words, words_about, words_in, words_of_end
from aiopplx.sonar._responses import AsyncJob, CompletionResponse, lacks_addresses, salvaged_completion

RESULTS_LIVE = 7 * 86_400.0
"""Seconds for which the server keeps a job: 7 days."""

TIERS = tuple(Tier(rpm, 6000.0, 3000.0) for rpm in (5.0, 10.0, 20.0, 40.0, 60.0, 100.0))
"""docs.perplexity.ai, rate limits by usage tier, October 2026."""
PUBLISHED: Mapping[Kind, Published] = {
    Kind("sonar", DEFAULT_MODEL, "low"): Published(0.15, 0.60, 120.0, 0.6),
    Kind("sonar", DEFAULT_MODEL, "medium"): Published(0.38, 1.20, 180.0, 0.6),
    Kind("sonar", DEFAULT_MODEL, "high"): Published(0.80, 1.60, 200.0, 0.6),
}
"""From the provider's examples ($0.41, $1.19 and $1.32) and 34 published runs at `medium` (29 with means of $0.96 and
212 seconds, 5 with $1.00 and 278). The widths are a judgement."""

_DEFAULT_EFFORT = {DEFAULT_MODEL: "medium"}
"""The server's own default, so that a question that says it and one that does not are of one kind."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _Submission(msgspec.Struct):
    """The body of a submission."""

    request: dict[str, Any]
    idempotency_key: str


class _Frozen(msgspec.Struct):
    """The body of a submission read back, with the request kept as bytes."""

    request: msgspec.Raw
    idempotency_key: str


class _Who(msgspec.Struct):
    """Of a submission only what its kind depends on."""

    model: str | None = None
    reasoning_effort: str | None = None


class _Kinded(msgspec.Struct):
    request: _Who


class _Asked(msgspec.Struct):
    messages: Any = None


class _Question(msgspec.Struct):
    """Of a submission only what was asked."""

    request: _Asked


class _Page(msgspec.Struct):
    """Rows are decoded one by one, so that a bad row affects only itself."""

    requests: list[msgspec.Raw]
    next_token: Any = None


# Sorted keys: equal requests make equal bytes, whatever the order of a mapping.
_ENCODER = msgspec.json.Encoder(order="deterministic")
_JOB = msgspec.json.Decoder(AsyncJob)
_COMPLETION = msgspec.json.Decoder(CompletionResponse)
_PAGE = msgspec.json.Decoder(_Page)
_KINDED = msgspec.json.Decoder(_Kinded)
_ASKED = msgspec.json.Decoder(_Question)
_FROZEN = msgspec.json.Decoder(_Frozen)

_STATUS = {
    "CREATED": JobStatus.CREATED,
    "QUEUED": JobStatus.CREATED,
    "IN_PROGRESS": JobStatus.IN_PROGRESS,
    "COMPLETED": JobStatus.COMPLETED,
    "FAILED": JobStatus.FAILED,
}


class Sonar(msgspec.Struct, frozen=True):
    """The Sonar job API as an `API`. `base_path` is one of its two path families; both serve the same jobs."""

    base_path: str = "/async/chat/completions"

    name: ClassVar[str] = "sonar"
    has_idempotency: ClassVar[bool] = True
    """The body has an `idempotency_key` next to the request."""
    has_list: ClassVar[bool] = True
    has_cancel: ClassVar[bool] = False
    """A submitted job runs to its end and is billed."""
    has_dates: ClassVar[bool] = True
    echoes_model: ClassVar[bool] = True
    results_live: ClassVar[float] = RESULTS_LIVE
    request_type: ClassVar[type[Request]] = ResearchRequest
    published: ClassVar[Mapping[Kind, Published]] = PUBLISHED
    tiers: ClassVar[Sequence[Tier]] = TIERS
    unknown_id: ClassVar[str] = "00000000-0000-0000-0000-000000000000"
    cheapest: ClassVar[Mapping[str, object]] = {"question": "Answer with one word: is water wet?", "model": "sonar"}
    """The fields of the cheapest request: one word, from a model that researches nothing."""
    batch_urls: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("/async/chat/completions", "/v1/async/sonar", "/chat/completions", "/v1/sonar"), "messages"
    )

    def has_model(self, name: str) -> bool:
        """True for a name that begins with `sonar`, as all of them do."""
        return name.startswith("sonar")

    def takes(self, request: Request) -> bool:
        """True for a `ResearchRequest` only."""
        return isinstance(request, ResearchRequest)

    def owns(self, job_id: str) -> bool:
        """True for a bare UUID, the form of every id seen so far. No document says so: the form may change."""
        return _UUID.fullmatch(job_id) is not None

    def freeze(self, request: Request, idempotency_key: str) -> bytes:
        """The exact bytes of the submission, always the same for the same request and key.

        Raises:
            InvalidRequest: the request breaks a rule, or is another API's.
        """
        if not isinstance(request, ResearchRequest):
            raise request.not_taken(ResearchRequest)
        return _ENCODER.encode(_Submission(request.wire(), idempotency_key))

    def rekeyed(self, body: bytes, idempotency_key: str) -> bytes:
        """The same request, byte for byte, with another key."""
        frozen = _FROZEN.decode(body)
        return _ENCODER.encode(_Frozen(frozen.request, idempotency_key))

    def is_behind(self, error: APIError) -> bool:
        """Its words have not changed."""
        return False

    def older(self, body: bytes) -> bytes | None:
        """None: its words have not changed."""
        return None

    def kind_of(self, body: bytes) -> Kind:
        """By the model and the `reasoning_effort` in the bytes."""
        asked = strictly(_KINDED, body)
        return Kind(self.name) if asked is None else _kind(asked.request.model, asked.request.reasoning_effort)

    def question_of(self, body: bytes) -> str:
        """See `API`."""
        asked = strictly(_ASKED, body)
        return last_words(asked.request.messages) if asked is not None else ""

    def submit(self, body: bytes) -> Call:
        """The call that submits a frozen request."""
        return Call(Lane.SUBMIT, "POST", self.base_path, body, self.name)

    def get(self, job_id: str) -> Call:
        """The call that polls a job. Raises `InvalidRequest` for a text that cannot be a job id."""
        return Call(Lane.POLL, "GET", f"{self.base_path}/{quoted_id(job_id)}", api=self.name)

    def list(self, *, limit: int | None, next_token: str) -> Call:
        """The call for a page of the account's jobs: `limit` rows (None: the server's 20), starting at `next_token`."""
        if limit is not None and limit < 1:
            raise InvalidRequest("must be at least 1", field="limit")
        asked = [f"limit={limit}"] if limit is not None else []
        if next_token:
            asked.append(f"next_token={quote(next_token, safe='')}")
        path = f"{self.base_path}?{'&'.join(asked)}" if asked else self.base_path
        return Call(Lane.LIST, "GET", path, api=self.name)

    def cancel(self, job_id: str) -> Call:
        """Raises `InvalidRequest`: this API has no way to cancel a job."""
        raise InvalidRequest("the Sonar API cannot cancel a job: it runs to its end and is billed")

    def read_job(self, reply: Reply, expected_id: str = "") -> Snapshot:
        """The job in a 200. Raises `ProtocolError` if it is not that job; "" accepts any with a usable id.

        A server that is not asynchronous answers a submission with a finished chat completion, which is read as a
        finished job. An answer to a submission is never refused for want of an id.
        """
        body = reply.body
        job = strictly(_JOB, body)
        if job is None or (job.response is not None and lacks_addresses(job.response)):
            job = _salvaged_job(reply, expected_id)
        if is_at_once := job.choices is not None and job.response is None:
            job = _at_once(job, body)
        snapshot = _snapshot(job, body)
        if (job.id != expected_id or not expected_id) and (job.id or expected_id or not snapshot.status.is_final):
            check_id(reply, job.id, expected_id)
        return _whole(snapshot) if is_at_once else snapshot

    def recognise(self, value: dict[str, Any], raw: bytes) -> Snapshot | None:
        """A chat completion, or a job that has one."""
        is_at_once = is_array(value.get("choices"))
        answer = value if is_at_once else value.get("response")
        response = salvaged_completion(answer) if is_object(answer) and answer.get("choices") else None
        if response is None or not response.choices:
            return None
        job = _of_values(value) or _of_values({**value, "id": None})
        if job is None:
            return None
        if is_at_once:
            job = _ended(job, response)
        snapshot = _snapshot(job, raw)
        if not snapshot.status.is_final:
            return None
        return _whole(snapshot) if is_at_once else snapshot

    def read_cancel(self, reply: Reply) -> str:
        """Raises `InvalidRequest`, as `cancel` does."""
        self.cancel("")
        return ""

    def files(self, job_id: str) -> Call:
        """Raises `InvalidRequest`: jobs of this API have no files."""
        raise InvalidRequest("jobs of the Sonar API have no files: all that they make is in the answer")

    def file(self, job_id: str, file_id: str) -> Call:
        """Raises `InvalidRequest`, as `files` does."""
        return self.files(job_id)

    def read_files(self, reply: Reply) -> Sequence[JobFile]:
        """Raises `InvalidRequest`, as `files` does."""
        self.files("")
        return ()

    def read_page(self, reply: Reply) -> Page:
        """A page of the list. Raises `ProtocolError` if it is not one; unreadable rows are skipped and counted."""
        page = strictly(_PAGE, reply.body)
        rows, token = (page.requests, page.next_token) if page is not None else _salvaged_page(reply)
        jobs = [job for job in map(_read_row, rows) if job is not None]
        return Page(jobs, token if isinstance(token, str) else "", len(rows) - len(jobs))


@lru_cache(maxsize=256)
def _kind(model: str | None, effort: str | None) -> Kind:
    named = unversioned(model or "")
    return kind_named("sonar", named, effort or _DEFAULT_EFFORT.get(named, ""))


SONAR = Sonar()
"""The paths that the provider's SDK calls."""
SONAR_V1 = Sonar("/v1/async/sonar")
"""The equivalent paths in the provider's documents."""


def _snapshot(job: AsyncJob, raw: bytes) -> Snapshot:
    response = job.response
    is_answered = _is_answered(job)
    word = job.status or ""
    known = _STATUS.get(word)
    if known is None:
        word = status_in(raw, job.status)
        known = _STATUS.get(word) or _STATUS.get(plainly(word).upper())
    if known is None:
        status = _implied(job, word, is_answered, raw)
    else:
        status = known if known.is_final else _told_otherwise(job, is_answered, raw) or known
    words = job.error_message
    if not words:
        words = (words_of(job.error) or None) if job.error is not None else None
    actions: tuple[RequiredAction, ...] | None = None
    if status is JobStatus.COMPLETED:
        if is_answered:
            words = remarks_in(raw) or words
        else:
            status, words, actions = _unanswered(job, raw, words)
    elif known is None and needs_caller(word):
        status, actions = JobStatus.FAILED, _actions(response)
    elif status is JobStatus.FAILED or status is JobStatus.CANCELLED:
        words = words_of_end(raw) or words
    return Snapshot(
        id=job.id,
        status=status,
        server_status=word,
        is_unknown=known is None,
        model=job.model or "",
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        failed_at=job.failed_at,
        error_message=words,
        response=response,
        is_empty=status is JobStatus.COMPLETED and not is_answered,
        actions=actions,
        raw=raw,
    )


def _is_answered(job: AsyncJob) -> bool:
    return job.response is not None and job.response.choice() is not None


def _implied(job: AsyncJob, word: str, is_answered: bool, raw: bytes) -> JobStatus:
    """The status of a job whose own is unknown or unreadable: a result that was paid for must not be lost with it."""
    ends = ends_told(raw) | _ends(job)
    # Without a word, an answer that says why it ends is whole.
    if not word and is_answered and _says_why_it_ends(job):
        ends |= {JobStatus.COMPLETED}
    failed = bool(word and (job.error_message or error_in(raw)))
    is_answered = is_answered and job.response is not None and not job.response.is_on_the_way()
    return implied(word, ends, failed=failed, answered=is_answered)


def _ends(job: AsyncJob) -> frozenset[JobStatus]:
    """How it has ended by the moments that were read; one that came as its own answer has that of the answer."""
    found = frozenset({JobStatus.FAILED}) if is_moment(job.failed_at) else _NO_END
    return found | {JobStatus.COMPLETED} if is_moment(job.completed_at) else found


_NO_END: frozenset[JobStatus] = frozenset()


def _told_otherwise(job: AsyncJob, is_answered: bool, raw: bytes) -> JobStatus | None:
    """What its dates say of a job whose status is behind them: it has failed, or ended with the answer beside it."""
    ends = ends_told(raw) | _ends(job)
    return overruled(ends, is_whole=is_answered and _says_why_it_ends(job)) if ends else None


def _says_why_it_ends(job: AsyncJob) -> bool:
    return job.response is not None and job.response.finish_reason(job.response.choice()) is not None


def _unanswered(
    job: AsyncJob, raw: bytes, words: str | None
) -> tuple[JobStatus, str | None, tuple[RequiredAction, ...] | None]:
    """(status, words, actions) of a job that is completed without an answer: whatever the server says of the reason."""
    response = job.response
    said = words_in(raw) or words or ""
    if words or error_in(raw):
        return JobStatus.FAILED, said, None
    if response is not None and (actions := _actions(response)):
        return JobStatus.FAILED, said or None, actions
    if response is not None and (declined := response.refusal()):
        return JobStatus.COMPLETED, joined(filter(None, (f"the model declined: {declined}", said))), None
    reason = response.finish_reason(None) if response is not None else None
    if reason and reason.lower() != "stop":  # a text that ended as it should may still come
        return JobStatus.COMPLETED, joined(filter(None, (f"finish_reason {reason}", said))), None
    return JobStatus.COMPLETED, joined(filter(None, (why_it_ended(raw), said))) or None, None


def _actions(response: CompletionResponse | None) -> tuple[RequiredAction, ...]:
    calls = response.tool_calls() if response is not None else ()
    named = [(call.function.name if call.function is not None else None, call.id) for call in calls]
    return tuple(RequiredAction("function_call", name or "", call_id or "") for name, call_id in named)


def _at_once(job: AsyncJob, body: bytes) -> AsyncJob:
    """A job from a chat completion, which is the answer itself: it has ended, unless it says otherwise."""
    response = strictly(_COMPLETION, body)
    if response is None or lacks_addresses(response):
        with contextlib.suppress(ValueError, RecursionError):
            value = loosely_within(loosely(body))
            response = salvaged_completion(value) if is_object(value) else None
    return _ended(job, response) if response is not None else job


def _ended(job: AsyncJob, response: CompletionResponse) -> AsyncJob:
    ended = job.completed_at if is_moment(job.completed_at) else response.created
    return msgspec.structs.replace(job, response=response, completed_at=ended, status=job.status or "COMPLETED")


def _whole(snapshot: Snapshot) -> Snapshot:
    """Of a chat completion: without a text it is all there is, and is not polled for more."""
    if snapshot.may_have_more:
        return msgspec.structs.replace(snapshot, error_message="a finished chat completion without a text")
    return snapshot


def _salvaged_job(reply: Reply, expected_id: str) -> AsyncJob:
    value = plain_values(reply, expected_id)
    if is_array(value) or (is_object(value) and "requests" in value and "id" not in value):
        nameless(reply, "a list of jobs, not a job", value, expected_id)
    if not is_object(value):
        nameless(reply, "a single value, not a job", value, expected_id)
    job = _of_values(value)
    if job is None or not (job.id == expected_id != "" or job.choices is not None or _is_answered(job)):
        check_has_id(reply, value, words_about(value), expected_id)
    if job is None:
        nameless(reply, "a body without a usable id", value, expected_id)
    return job


_MOMENTS = ("created_at", "started_at", "completed_at", "failed_at")


def _of_values(value: Any) -> AsyncJob | None:
    """A job from plain values, with the words of an error in whatever form it is; None if its id is no text."""
    if not is_object(value):
        return None
    value = with_id(value)
    value |= {name: loosely_within(value[name]) for name in ("response", "choices") if isinstance(value.get(name), str)}
    said = value.get("error_message")
    if said is not None and not isinstance(said, str):
        value = {**value, "error_message": words_of(said) or None}
    value = value | {name: seconds_of(value[name]) for name in _MOMENTS if not isinstance(value.get(name, 0), int)}
    choices = value.get("choices")
    response = value.get("response")
    job = salvaged({name: item for name, item in value.items() if name not in ("choices", "response")}, AsyncJob)
    if job is not None and is_object(response):
        job = msgspec.structs.replace(job, response=salvaged_completion(response))
    return msgspec.structs.replace(job, choices=msgspec.Raw(b"[]")) if job and is_array(choices) else job


def _salvaged_page(reply: Reply) -> tuple[list[Any], Any]:
    value = plain_values(reply)
    rows = loosely_within(value.get("requests")) if is_object(value) else None
    if not is_array(rows):
        unusable(reply, with_words("something other than a list of jobs", value))
    return rows, value.get("next_token")


def _read_row(row: Any) -> Snapshot | None:
    """The job of a row (bytes, or plain values if the page had to be salvaged); None if it is unreadable."""
    raw = bytes(row) if isinstance(row, msgspec.Raw) else b""
    job = strictly(_JOB, raw) or _salvaged_row(raw) if raw else _of_values(loosely_within(row))
    if job is None or not is_usable(job.id):
        return None
    return _snapshot(job, raw or _ENCODER.encode(row))


def _salvaged_row(raw: bytes) -> AsyncJob | None:
    try:
        return _of_values(loosely_within(loosely(raw)))
    except (ValueError, RecursionError):
        return None
