"""The job model that all APIs share: what a job is, its result, its cost.

Each API's own structs read themselves into an `Answer`; users see the same words for every API. This module knows
nothing of HTTP, of sessions or of any one API.
"""

from __future__ import annotations

import enum
import re
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from aiopplx._errors import AiopplxError, InvalidRequest, JobError, JobFailed, ProtocolError, ResultMissing
from aiopplx._text import cited, plain

T = TypeVar("T")


class JobStatus(enum.StrEnum):
    """Where a job stands. The first group are the server's words; the second are ours, for what no server can say."""

    CREATED = "CREATED"
    """The server has the job and has not begun (the Agent API's `queued`)."""
    IN_PROGRESS = "IN_PROGRESS"
    """The server is working on it, or says something this version does not know: see `Job.server_status`."""
    COMPLETED = "COMPLETED"
    """It has a result."""
    FAILED = "FAILED"
    """The server gave up."""
    CANCELLED = "CANCELLED"
    """It was cancelled at the server."""
    INCOMPLETE = "INCOMPLETE"
    """The server stopped early; the partial result is available."""

    REJECTED = "REJECTED"
    """Refused before a job was made: by a check here, or by a complete answer of the server. Nothing was billed."""
    IN_DOUBT = "IN_DOUBT"
    """The submission was sent and no usable answer came; a job may exist and be billed."""
    TIMED_OUT = "TIMED_OUT"
    """Still running when its time limit ended. It continues at the service."""
    EXPIRED = "EXPIRED"
    """The server accepted it, and no longer knows it."""
    UNREADABLE = "UNREADABLE"
    """The server answers, but never with this job in a readable form."""
    STOPPED = "STOPPED"
    """Not sent, because the session stopped first. Nothing was billed."""

    @property
    def is_final(self) -> bool:
        """True if it will not change without an action of the user."""
        return self not in (JobStatus.CREATED, JobStatus.IN_PROGRESS)


