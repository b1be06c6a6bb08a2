"""The job model that all APIs share: what a job is, its result, its cost.

Each API's own structs read themselves into an `Answer`; users see the same words for every API. This module knows
nothing of HTTP, of sessions or of any one API.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    cast,
    runtime_checkable,
)
from urllib.parse import quote, unquote

import msgspec

from aiopplx._checks.builtin import as_builtin
from aiopplx._checks.cells import as_cell
from aiopplx._errors import (
    ActionRequired,
    AiopplxError,
    InvalidRequest,
    JobError,
    JobFailed,
    ProtocolError,
    RequiredAction,
    ResultMissing,
)
from aiopplx._text.amounts import dollars, duration, many
from aiopplx._text.marks import cited, unresolved
from aiopplx._text.safe import plain, safe_filename

T = TypeVar("T")

Tag: TypeAlias = str | int | None
"""What a caller's tag may be."""

# Jobs, batches and requests are generic in the type of the tag. To a type checker `await session.ask(question, tag=7)`
# is a `Job[int]`, and a bare `Job` is a `Job[str | int | None]`. The type is covariant, so that a `Job[int]` fits where
# a bare `Job` is asked for; jobs and requests are frozen, so this is safe. The default (PEP 696) is for type checkers
# only: `typing` has it from Python 3.13 on, and nothing needs it at run time.
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    TagT = TypeVarWithDefault("TagT", bound=Tag, default=Tag, covariant=True)
else:
    TagT = TypeVar("TagT", bound=Tag, covariant=True)

GivenT = TypeVar("GivenT", bound=Tag)
"""The tag of one call."""

CLOCKS_DIFFER = 3.0
"""Seconds by which a job may seem to have ended after it was found ended: dates of the server are whole seconds."""
_UNSEEN = 60.0
"""Seconds after its end, by the server's dates, from which on nobody was there to see it: no poll comes so late."""


class JobStatus(enum.StrEnum):
    """Where a job stands. The first group are the server's words; the second are ours, for what no server can say.

    Attributes:
        is_final: it will not change without an action of the user.
    """

    is_final: bool

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


# Asked five times for each job, so it is worked out once.
for _status in JobStatus:
    _status.is_final = _status not in (JobStatus.CREATED, JobStatus.IN_PROGRESS)


