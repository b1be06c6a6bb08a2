"""The Agent API's background runs as a value: its endpoints as calls, their replies as snapshots.

Every readable part of a reply is used: one odd field never loses the others. This module knows nothing of when a call
is made, of retries, or of the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import msgspec

from aiopplx._errors import APIError, InvalidRequest, RequiredAction
from aiopplx._job import JobFile, JobStatus, Page, Snapshot
from aiopplx._text.safe import plain
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import joined
from aiopplx._wire.api import Tier, quoted_id
from aiopplx._wire.call import Call, Lane, Reply
from aiopplx._wire.decoding import (
    check_has_id,
    check_id,
    loosely_within,
    nameless,
    plain_values,
    salvaged,
    strictly,
    unusable,
    with_id,
)
from aiopplx._wire.kinds import Kind, Published, kind_named, unversioned
from aiopplx._wire.request import Request, ResearchRequest, last_words
from aiopplx._wire.status import (
    ends_told,
    implied,
    is_moment,
    needs_caller,
    overruled,
    plainly,
    says_running,
    status_in,
)
from aiopplx._wire.words import error_in, remarks_in, why_it_ended, with_words, words_about, words_in, words_of_end
from aiopplx.agent._request import AgentRequest, newest
from aiopplx.agent._responses import (
    AgentResponse,
    CancelResponse,
    FileRow,
    salvaged_response,
)
from aiopplx.agent._translate import translate

RESULTS_LIVE = 7 * 86_400.0
"""Seconds for which a run is expected to be kept: 7 days, as for a Sonar job. The provider does not say how long it
keeps a run; only a poll shows whether a run still exists."""

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a submission above which the server answers 413 (its documented limit: 32 MiB)."""

TIERS = tuple(Tier(rpm, None, None) for rpm in (50.0, 150.0, 500.0, 1000.0, 2000.0, 2000.0))
"""docs.perplexity.ai, rate limits by usage tier, October 2026: one limit for all requests."""
PUBLISHED: Mapping[Kind, Published] = {
    Kind("agent", "medium"): Published(0.01, 0.10, 45.0, 0.9),
    Kind("agent", "high"): Published(0.40, 1.00, 180.0, 0.9),
}
"""From two runs ($0.016 in 40 seconds; $0.98) and the provider's estimate of $0.40 to $0.90. The time of `high` is a
judgement."""


class _Thinking(msgspec.Struct):
    effort: str | None = None


class _Who(msgspec.Struct):
    """Of a submission only what its kind depends on."""

    effort: str | None = None
    preset: str | None = None
    model: str | None = None
    models: list[str] | None = None
    profile: dict[str, Any] | None = None
    reasoning: _Thinking | None = None


class _Asked(msgspec.Struct):
    """Of a submission only what was asked."""

    input: Any = None


# Sorted keys: equal requests make equal bytes, whatever the order of a mapping.
_ENCODER = msgspec.json.Encoder(order="deterministic")
_WHO = msgspec.json.Decoder(_Who)
_ASKED = msgspec.json.Decoder(_Asked)
_RESPONSE = msgspec.json.Decoder(AgentResponse)
_CANCEL = msgspec.json.Decoder(CancelResponse)

_STATUS = {
    "queued": JobStatus.CREATED,
    "in_progress": JobStatus.IN_PROGRESS,
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
    "canceled": JobStatus.CANCELLED,
    "incomplete": JobStatus.INCOMPLETE,
}


