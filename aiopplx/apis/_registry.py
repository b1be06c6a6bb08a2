"""Which APIs there are, and which one a question goes to.

A further API is a folder with its value, its request class and its answers, and a line in `_REGISTRY`. Which API a
request can go to is asked of the APIs (`takes`), and which request a mapping means is asked of the request classes
(`is_meant_by`): no class of either is named in a condition here or anywhere above.

The one API that goes over to another is Sonar, under `api="auto"`: ordinary keys lost it on 2026-09-27, and the server
says so by refusing a submission, for which nothing is made or billed. From then on the session's questions go to the
successor. Jobs that the first API has are still polled there.

This module does no I/O, and knows nothing of sessions, of sending, or of journals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import cast

import msgspec

from aiopplx._checks.builtin import as_builtin, fields_as_builtins
from aiopplx._errors import InvalidRequest, ProtocolError
from aiopplx._job import JobStatus, Snapshot
from aiopplx._wire.api import API, quoted_id
from aiopplx._wire.call import Reply
from aiopplx._wire.decoding import is_usable
from aiopplx._wire.forms import answers_in, jobs_in
from aiopplx._wire.kinds import NOTHING, Kind, Published
from aiopplx._wire.naming import is_named
from aiopplx._wire.request import Request, ResearchRequest
from aiopplx._wire.status import ends_of, says_completed, says_running, status_of
from aiopplx.agent._api import AGENT, AGENT_ALIAS
from aiopplx.sonar._api import SONAR, SONAR_V1

# A line for each API: its names for `api=`, the first of which is the name that a job and a journal keep.
_REGISTRY: tuple[Mapping[str, API], ...] = (
    {"sonar": SONAR, "sonar-v1": SONAR_V1},
    {"agent": AGENT, "agent-v1": AGENT_ALIAS},
)

APIS: Mapping[str, tuple[API, API | None]] = {
    "auto": (SONAR, AGENT),
    **{name: (api, None) for names in _REGISTRY for name, api in names.items()},
}
"""What `api=` may say: the API that submissions go to, and the one they go to once that is retired for the key."""

_KNOWN: tuple[API, ...] = tuple(next(iter(names.values())) for names in _REGISTRY)
_REQUEST_TYPES = tuple(api.request_type for api in _KNOWN)


def registered() -> Iterator[tuple[tuple[str, ...], API]]:
    """The names that `api=` may say for each API, and the API; the default one first."""
    for names, api in zip(_REGISTRY, _KNOWN, strict=True):
        yield tuple(names), api


def api_named(name: str) -> API:
    """The API of a name that a job or a journal has (`"sonar"`); the default one if there is no such name."""
    return next((api for api in _KNOWN if api.name == name), _KNOWN[0])


def read_job(api: API, reply: Reply, expected_id: str = "") -> Snapshot:
    """A 200 of an API as a snapshot; an answer in the form of another API, or of a gateway's own, is taken too.

    Raises:
        ProtocolError: it is not that job; `expected_id` "" accepts any.
    """
    try:
        snapshot = api.read_job(reply, expected_id)
    except ProtocolError:
        found = _unwrapped(api, reply, expected_id) or _recognised(reply.body, expected_id)
        if found is None:
            raise
        return found
    status, word = snapshot.status, snapshot.server_status
    is_told = snapshot.response is not None and not snapshot.is_empty if status.is_final else not snapshot.is_unknown
    if is_told or says_running(word):
        return snapshot
    found = _recognised(reply.body, expected_id, snapshot.id)
    if found is None or (found.is_empty and snapshot.error_message):
        return snapshot
    if not status.is_final and found.response is not None and found.response.is_on_the_way():
        return snapshot
    if status.is_final and status is not JobStatus.COMPLETED and not says_completed(word):
        # That it has written something does not undo its end.
        return msgspec.structs.replace(snapshot, response=snapshot.response or found.response)
    return msgspec.structs.replace(
        found,
        server_status=word or found.server_status,
        model=snapshot.model or found.model,
        **{name: moment for name in _MOMENTS if (moment := getattr(snapshot, name)) is not None},
    )


_MOMENTS = ("created_at", "started_at", "completed_at", "failed_at")


def _recognised(body: bytes, expected_id: str, job_id: str = "") -> Snapshot | None:
    """The finished job in a body that the API which was asked could not read, or found no answer in.

    Args:
        body: what the server answered.
        expected_id: the job that was asked for; `""` for the answer to a submission.
        job_id: the id of the job, if the API could read it.
    """
    first: Snapshot | None = None
    for value in answers_in(body):
        for api in _KNOWN:
            found = api.recognise(value, body)
            if found is None:
                continue
            named = job_id or (found.id if is_usable(found.id) else "")
            if expected_id and named != expected_id:
                return first  # another job's answer is never this one's
            found = msgspec.structs.replace(found, id=named)
            if not found.is_empty:
                return found
            first = first or found
    return first


def _unwrapped(api: API, reply: Reply, expected_id: str) -> Snapshot | None:
    """The job that was asked for in a wrapper of a gateway, or under another name of its id, whatever its status.

    It has a status, or says that it has ended: an answer alone is not the job. None if it is not there. Not for the
    answer to a submission: what has an id in a wrapper may be another thing than the job.
    """
    found = [value for value in jobs_in(reply.body) if status_of(value) or ends_of(value)] if expected_id else []
    named = (value for value in found if is_named(value, expected_id))
    for value in (*(value for value in found if value.get("id") == expected_id), *named):
        body = msgspec.json.encode({**value, "id": expected_id})
        with contextlib.suppress(ProtocolError):
            job = read_job(api, Reply(reply.status, reply.headers, body), expected_id)
            return msgspec.structs.replace(job, raw=reply.body)
    return None


def api_at(url: str) -> API | None:
    """The API whose requests the provider's batch files have under this address; None if none has it."""
    return next((api for api in _KNOWN if url in api.batch_urls), None)