class Source(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A page that the answer cites; the n-th source is the one that `[n]` in the text refers to (counted from 1).

    Every field but `url` may be missing: the server omits what it does not know. `title` and `snippet` are text, `date`
    and `last_updated` days as it writes them (`2026-11-27`). `source` is its word for where a page is from (`web`,
    `attachment`), `id` its name for the page within this answer, and `place_metadata` whatever else it says of a place.
    `kind` is its word for what named the page in the answer, if that was not a search: `fetch_url_results`,
    `url_citation`, ...
    """

    url: str = ""
    title: str | None = None
    date: str | None = None
    last_updated: str | None = None
    snippet: str | None = None
    source: str | None = None
    id: int | str | None = None
    place_metadata: Any = None
    kind: str | None = None


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a job consumed, in the same words for all APIs; None where the server does not say.

    Attributes:
        input_tokens, output_tokens, total_tokens: counts, as billed; the total as the server sums it.
        reasoning_tokens, citation_tokens: counts of what it thought, and of the sources that it read.
        search_queries: how many searches it made.
        cost: US dollars for all of it.
    """

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
    queries: list[str] = []


@runtime_checkable
class Readable(Protocol):
    """An API's own response struct, as the job model sees it."""

    def answer(self) -> Answer:
        """The same facts in the words of the job model; cheap enough to call at every poll."""
        ...

    def consumed(self) -> Usage | None:
        """The `usage` of `answer` by itself: what a job cost is asked for without its text."""
        ...

    def is_on_the_way(self) -> bool:
        """Whether it has a text, and all of it is only said on the way to an answer."""
        ...


class Snapshot(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One job as one poll found it, decoded by its API.

    `status` is one of the server's group of `JobStatus`. A word that the API does not know (`is_unknown`) means what
    the rest of the answer says, or else `IN_PROGRESS`; it is kept in `server_status`. `response` is None until the
    server sends one. `is_empty` is True if the server says COMPLETED without an answer: `response`, if there is one,
    then still shows what was billed. `error_message` has whatever the server said about the job besides its status.
    `actions` is what it waits for, if only its caller can give that; None if it waits for nothing.
    """

    id: str
    status: JobStatus
    server_status: str
    is_unknown: bool = False
    model: str = ""
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    error_message: str | None = None
    response: Readable | None = None
    is_empty: bool = False
    actions: tuple[RequiredAction, ...] | None = None
    raw: bytes = b""

    @property
    def may_have_more(self) -> bool:
        """Whether a later poll may tell more: the server gives no answer, or names no action, and does not say why."""
        return self.actions == () or (self.is_empty and not self.error_message)

    @property
    def lasted(self) -> float | None:
        """Seconds from its acceptance to its end by the server's dates, which need not be its own (`API.has_dates`)."""
        ended = self.completed_at if self.completed_at is not None else self.failed_at
        return float(ended - self.created_at) if ended is not None and self.created_at is not None else None


def took(measured: float, snapshot: Snapshot | None, *, has_dates: bool) -> float:
    """Seconds from the acceptance of a job to its end, of which some other session may have seen only a part.

    Args:
        measured: seconds from its acceptance to when its end was learned here.
        snapshot: what the server said at the end, if it could be read.
        has_dates: the server's dates are the job's own.
    """
    lasted = snapshot.lasted if snapshot is not None and has_dates else None
    if lasted is None or lasted < 0.0 or lasted - CLOCKS_DIFFER <= measured <= lasted + _UNSEEN:
        return measured
    return lasted


class Page(msgspec.Struct, frozen=True):
    """One page of the server's list of jobs. `skipped` counts unreadable rows; `next_token` is "" at the end."""

    jobs: list[Snapshot]
    next_token: str = ""
    skipped: int = 0


class JobFile(msgspec.Struct, frozen=True, gc=False):
    """A file that a job wrote and shared, as `session.files` lists it and `session.download` takes it.

    Attributes:
        id: the server's id of the file.
        filename: its name, as the server sent it: not for a path.
        size: bytes, None if the server does not say.
        created_at: seconds since 1970, None if the server does not say.
    """

    id: str
    filename: str = ""
    size: int | None = None
    created_at: int | None = None

    @property
    def name(self) -> str:
        """The name made safe: one part of a path, that any file system takes (`safe_filename`)."""
        return safe_filename(self.filename or self.id)


class Job(msgspec.Struct, Generic[TagT], frozen=True, kw_only=True, repr_omit_defaults=True):
    """A submission and its outcome: a plain value, safe to keep, compare and pickle.

    Attributes:
        id: the server's id, `""` if the server never gave one (REJECTED, IN_DOUBT, STOPPED).
        status: where it stands; `ok` answers whether there is a result.
        server_status: the server's own word at the last poll, unchanged.
        server_message: whatever else it said about the job, such as why it failed; `""` if it said nothing.
        api: which API made the job (`"sonar"`, `"agent"`).
        model: the model that the server reports.
        idempotency_key: the key it was submitted under; `""` for a job this session did not submit.
        tag: the caller's tag for the submission, unchanged.
        index: position in the source of its batch, from 0; None outside a batch.
        question: what was asked: the last words of the user. `""` if this session and its journal do not know it.
        meta: the caller's own columns, as they were given with the request, in values that JSON has.
        seconds: from the acceptance to the result, by the clock of this machine. Of a job that ended while no session
            was there to see it: as long as it took by the server's dates, and until it was collected if these are not
            its own (Agent API). None if nobody knows when it was accepted, and of a job that EXPIRED.
        created_at, started_at, completed_at, failed_at: the server's clock, seconds since 1970. For people to read.
        error: why there is no result; None if `ok`, and while the job runs.
        response: the API's own struct, with everything the server sent; None if it sent none. Even without an answer
            it has `usage` and `cost`.
        raw: the bytes of the last answer as received (decompressed).
        polls: how many times the job was polled.
        attempts: how many times the submission was sent.
        eta: while it runs, the moment by which half of such jobs have ended that have run for as long, in seconds since
            1970 by this machine's clock: a moment, since a job is kept and seconds from now would be wrong soon. None
            of a job that ended, is stalled, or whose age nobody knows. `Session.eta` foretells all that run.
    """

    id: str = ""
    status: JobStatus
    server_status: str = ""
    server_message: str = ""
    api: str = ""
    model: str = ""
    idempotency_key: str = ""
    tag: TagT = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - without one, `TagT` is None
    index: int | None = None
    question: str = ""
    meta: dict[str, Any] = {}
    seconds: float | None = None
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    error: AiopplxError | None = None
    response: Readable | None = None
    raw: bytes = b""
    polls: int = 0
    attempts: int = 0
    eta: float | None = None

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
        """The model's reasoning, from a field of its own or from the beginning of the text (`<think>` and its like).

        None if the server sent none. A part that is never closed stays in `text`, since the answer may be in it.
        """
        return self._answer().reasoning

    @property
    def sources(self) -> list[Source]:
        """The pages that the answer rests on, each once, in the server's order; `cited` resolves the marks."""
        return self._answer().sources

    @property
    def citations(self) -> list[str]:
        """The URLs of the sources, in the same order."""
        return self._answer().citations

    @property
    def queries(self) -> list[str]:
        """What the job has searched the web for, in order, where the API tells (the Agent API, while it runs too)."""
        return self._answer().queries

    @property
    def cited(self) -> dict[str, Source]:
        """The marks in `text` (`[3]`, `[web:11]`), each with its source, in the order in which they first appear.

        A mark of several numbers is there once for each: `[web:9,14]` as `[web:9]` and `[web:14]`, `[5-7]` as `[5]`,
        `[6]` and `[7]`. Marks in code are not marks.
        """
        answer = self._answer()
        return cited(answer.text, answer.sources)

    @property
    def unresolved(self) -> int:
        """How many different marks in `text` name no source, so that they are not in `cited`."""
        answer = self._answer()
        return len(unresolved(answer.text, answer.sources))

    @property
    def usage(self) -> Usage | None:
        """Tokens, searches and dollars; None if the server did not say."""
        return self.response.consumed() if self.response is not None else None

    @property
    def cost(self) -> float | None:
        """US dollars, as the server billed them; None if it did not say."""
        usage = self.usage
        return usage.cost if usage is not None else None

    @property
    def finish_reason(self) -> str | None:
        """The server's word for why the text ends: `stop`, or `length` if it was cut off."""
        return self._answer().finish_reason

    def result(self) -> Self:
        """This job, if it is `ok`; otherwise raises its error.

        Raises:
            AiopplxError: `error`, or a `JobError` if the job is still running.
        """
        if self.error is not None:
            raise self.error.about(job_id=self.id, idempotency_key=self.idempotency_key, tag=self.tag)
        if not self.ok:
            raise JobError(
                f"no result here: the server says {self.server_status or self.status}",
                remedy="session.wait(job) gets it",
                job_id=self.id,
                idempotency_key=self.idempotency_key,
                tag=self.tag,
            )
        return self

    def parse(self, type: type[T]) -> T:
        """The answer's JSON decoded as `type`: a msgspec Struct, a dataclass, a TypedDict, or a pydantic model.

        For jobs submitted with a `response_format` of `json_schema`. Models also write words, citations and drafts
        round the JSON, so each place where JSON can begin is tried, those in Markdown fences first, until one decodes
        into the type.

        Raises:
            AiopplxError: as `result()`, if there is no result.
            ProtocolError: the text has no JSON of that shape; `body` has its beginning, and the job has all of it.
        """
        from aiopplx._text.structured import find_json  # only for those who ask for JSON

        text = self.result().text.strip()
        problem: Exception
        try:
            validate = getattr(type, "model_validate_json", None)
            decode: Callable[[str], T] = msgspec.json.Decoder(type).decode if validate is None else validate
            return find_json(text, decode)
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
            "question": self.question,
            "meta": self.meta,
            "seconds": self.seconds,
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

    def to_row(self, *, beside: Collection[str] = ()) -> dict[str, str | int | float | bool | None]:
        """The job as a flat row of a table: the caller's columns, then `tag`, `question`, `answer`, `status`, `cost`,
        `seconds` (to a hundredth), `sources` (addresses, one a line), `n_sources`, `model`, `finish_reason`,
        `reasoning`, `error`, `job_id`.

        A name that the caller's columns have already gets `research_` before it. Values that are not flat become JSON
        text, and what is missing (NaN, NaT, NA) None. `aiopplx.rows` gives many jobs the same columns.

        Args:
            beside: columns of other jobs in the same table, so that a name means the same in each row.
        """
        answer = self._answer()
        ours: dict[str, str | int | float | bool | None] = {
            "tag": self.tag,
            "question": self.question,
            "answer": answer.text,
            "status": self.status.value,
            "cost": answer.usage.cost if answer.usage is not None else None,
            # More digits are noise, and a cell shows them all.
            "seconds": round(self.seconds, 2) if self.seconds is not None else None,
            "sources": "\n".join(source.url for source in answer.sources),
            "n_sources": len(answer.sources),
            "model": self.model or answer.model,
            "finish_reason": answer.finish_reason,
            "reasoning": answer.reasoning,
            "error": self.error.message if self.error is not None else None,
            "job_id": self.id,
        }
        row = {name: _flat(value) for name, value in self.meta.items()}
        theirs = {*row, *beside}
        for name, value in ours.items():
            while name in theirs:
                name = f"research_{name}"
            row[name] = value
        return row

    # FastAPI, and whatever else uses pydantic, can return a job and describe it: as `to_dict` has it. Nothing of it is
    # imported before it asks.

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:  # Any: as pydantic types it
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(cls.to_dict)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        described = msgspec.json.schema(_JobAsDict)["$defs"]
        answer: dict[str, Any] = {**described["_JobAsDict"], "title": "Job", "description": "A job and its outcome."}
        return answer

    def _repr_html_(self) -> str:
        """What a notebook shows: the question, the answer with linked marks, its sources; sanitized."""
        # Only notebooks need it.
        from aiopplx.report._notebook import card

        answer = self._answer()
        status = "" if self.ok else self.status.value
        cost = answer.usage.cost if answer.usage is not None else None
        named = len({source.url for source in cited(answer.text, answer.sources).values()})
        lost = len(unresolved(answer.text, answer.sources))
        count = len(answer.sources)
        return card(
            name=self.id or self.idempotency_key,
            question=self.question,
            facts=[
                status,
                dollars(cost) if cost is not None else "",
                duration(self.seconds) if self.seconds is not None else "",
                f"{many(count, 'source')}, {named:,} cited" if count else "",
                f"{many(lost, 'citation')} without a source" if lost else "",
                self.model,
                str(self.tag) if self.tag is not None else "",
            ],
            error=self.error.message if self.error is not None else "",
            text=answer.text,
            sources=answer.sources,
            reasoning=answer.reasoning or "",
        )

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


class _JobAsDict(TypedDict):
    """What `Job.to_dict` gives, for those who have it described."""

    id: str
    ok: bool
    status: str
    tag: str | int | None
    index: int | None
    question: str
    meta: dict[str, Any]
    seconds: float | None
    api: str
    model: str
    text: str
    reasoning: str | None
    sources: list[dict[str, Any]]
    citations: list[str]
    usage: dict[str, Any] | None
    cost: float | None
    finish_reason: str | None
    error: dict[str, str] | None
    idempotency_key: str
    created_at: int | None
    started_at: int | None
    completed_at: int | None
    failed_at: int | None


def _flat(value: Any) -> str | int | float | bool | None:
    value = as_cell(value)
    if value is None or isinstance(value, str | int | float):
        return value
    return msgspec.json.encode(value).decode()


# --- made from a snapshot ---------------------------------------------------------------------------------------------


def outcome_error(snapshot: Snapshot) -> AiopplxError | None:
    """The error of a job that the server calls finished; None if it has a result, or is still running."""
    words = plain(snapshot.error_message) if snapshot.error_message else ""
    if snapshot.actions is not None:
        return _action_required(snapshot, snapshot.actions, words)
    match snapshot.status:
        case JobStatus.COMPLETED:
            if not snapshot.is_empty:
                return None
            said = f" ({words})" if words else ""
            return ResultMissing(f"the server says COMPLETED but gives no answer{said}; the job was charged")
        case JobStatus.FAILED | JobStatus.CANCELLED | JobStatus.INCOMPLETE:
            return JobFailed(words or f"{plain(snapshot.server_status, 80)}, no reason given")
        case _:
            return None


def _action_required(snapshot: Snapshot, actions: tuple[RequiredAction, ...], words: str) -> ActionRequired:
    usage = snapshot.response.consumed() if snapshot.response is not None else None
    billed = (
        f"billed so far: ${usage.cost:.4f}" if usage is not None and usage.cost is not None else "what it did is billed"
    )
    named = "; ".join(plain(str(action), 120) for action in actions[:5]) or "the server does not say for what"
    said = f" ({words})" if words else ""
    error = ActionRequired(
        f"it waits for its caller and does not go on by itself: {named}{said}; {billed}. Answer it in a new request"
        " that names this job as previous_response_id"
    )
    error.actions = actions
    return error


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
    question: str = "",
    meta: dict[str, Any] | None = None,
    seconds: float | None = None,
    attempts: int = 0,
    polls: int = 0,
    eta: float | None = None,
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
        server_message=snapshot.error_message or "",
        api=api,
        model=snapshot.model,
        idempotency_key=key,
        tag=tag,
        index=index,
        question=question,
        meta=meta if meta is not None else {},
        seconds=seconds,
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
        eta=eta,
    )


_START = "aiopplx/1/"


class Named(NamedTuple):
    """The parts of a token, or of a bare id; `""` where they are missing."""

    job_id: str
    api: str = ""
    idempotency_key: str = ""


def token_of(job_id: str, api: str, idempotency_key: str) -> str:
    """`aiopplx/1/<api>/<job id>/<idempotency key>`, the id percent-encoded, the key as it is."""
    return f"{_START}{api}/{quote(job_id, safe=':', errors='replace')}/{idempotency_key}"


def named_by(text: str) -> Named:
    """Parse a token or a bare id.

    Raises:
        InvalidRequest: it is no text, or a token of another version, or was cut off.
    """
    text = as_builtin(text)
    if not isinstance(cast("object", text), str):
        raise InvalidRequest(f"must be a job's id or token as text, not {type(text).__name__}", field="id")
    if not text.startswith("aiopplx/"):
        return Named(text)
    parts = text.removeprefix(_START).split("/", 2)
    if not text.startswith(_START) or len(parts) != 3:
        raise InvalidRequest("is not a token that this version can read: aiopplx/1/<api>/<id>/<key>", field="id")
    return Named(unquote(parts[1]), parts[0], parts[2])