class Agent(msgspec.Struct, frozen=True):
    """The Agent API as an `API`. `base_path` is one of its two paths; both serve the same runs."""

    base_path: str = "/v1/responses"

    name: ClassVar[str] = "agent"
    has_idempotency: ClassVar[bool] = False
    """There is no field or header for a key. A submission sent twice makes two runs and two bills."""
    has_list: ClassVar[bool] = False
    """Runs cannot be listed, so a run whose id is lost cannot be found again."""
    has_cancel: ClassVar[bool] = True
    """A running job can be cancelled; the searches made so far are billed."""
    has_dates: ClassVar[bool] = False
    """Captures show dates that each poll rewrites."""
    echoes_model: ClassVar[bool] = False
    """The server first names the preset, and later the model that it stands for."""
    results_live: ClassVar[float] = RESULTS_LIVE
    request_type: ClassVar[type[Request]] = AgentRequest
    published: ClassVar[Mapping[Kind, Published]] = PUBLISHED
    tiers: ClassVar[Sequence[Tier]] = TIERS
    unknown_id: ClassVar[str] = "resp_00000000-0000-0000-0000-000000000000"
    cheapest: ClassVar[Mapping[str, object]] = {"input": "Answer with one word: is water wet?", "effort": "fast"}
    """The fields of the cheapest request: one word, with the least effort."""
    batch_urls: ClassVar[Mapping[str, str]] = dict.fromkeys(("/v1/responses", "/v1/agent"), "input")

    def has_model(self, name: str) -> bool:
        """True for `provider/model`, as all of them are named: the models of many makers run there."""
        provider, _, model = name.partition("/")
        return bool(provider and model)

    def takes(self, request: Request) -> bool:
        """True for an `AgentRequest`, and for a `ResearchRequest`, which is translated."""
        return isinstance(request, AgentRequest | ResearchRequest)

    def owns(self, job_id: str) -> bool:
        """Runs have ids of the form `resp_<uuid>`."""
        return job_id.startswith("resp_")

    def freeze(self, request: Request, idempotency_key: str) -> bytes:
        """The exact bytes of the submission, always the same for the same request.

        The key is not in them: the server has no such field, and refuses unknown fields. It only identifies the
        submission within the session.

        Raises:
            InvalidRequest: the request breaks a rule, is another API's, or uses fields without a counterpart in this
                API (the error names all of them).
        """
        native = translate(request) if isinstance(request, ResearchRequest) else request
        if not isinstance(native, AgentRequest):
            raise native.not_taken(AgentRequest)
        body = _ENCODER.encode(newest(native.wire()))
        if len(body) > MAX_BODY:
            raise InvalidRequest(
                f"makes a body of {len(body) / 2**20:.1f} MiB; the server accepts at most {MAX_BODY >> 20}",
                field="input",
                tag=native.tag,
            )
        return body

    def rekeyed(self, body: bytes, idempotency_key: str) -> bytes:
        """The same bytes: the key is not in them."""
        return body

    def is_behind(self, error: APIError) -> bool:
        """True for a 400 about `effort`: the server knows only `preset`, the word for it before October 2026."""
        return error.status == 400 and error.param == "effort"

    def older(self, body: bytes) -> bytes | None:
        """The same with `preset` in place of `effort`; None without one."""
        said = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "effort" not in said:
            return None
        said["preset"] = said.pop("effort")
        return _ENCODER.encode(said)

    def kind_of(self, body: bytes) -> Kind:
        """By what answers: the effort or preset, else the profile, and the models; and by how hard they think.

        `effort` is the server's newer word for `preset`, and precedes it.
        """
        asked = strictly(_WHO, body)
        if asked is None:
            return Kind(self.name)
        profile = f"profile:{asked.profile.get('id', '')}" if asked.profile is not None else None
        models = [asked.model] if asked.model is not None else asked.models or []
        who = [name for name in (asked.effort or asked.preset or profile, *models) if name]
        thinking = asked.reasoning.effort if asked.reasoning is not None else None
        return kind_named(self.name, "+".join(map(unversioned, who)), thinking or "")

    def question_of(self, body: bytes) -> str:
        """See `API`."""
        asked = strictly(_ASKED, body)
        return last_words(asked.input) if asked is not None else ""

    def submit(self, body: bytes) -> Call:
        """The call that submits a frozen request."""
        return Call(Lane.SUBMIT, "POST", self.base_path, body, self.name)

    def get(self, job_id: str) -> Call:
        """The call that polls a run. Raises `InvalidRequest` for a text that cannot be a job id."""
        return Call(Lane.POLL, "GET", f"{self.base_path}/{quoted_id(job_id)}", api=self.name)

    def list(self, *, limit: int | None, next_token: str) -> Call:
        """Raises `InvalidRequest`: this API has no list of runs."""
        _refuse_list()

    def cancel(self, job_id: str) -> Call:
        """The call that asks the server to cancel a run. The run ends later: poll it until the status is final.

        The server answers 400 both for a run that has ended and for an unknown id; a poll shows which it was. Raises
        `InvalidRequest` for a text that cannot be a job id.
        """
        return Call(Lane.CANCEL, "POST", f"{self.base_path}/{quoted_id(job_id)}/cancel", api=self.name)

    def files(self, job_id: str) -> Call:
        """The call for the list of a run's files. Raises `InvalidRequest` for a text that cannot be a job id."""
        return Call(Lane.FILE, "GET", f"{self.base_path}/{quoted_id(job_id)}/files", api=self.name)

    def file(self, job_id: str, file_id: str) -> Call:
        """The call for the content of one file. Raises `InvalidRequest` for a text that cannot be such an id."""
        path = f"{self.base_path}/{quoted_id(job_id)}/files/{quoted_id(file_id)}/content"
        return Call(Lane.FILE, "GET", path, api=self.name)

    def read_job(self, reply: Reply, expected_id: str = "") -> Snapshot:
        """The run in a 200. Raises `ProtocolError` if it is not that run; "" accepts any with a usable id.

        An answer to a submission is never refused for want of an id.
        """
        body = reply.body
        run = strictly(_RESPONSE, body) or _salvaged_run(reply, expected_id)
        snapshot = _snapshot(run, body)
        if snapshot.status.is_final and (run.lacks_addresses() or run.is_encoded()):
            run = _salvaged_run(reply, expected_id)
            snapshot = _snapshot(run, body)
        if (run.id != expected_id or not expected_id) and (run.id or expected_id or not snapshot.status.is_final):
            check_id(reply, run.id, expected_id)
        return snapshot

    def recognise(self, value: dict[str, Any], raw: bytes) -> Snapshot | None:
        """A response object, or whatever has messages in its output."""
        if value.get("object") != "response" and not is_array(value.get("output")):
            return None
        run = salvaged_response(with_id(value)) or salvaged_response({**value, "id": ""})
        if run is None or not (run.object == "response" or _is_answered(run)):
            return None
        if not run.status and run.usage is not None and _is_answered(run):  # which a run has once it ends
            run = msgspec.structs.replace(run, status="completed")
        snapshot = _snapshot(run, raw)
        return snapshot if snapshot.status.is_final else None

    def read_page(self, reply: Reply) -> Page:
        """Raises `InvalidRequest`: this API has no list of runs."""
        _refuse_list()

    def read_cancel(self, reply: Reply) -> str:
        """The server's word in the 200 of a cancellation, `cancelling`. Raises `ProtocolError` if there is none.

        Some gateways answer with the whole run instead; the word is then its status.
        """
        said = strictly(_CANCEL, reply.body)
        if said is not None and said.status.lower() not in _NOT_CANCELLED:
            return plain(said.status, 80)
        value = plain_values(reply)
        word = value.get("status") if is_object(value) else None
        if not isinstance(word, str):
            unusable(reply, with_words("something other than the status of a cancellation", value))
        if word.lower() in _NOT_CANCELLED:
            unusable(reply, with_words(f"{word.lower()!r} to a cancellation", value))
        return plain(word, 80)

    def read_files(self, reply: Reply) -> Sequence[JobFile]:
        """A 200 of the list of files. Raises `ProtocolError` if it is not one; rows without an id are skipped."""
        value = plain_values(reply)
        rows = loosely_within(value.get("data")) if is_object(value) else None
        if not is_array(rows):
            unusable(reply, with_words("something other than a list of files", value))
        found = [salvaged(row, FileRow) for row in map(loosely_within, rows) if is_object(row)]
        return [row.file() for row in found if row is not None and row.id]