def kind_of(api: str, body: bytes) -> Kind:
    """The kind of job that the stored bytes of a submission ask for, by the name of the API that they went to."""
    return api_named(api).kind_of(body)


def published_rates(kind: Kind) -> tuple[float, float] | None:
    """Submissions a minute that the lowest and the highest tier allow for jobs of a kind; None if that is not known."""
    rates = [tier.submit for api in _KNOWN if api.name == kind.api for tier in api.tiers]
    return (min(rates), max(rates)) if rates else None


def published(kind: Kind) -> Published:
    """What is published about the jobs of a kind: `NOTHING` for a kind that its API does not name."""
    return next((api.published.get(kind, NOTHING) for api in _KNOWN if api.name == kind.api), NOTHING)


def request_of(item: str | Mapping[str, object] | Request) -> Request:
    """A request from whatever a caller gives.

    A text is the question of a `ResearchRequest`. A mapping is read by the class in whose words it is: one with `input`
    by `AgentRequest`, any other by `ResearchRequest`.

    Raises:
        InvalidRequest: the item is none of these, or breaks a rule; it names the field, and has the mapping's tag.
    """
    if isinstance(item, str):
        return ResearchRequest(as_builtin(item))
    if isinstance(item, Request):
        return fields_as_builtins(item)
    if isinstance(cast("object", item), Mapping):
        for kind in _REQUEST_TYPES:
            if kind.is_meant_by(item):
                return kind.of(item)
    return ResearchRequest.of(item)


def request_fields() -> frozenset[str]:
    """The names of all fields that a request of any API has, apart from the caller's own columns."""
    return frozenset(name for kind in _REQUEST_TYPES for name in kind.__struct_fields__) - {"meta"}


def request_about(question: str, fields: Mapping[str, object]) -> Request:
    """A request for a plain question with further fields, of the first class that has all of these fields.

    Raises:
        InvalidRequest: no class has them all, or a value breaks a rule.
    """
    kind = next((kind for kind in _REQUEST_TYPES if fields.keys() <= set(kind.__struct_fields__)), _REQUEST_TYPES[0])
    return kind.of({**fields, kind.asks_by: question})