class Source(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A page that the answer cites; the n-th source is the one that `[n]` in the text refers to (counted from 1).

    Every field but `url` may be missing: the server omits what it does not know.
    """

    url: str = ""
    title: str | None = None
    date: str | None = None
    last_updated: str | None = None
    snippet: str | None = None
    source: str | None = None
    id: int | str | None = None
    place_metadata: Any = None


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a job consumed, in the same words for all APIs. Tokens are counts; `cost` is in US dollars."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None
    citation_tokens: int | None = None
    search_queries: int | None = None
    cost: float | None = None


class Answer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The facts that an API's own response struct reads itself into."""

    text: str = ""
    reasoning: str | None = None
    sources: list[Source] = []
    citations: list[str] = []
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str = ""


@runtime_checkable
class Readable(Protocol):
    """An API's own response struct, as the job model sees it."""

    def answer(self) -> Answer:
        """The same facts in the words of the job model; cheap enough to call at every poll."""
        ...


class Snapshot(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One job as one poll found it, decoded by its API.

    `status` is one of the server's group of `JobStatus`; an unknown word becomes `IN_PROGRESS` and is kept in
    `server_status`. `response` is None until the server sends one. `is_empty` is True if the server says COMPLETED
    without an answer: `response`, if there is one, then still shows what was billed.
    """

    id: str
    status: JobStatus
    server_status: str
    model: str = ""
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    error_message: str | None = None
    response: Readable | None = None
    is_empty: bool = False
    raw: bytes = b""


class Page(msgspec.Struct, frozen=True):
    """One page of the server's list of jobs. `skipped` counts unreadable rows; `next_token` is "" at the end."""

    jobs: list[Snapshot]
    next_token: str = ""
    skipped: int = 0


class Job(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A submission and its outcome: a plain value, safe to keep, compare and pickle.

    Attributes:
        id: the server's id, `""` if the server never gave one (REJECTED, IN_DOUBT, STOPPED).
        status: where it stands; `ok` answers whether there is a result.
        server_status: the server's own word at the last poll, unchanged.
        api: which API made the job (`"sonar"`, `"agent"`).
        model: the model that the server reports.
        idempotency_key: the key it was submitted under; `""` for a job this session did not submit.
        tag: the caller's tag for the submission, unchanged.
        index: position in the source of its batch, from 0; None outside a batch.
        created_at, started_at, completed_at, failed_at: the server's clock, seconds since 1970. For people to read.
        error: why there is no result; None if `ok`, and while the job runs.
        response: the API's own struct, with everything the server sent; None if it sent none. Even without an answer
            it has `usage` and `cost`.
        raw: the bytes of the last answer as received (decompressed).
        polls: how many times the job was polled.
        attempts: how many times the submission was sent.
    """

    id: str = ""
    status: JobStatus
    server_status: str = ""
    api: str = ""
    model: str = ""
    idempotency_key: str = ""
    tag: str | int | None = None
    index: int | None = None
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    error: AiopplxError | None = None
    response: Readable | None = None
    raw: bytes = b""
    polls: int = 0
    attempts: int = 0

    @property
    def ok(self) -> bool:
        """True if there is a result to read."""
        return self.status is JobStatus.COMPLETED and self.error is None and self.response is not None

    @property
    def done(self) -> bool:
        """True if this job will not change by itself."""
        return self.status.is_final

    @property
    def token(self) -> str:
        """One line of text, without any secret, with which `session.wait` and `get` find this job anywhere."""
        return token_of(self.id, self.api, self.idempotency_key)

    def _answer(self) -> Answer:
        # A new one each time, since the caller may change its lists.
        return self.response.answer() if self.response is not None else Answer()

    @property
    def text(self) -> str:
        """The answer in Markdown, without the `<think>` part; `""` if there is none."""
        return self._answer().text

    @property
    def reasoning(self) -> str | None:
        """The model's `<think>` part, if the server sent one; None otherwise. It is never dropped silently."""
        return self._answer().reasoning

    @property
    def sources(self) -> list[Source]:
        """The pages that the answer cites; `[n]` in `text` is `sources[n - 1]`."""
        return self._answer().sources

    @property
    def citations(self) -> list[str]:
        """The URLs of the sources, in the same order."""
        return self._answer().citations

    @property
    def cited(self) -> dict[str, Source]:
        """The marks in `text` (`[3]`, `[web:11]`), each with its source, in the order in which they first appear."""
        answer = self._answer()
        return cited(answer.text, answer.sources)

    @property
    def usage(self) -> Usage | None:
        """Tokens, searches and dollars; None if the server did not say."""
        return self._answer().usage

    @property
    def cost(self) -> float | None:
        """US dollars, as the server billed them; None if it did not say."""
        usage = self._answer().usage
        return usage.cost if usage is not None else None

    @property
    def finish_reason(self) -> str | None:
        """The server's word for why the text ends: `stop`, or `length` if it was cut off."""
        return self._answer().finish_reason

    def result(self) -> Job:
        """This job, if it is `ok`; otherwise raises its error.

        Raises:
            AiopplxError: `error`, or a `JobError` if the job is still running.
        """
        if self.error is not None:
            raise self.error.about(job_id=self.id, idempotency_key=self.idempotency_key, tag=self.tag)
        if not self.ok:
            raise JobError(
                f"no result here: the server says {self.server_status or self.status}. session.wait(job) gets it",
                job_id=self.id,
                idempotency_key=self.idempotency_key,
                tag=self.tag,
            )
        return self

    def parse(self, type: type[T]) -> T:
        """The answer's JSON decoded as `type`: a msgspec Struct, a dataclass, a TypedDict, or a pydantic model.

        For jobs submitted with a `response_format` of `json_schema`. A Markdown fence or words before the JSON are
        skipped, since reasoning models write them.

        Raises:
            AiopplxError: as `result()`, if there is no result.
            ProtocolError: the text is not JSON of that shape; `body` has its beginning, and the job has all of it.
        """
        text = _json_part(self.result().text)
        problem: Exception
        try:
            validate = getattr(type, "model_validate_json", None)
            if validate is not None:
                return cast("T", validate(text))
            return msgspec.json.decode(text, type=type)
        except (ValueError, RecursionError) as error:
            problem = error
        name = getattr(type, "__name__", str(type))
        raise ProtocolError(
            f"the answer is not a {name}: {str(problem)[:300]}",
            job_id=self.id,
            idempotency_key=self.idempotency_key,
            tag=self.tag,
            body=text[:4096],
        )

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON-ready values, without `raw` and `response`: a row of the output of `aiopplx run`."""
        answer = self._answer()
        error = self.error
        return {
            "id": self.id,
            "ok": self.ok,
            "status": self.status.value,
            "tag": self.tag,
            "index": self.index,
            "api": self.api,
            "model": self.model,
            "text": answer.text,
            "reasoning": answer.reasoning,
            "sources": [
                {key: value for key, value in msgspec.structs.asdict(source).items() if value is not None}
                for source in answer.sources
            ],
            "citations": answer.citations,
            "usage": msgspec.structs.asdict(answer.usage) if answer.usage else None,
            "cost": answer.usage.cost if answer.usage else None,
            "finish_reason": answer.finish_reason,
            "error": None if error is None else {"type": error.__class__.__name__, "message": str(error)},
            "idempotency_key": self.idempotency_key,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "completed_at": self.completed_at,
            "failed_at": self.failed_at,
        }

    def __repr__(self) -> str:
        # Deliberately short: the text alone may have 90,000 characters, and its repr costs a millisecond.
        facts = [f"id={self.id!r}", f"status={self.status.value}"]
        if self.tag is not None:
            facts.append(f"tag={self.tag!r}")
        if self.error is not None:
            facts.append(f"error={self.error.__class__.__name__}")
        if self.ok:
            facts.append(f"text={len(self.text)} characters")
        if (cost := self.cost) is not None:
            facts.append(f"cost=${cost:.4f}")
        return f"Job({', '.join(facts)})"


# --- made from a snapshot ---------------------------------------------------------------------------------------------


def outcome_error(snapshot: Snapshot) -> AiopplxError | None:
    """The error of a job that the server calls finished; None if it has a result, or is still running."""
    match snapshot.status:
        case JobStatus.COMPLETED:
            if not snapshot.is_empty:
                return None
            return ResultMissing("the server says COMPLETED but gives no answer; the job was charged")
        case JobStatus.FAILED | JobStatus.CANCELLED | JobStatus.INCOMPLETE:
            return JobFailed(plain(snapshot.error_message or "") or f"{snapshot.server_status}, no reason given")
        case _:
            return None


def make_job(
    job_id: str,
    status: JobStatus,
    error: AiopplxError | None,
    snapshot: Snapshot | None,
    *,
    api: str = "",
    key: str = "",
    tag: str | int | None = None,
    index: int | None = None,
    attempts: int = 0,
    polls: int = 0,
) -> Job:
    """The value that users get, from a snapshot (if there is one) and what is known of the submission."""
    if error is not None:
        error = error.about(job_id=job_id, idempotency_key=key, tag=tag, attempts=attempts)
    if snapshot is None:
        snapshot = Snapshot(id=job_id, status=status, server_status="")
    return Job(
        id=job_id,
        status=status,
        server_status=snapshot.server_status,
        api=api,
        model=snapshot.model,
        idempotency_key=key,
        tag=tag,
        index=index,
        created_at=snapshot.created_at,
        started_at=snapshot.started_at,
        completed_at=snapshot.completed_at,
        failed_at=snapshot.failed_at,
        error=error,
        # Without an error it has not ended: the next poll may bring the answer, and a response would make it `ok`.
        response=None if snapshot.is_empty and error is None else snapshot.response,
        raw=snapshot.raw,
        polls=polls,
        attempts=attempts,
    )


_MARK = re.compile(r"\[(?:web:)?\d+\]")


def _json_part(text: str) -> str:
    """The text from the first brace or bracket to the last, without a Markdown fence or a preamble.

    Citation marks such as `[1]` are skipped first: models also cite in the words around the JSON.
    """
    stripped = text.strip()
    for shape in (_MARK.sub(lambda mark: " " * len(mark[0]), stripped), stripped):
        starts = [at for at in (shape.find("{"), shape.find("[")) if at >= 0]
        end = max(shape.rfind("}"), shape.rfind("]"))
        if starts and end > min(starts):
            return stripped[min(starts) : end + 1]
    return stripped


_START = "aiopplx/1/"


class Named(NamedTuple):
    """The parts of a token, or of a bare id; `""` where they are missing."""

    job_id: str
    api: str = ""
    idempotency_key: str = ""


def token_of(job_id: str, api: str, idempotency_key: str) -> str:
    """`aiopplx/1/<api>/<job id>/<idempotency key>`: the key comes last, since only it may contain a slash."""
    return f"{_START}{api}/{job_id}/{idempotency_key}"


def named_by(text: str) -> Named:
    """Parse a token or a bare id.

    Raises:
        InvalidRequest: it is a token of another version, or was cut off.
    """
    if not text.startswith("aiopplx/"):
        return Named(text)
    parts = text.removeprefix(_START).split("/", 2)
    if not text.startswith(_START) or len(parts) != 3:
        raise InvalidRequest("is not a token that this version can read: aiopplx/1/<api>/<id>/<key>", field="id")
    return Named(parts[1], parts[0], parts[2])