_NOT_CANCELLED = frozenset({"rejected", "denied", "refused", "declined", "ignored", "not_cancelled", "not_canceled"})
"""Words that are no status of a run, and no consent."""


AGENT = Agent()
"""The path that the provider's SDK and those of OpenAI call."""
AGENT_ALIAS = Agent("/v1/agent")
"""The equivalent paths under the name that the provider's documents prefer."""


def _refuse_list() -> NoReturn:
    raise InvalidRequest(
        "the Agent API cannot list jobs: keep the ids, or give the session a journal, which keeps them"
    )


def _snapshot(run: AgentResponse, raw: bytes) -> Snapshot:
    """Without times: the server rewrites `created_at` and `completed_at` at each poll, so they are not the run's."""
    word = status_in(raw, run.status)
    is_answered = _is_answered(run)
    known = _STATUS.get(word) or _STATUS.get(plainly(word))
    status = known or _implied(run, word, is_answered, raw)
    if not status.is_final and (ends := _ends(run, raw)):
        status = overruled(ends, is_whole=False) or status  # its `completed_at` says nothing, as above
    words = _words(run, raw)
    actions: tuple[RequiredAction, ...] | None = None
    if known is None and (needs_caller(word) or (not says_running(word) and word and run.actions())):
        status, actions = JobStatus.FAILED, run.actions()
    elif status is JobStatus.COMPLETED:
        if is_answered:
            words = remarks_in(raw, is_sought=run.has_unknown_items()) or words
        else:
            status, words, actions = _unanswered(run, raw, words)
    elif status.is_final:
        words = words_of_end(raw) or words
    return Snapshot(
        id=run.id,
        status=status,
        server_status=word,
        is_unknown=known is None,
        model=run.model or "",
        error_message=words,
        # A run that has ended always has a response: its usage says what was billed, and its findings were paid for.
        response=run if status.is_final or run.output else None,
        is_empty=status is JobStatus.COMPLETED and not is_answered,
        actions=actions,
        raw=raw,
    )