class Routing:
    """Which API the submissions of one session go to now, and where its jobs are.

    It goes over to another API once at most, by `go_over`. A submission is frozen for one API before it is sent, and
    may be frozen anew for the successor (`move`) where it was refused by the first API or not yet sent.

    Args:
        api: where submissions go first.
        successor: where they go once `api` is retired for this key; None if its retirement ends them.
        remembers: the session has a journal that can be read back, so a question that cannot be asked any more may
            have its answer there.

    Attributes:
        first: the API that submissions went to at the beginning.
        successor: the one they go to after that; None if there is none.
        api: the one they go to now.
        has_changed: the session has gone over, or a server was found to be an earlier release: what was frozen before
            may have to be frozen anew.
    """

    def __init__(self, api: API, successor: API | None = None, *, remembers: bool = False) -> None:
        self.first = api
        self.successor = successor
        self.api: API = api
        self._remembers = remembers
        self.has_changed: bool = False
        self._behind: frozenset[str] = frozenset()
        self._own: tuple[API, ...] = (api,) if successor is None else (api, successor)

    def freeze(self, request: Request, key: str) -> tuple[API, bytes]:
        """The API that a request goes to, and the exact bytes of its submission under `key`.

        A request that only the successor takes goes there from the beginning. Once the session has gone over, a request
        that the successor has no words for is frozen for the first API, if there is a journal: its answer may be there
        from before. If it is not, the submission is refused when it is sent.

        Raises:
            InvalidRequest: the request breaks a rule, or neither API takes it.
        """
        if self.successor is not None and not self.first.takes(request):
            return self._frozen(self.successor, request, key)
        try:
            return self._frozen(self.api, request, key)
        except InvalidRequest:
            if not self._remembers or self.api is self.first:
                raise
        return self._frozen(self.first, request, key)

    def _frozen(self, api: API, request: Request, key: str) -> tuple[API, bytes]:
        body = api.freeze(request, key)
        return api, (self.older(api, body) or body) if self.has_changed else body

    def mark_behind(self, api: API) -> None:
        """The server of this API has been found to be an earlier release: speak its words from now on."""
        self._behind |= {api.name}
        self.has_changed = True

    def older(self, api: API, body: bytes) -> bytes | None:
        """Frozen bytes in the words of an earlier release, if the server is one and they are not in them already."""
        return api.older(body) if api.name in self._behind else None

    def go_over(self) -> bool:
        """The first API is retired for this key: use the successor from now on. True if that is news.

        False if there is no successor, or the session has gone over already.
        """
        if self.successor is None or self.api is self.successor:
            return False
        self.api = self.successor
        self.has_changed = True
        return True

    def is_last(self, api: API) -> bool:
        """True if no API comes after this one: its retirement ends all submissions."""
        return self.successor is None or api is self.successor

    def is_only(self, name: str) -> bool:
        """True if submissions go to the API of this name, and no other comes after it: its retirement stops them all.

        The successor is not such an API: jobs of the first one can still be polled when both are retired.
        """
        return self.successor is None and name == self.first.name

    def must_move(self, api: API, request: Request | None) -> bool:
        """True if it was frozen for an API that has been found retired since, and its request is still at hand.

        Whether a job of it may exist at `api` already, in which case it must stay, is for the caller to know.
        """
        return self.api is self.successor and request is not None and not self.is_last(api)

    def move(self, request: Request, key: str) -> tuple[API, bytes]:
        """The same question for the successor, under the same key: where it was refused nothing was made or billed.

        Raises:
            InvalidRequest: the successor has no words for something in it.
        """
        assert self.successor is not None, "only what may move is moved"  # noqa: S101 - told to the type checker
        return self._frozen(self.successor, request, key)

    def api_of(self, job_id: str, name: str = "") -> API:
        """The API that has a job: by its name where that is known, else by what the id looks like.

        An API of this session's own comes first, under the path that the session uses. One that nothing is submitted to
        is found by name too, for jobs of earlier sessions. A name or an id that is no API's belongs to the first.

        Raises:
            InvalidRequest: that is not a job id.
        """
        quoted_id(job_id)
        if name:
            return self.named(name)
        # No API owns an id of an unknown form. It is the first API's then, also after the session went over: the form
        # of Sonar's ids is not documented and may change, that of the Agent API's ids is documented.
        return next((api for api in reversed(self._own) if api.owns(job_id)), self.first)

    def named(self, name: str) -> API:
        """The API of a name that a record has, one of this session's own first; the first if none has it."""
        return next((api for api in (*self._own, *_KNOWN) if api.name == name), self.first)
