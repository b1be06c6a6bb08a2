"""The protocol of an API: a value that turns requests into calls, and replies into snapshots.

A session asks what an API can do (`has_list`), never which one it is. This module knows nothing of any one API, nor of
when a call is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, cast
from urllib.parse import quote

from aiopplx._errors import InvalidRequest

if TYPE_CHECKING:
    from aiopplx._errors import APIError
    from aiopplx._job import JobFile, Page, Snapshot
    from aiopplx._wire.call import Call, Reply
    from aiopplx._wire.kinds import Kind, Published
    from aiopplx._wire.request import Request

# Nearly all ids. A plain one is never `.` or `..`.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
LONGEST_ID = 2048
"""Bytes of an id. A longer one makes a URL that servers and proxies refuse, and has no room in a database's index."""


class Tier(NamedTuple):
    """The published rate limits of a usage tier, in requests a minute; as many may leave at once after a pause.

    Attributes:
        submit: submissions; all requests together if `poll` is None.
        poll: polls, None if all requests share one limit.
        list: pages of a list, None if there are none.
    """

    submit: float
    poll: float | None
    list: float | None


class API(Protocol):
    """One job API as a value.

    Attributes:
        name: the name that users type and journals store (`"sonar"`).
        has_idempotency: a submission sent twice under one key makes one job.
        has_list: the server lists the account's jobs.
        has_cancel: a running job can be cancelled.
        has_dates: `created_at`, `completed_at` and `failed_at` are the job's, so that their difference is its duration,
            and not rewritten by each poll.
        echoes_model: the answer to an accepted submission names the model that was asked for.
        results_live: seconds for which the server keeps a job.
        request_type: the class of this API's own requests.
        published: what is known of costs and durations before any job was seen, by kind.
        tiers: the published rate limits of each usage tier, from tier 0.
        unknown_id: an id in this API's form that no job has.
        cheapest: the fields of the cheapest request.
        batch_urls: the addresses under which the provider's batch files have such requests, each with the field that
            asks in its body.
    """

    name: ClassVar[str]
    has_idempotency: ClassVar[bool]
    has_list: ClassVar[bool]
    has_cancel: ClassVar[bool]
    has_dates: ClassVar[bool]
    echoes_model: ClassVar[bool]
    results_live: ClassVar[float]
    request_type: ClassVar[type[Request]]
    published: ClassVar[Mapping[Kind, Published]]
    tiers: ClassVar[Sequence[Tier]]
    unknown_id: ClassVar[str]
    cheapest: ClassVar[Mapping[str, object]]
    batch_urls: ClassVar[Mapping[str, str]]

    def has_model(self, name: str) -> bool:
        """Whether a model of this name may be the provider's, as far as the name shows that."""
        ...

    def takes(self, request: Request) -> bool:
        """Whether this API accepts requests of that class; single fields may still have no counterpart."""
        ...

    def owns(self, job_id: str) -> bool:
        """Whether an id looks like one of this API's: a guess, for an id whose API is not known.

        An API says this of its own ids only. `Routing.api_of` decides between several.
        """
        ...

    def freeze(self, request: Request, idempotency_key: str) -> bytes:
        """The exact bytes of the submission; every attempt sends these.

        Raises:
            InvalidRequest: this API does not take the request, or the request breaks a rule.
        """
        ...

    def rekeyed(self, body: bytes, idempotency_key: str) -> bytes:
        """Frozen bytes of the same request under another key."""
        ...

    def is_behind(self, error: APIError) -> bool:
        """Whether a refusal says that the server is an earlier release, which does not know a word that was sent."""
        ...

    def older(self, body: bytes) -> bytes | None:
        """Frozen bytes of the same request in the words of an earlier release; None if it has the same words."""
        ...

    def kind_of(self, body: bytes) -> Kind:
        """The kind of job that frozen bytes ask for, also those that an earlier run has frozen.

        `Kind(name)` for bytes that say nothing of it, so that nothing is known of such a job.
        """
        ...

    def question_of(self, body: bytes) -> str:
        """The last words of the user in frozen bytes; `""` for bytes that have none."""
        ...

    def submit(self, body: bytes) -> Call: ...
    def get(self, job_id: str) -> Call: ...
    def list(self, *, limit: int | None, next_token: str) -> Call: ...
    def cancel(self, job_id: str) -> Call: ...
    def files(self, job_id: str) -> Call: ...
    def file(self, job_id: str, file_id: str) -> Call: ...

    def read_job(self, reply: Reply, expected_id: str = "") -> Snapshot:
        """A 200 as a snapshot. Raises `ProtocolError` if it is not that job; `expected_id` "" accepts any.

        Only `read_job` of the registry of APIs calls it, which takes answers in the form of another API too.
        """
        ...

    def recognise(self, value: dict[str, Any], raw: bytes) -> Snapshot | None:
        """The finished job in plain values that are certainly in this API's form; None if they are not, or it runs.

        Asked also of bodies that another API has sent: a paid answer counts, whatever form it came in.

        Args:
            value: the object that may be an answer.
            raw: the body that it stands in.
        """
        ...

    def read_cancel(self, reply: Reply) -> str:
        """The server's word in the 200 of a cancellation. Raises `ProtocolError` if it cannot be read."""
        ...

    def read_files(self, reply: Reply) -> Sequence[JobFile]:
        """A 200 of the list of files. Raises `ProtocolError` if it is not one; rows without an id are skipped."""
        ...

    def read_page(self, reply: Reply) -> Page:
        """A 200 of the list as a page. Raises `ProtocolError` if it is not one; bad rows are skipped and counted."""
        ...


def quoted_id(job_id: str) -> str:
    """A job id as part of a URL path. Whatever can be percent-encoded is an id: no document says what ids look like.

    Raises:
        InvalidRequest: the id is not text, longer than `LONGEST_ID`, or not encodable as UTF-8; it has a NUL character,
            which no database keeps; it is empty or blank; or one of `.` and `..`, which would change the path.
    """
    try:
        if _PLAIN_ID.fullmatch(job_id):
            return job_id
        if job_id.strip() not in ("", ".", "..") and "\0" not in job_id and len(job_id.encode()) <= LONGEST_ID:
            return quote(job_id, safe="")
    except (TypeError, AttributeError, UnicodeEncodeError):  # no text, or none that can be sent
        pass
    given = cast("object", job_id)
    shown = ascii(given)[:140] if isinstance(given, str) else f"what is given, a {type(given).__name__},"
    raise InvalidRequest(f"{shown} is not a job id", field="id")