def _implied(run: AgentResponse, word: str, is_answered: bool, raw: bytes) -> JobStatus:
    """The status of a run whose own is unknown or unreadable: a result that was paid for must not be lost with it."""
    if not word.strip() and run.error is None and run.incomplete_details is not None:
        return JobStatus.INCOMPLETE
    failed = bool((word or run.error is not None) and error_in(raw))
    return implied(word, _ends(run, raw), failed=failed, answered=is_answered and not run.is_on_the_way())


def _ends(run: AgentResponse, raw: bytes) -> frozenset[JobStatus]:
    """How it has ended by the moments that it names."""
    found = ends_told(raw)
    return found | {JobStatus.FAILED} if is_moment(run.failed_at) else found


def _unanswered(
    run: AgentResponse, raw: bytes, words: str | None
) -> tuple[JobStatus, str | None, tuple[RequiredAction, ...] | None]:
    """(status, words, actions) of a run that is completed without an answer: all that the server says of the reason."""
    said = words_in(raw) or words or ""
    if error_in(raw):
        return JobStatus.FAILED, said or None, None
    if actions := run.actions():
        return JobStatus.FAILED, said or None, actions
    if failure := run.failure():
        return JobStatus.FAILED, joined(filter(None, (failure, said))), None
    if declined := run.refusal():
        return JobStatus.COMPLETED, joined(filter(None, (f"the model declined: {declined}", said))), None
    reason = run.finish_reason() if run.incomplete_details is None else None
    ended = f"finish_reason {reason}" if reason and reason.lower() not in _ENDED_WELL else why_it_ended(raw)
    return JobStatus.COMPLETED, joined(filter(None, (ended, said))) or None, None


_ENDED_WELL = frozenset({"stop", "completed", "end_turn"})
"""After these a text may still come."""


def _is_answered(run: AgentResponse) -> bool:
    written = run.written()
    return bool(written and not written.isspace())


def _words(run: AgentResponse, raw: bytes) -> str | None:
    said = ""
    if run.error is not None:
        # An error without a message may have its words under another name.
        said = run.error.reason() if run.error.message else error_in(raw) or run.error.reason()
    if not said and run.incomplete_details is not None:
        said = run.incomplete_details.reason or ""
    return said or None


def _salvaged_run(reply: Reply, expected_id: str) -> AgentResponse:
    value = plain_values(reply, expected_id)
    if is_array(value) or (is_object(value) and "id" not in value and is_array(value.get("data"))):
        nameless(reply, "a list of jobs, not a job", value, expected_id)
    if not is_object(value):
        nameless(reply, "a single value, not a job", value, expected_id)
    run = salvaged_response(with_id(value))
    if run is None or not (run.id == expected_id != "" or _is_answered(run)):
        check_has_id(reply, value, words_about(value), expected_id)
    if run is None:
        nameless(reply, "a body without a usable id", value, expected_id)
    return run
