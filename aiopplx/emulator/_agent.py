"""The Agent API's background runs as the emulator serves them: create, retrieve and cancel, under both base paths.

Requests and answers are plain values here. This module knows nothing of keys, rates, clocks, faults or sockets.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec

from aiopplx.emulator._agent_bodies import Cancelling, Runs
from aiopplx.emulator._agent_calls import brings_results, pending
from aiopplx.emulator._agent_files import Files
from aiopplx.emulator._agent_request import Asking, read, refuse_unknown
from aiopplx.emulator._clock import Clock
from aiopplx.emulator._corrupt import edited
from aiopplx.emulator._exchange import OUT_OF_CREDIT, Asked, Reply, as_json, error
from aiopplx.emulator._jobs import Jobs, New
from aiopplx.emulator._ledger import JobRecord
from aiopplx.emulator._strict import Refused

BASES = ("/v1/responses", "/v1/agent")
PREFIX = "resp_"
_CONTENT = re.compile(r"files/([^/]+)/content")
_ID = re.compile(PREFIX + r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ENDED = ("COMPLETED", "FAILED", "CANCELLED")
_PAGE = 20


class Agent:
    """The Agent API over the emulator's jobs. Accounts are separate: `answer` is given the account of the request."""

    name = "agent"
    always_sends_limits = True

    def __init__(self, *, jobs: Jobs, clock: Clock, runs: Runs, files: Files, unknown: Collection[str]) -> None:
        self._jobs = jobs
        self._clock = clock
        self._runs = runs
        self._files = files
        self._unknown = unknown
        self._stamps = 0

    # --- routes

    def route(self, method: str, path: str) -> tuple[str, str, str] | None:
        """(kind of request, base path, run id) if the path belongs to this API; the kind is "" for an unsupported
        method.
        """
        for base in BASES:
            if path == base:
                return "submit" if method == "POST" else "", base, ""
            if not path.startswith(base + "/"):
                continue
            id, _, action = path[len(base) + 1 :].partition("/")
            if id and not action:
                return "get" if method == "GET" else "", base, id
            if id and action == "cancel":
                return "cancel" if method == "POST" else "", base, id
            if id and action == "files":
                return "files" if method == "GET" else "", base, id
            if id and _CONTENT.fullmatch(action):
                return "content" if method == "GET" else "", base, id
        return None

    def bucket(self, on: str) -> str:
        """The rate limit that applies: one for all kinds of request."""
        return "agent"

    def refusal(self, asked: Asked) -> Reply | None:
        """None: this API is never retired."""
        return None

    def with_headers(self, reply: Reply) -> Reply:
        """The answer with its `x-request-id`: the run's id for a create, otherwise an id of its own."""
        self._stamps += 1
        own = uuid.UUID(bytes=blake2b(b"stamp/%d" % self._stamps, digest_size=16).digest(), version=4)
        reply.headers = {"x-request-id": str(own), **reply.headers}
        return reply

    def answer(self, asked: Asked, account: str) -> Reply:
        """The answer when no fault is active."""
        if asked.on == "submit":
            return self._create(asked, account)
        if not _ID.fullmatch(asked.job_id):
            return _refused(Refused("invalid response id"))
        if asked.on == "cancel":
            return self._cancel(asked.job_id, account)
        return self._get(asked, account) if asked.on == "get" else self._about_files(asked, account)

    # --- create

    def _create(self, asked: Asked, account: str) -> Reply:
        try:
            refuse_unknown(asked.body, self._unknown)
            asking = read(asked.body)
            self._check(asking, account)
        except Refused as refused:
            return _refused(refused)
        if self._jobs.out_of_credit:
            return error(401, "insufficient_quota", OUT_OF_CREDIT)
        job = self._jobs.make(self._new(asked, account, asking))
        if asking.background:
            return self._about(job, self._runs.queued(job), {"x-request-id": job.told_id.removeprefix(PREFIX)})
        return self._held(job)

    def _check(self, asking: Asking, account: str) -> None:
        """Checks that need more than the body."""
        if asking.stream:
            raise Refused("this emulator does not stream: leave `stream` out and poll the run")
        before = asking.previous_response_id
        if before is None:
            return
        # A hidden run can be continued with `previous_response_id`; one that has not completed cannot, unless it waits
        # for what this request brings.
        job = self._jobs.find(self.name, account, before)
        state = self._jobs.state(job) if job is not None else None
        if state != "COMPLETED" and not (state == "REQUIRES_ACTION" and brings_results(asking)):
            raise Refused("invalid request")

    def _new(self, asked: Asked, account: str, asking: Asking) -> New:
        digest = blake2b(asked.body, digest_size=16).digest()
        return New(
            account=account,
            api=self.name,
            model=asking.named_model or asking.bundle,  # without its version: no capture shows one
            # This API has no idempotency: each create starts another run.
            key="",
            body=asked.body,
            digest=digest,
            question=asking.question,
            cost=self._runs.cost(digest, asking),
            prefix=PREFIX,
            hidden=asking.store is False,
            waits=bool(pending(asking)),
        )

    def _held(self, job: JobRecord) -> Reply:
        """A run without `background`: the connection is held open until the run has ended, then answered."""
        ended = self._jobs.end(job)
        job.told_final += 1
        reply = self._about(job, self._runs.body(job, self._jobs.ending(job), 1.0, ended))
        reply.headers = {"x-request-id": job.id.removeprefix(PREFIX)}
        reply.delay = self._clock.real(max(0.0, ended - self._clock.now()))
        return reply

    def _about(self, job: JobRecord, body: bytes, headers: dict[str, str] | None = None) -> Reply:
        return Reply(200, body, job=job, headers=headers or {})

    # --- retrieve and cancel

    def _find(self, account: str, id: str) -> JobRecord | None:
        job = self._jobs.find(self.name, account, id.lower())
        return job if job is not None and not job.hidden else None

    def _get(self, asked: Asked, account: str) -> Reply:
        if asked.query.get("stream", "false").lower() not in ("", "0", "false"):
            return _refused(Refused("this emulator does not stream: leave `stream` out"))
        form = asked.query.get("format", "default")
        if form not in ("default", "short"):
            return _refused(Refused("validation failed: format must be default or short"))
        job = self._find(account, asked.job_id)
        if job is None:
            return error(404, "not_found", "resource not found")
        self._jobs.poll(job)
        return self._about(job, self._body(job, counts=True, is_short=form == "short"))

    def _body(self, job: JobRecord, *, counts: bool = False, is_short: bool = False) -> bytes:
        state = self._jobs.state(job)
        if counts and state in _ENDED:
            job.told_final += 1
        return self._runs.body(job, state, self._jobs.share(job), self._clock.now(), is_short=is_short)

    def _about_files(self, asked: Asked, account: str) -> Reply:
        """The list of a run's files, or the content of one: there are none before the run has completed."""
        job = self._find(account, asked.job_id)
        if job is None:
            return error(404, "not_found", "resource not found")
        is_there = self._jobs.state(job) == "COMPLETED"
        asking = read(job.body)
        if asked.on == "files":
            reply = self._files.listed(job, asking) if is_there else as_json(200, {"data": [], "object": "list"})
        else:
            id = asked.path.rsplit("/", 2)[1]
            reply = self._files.content(job, asking, id) if is_there else error(404, "not_found", "resource not found")
        reply.job = job
        return reply

    def _cancel(self, id: str, account: str) -> Reply:
        job = self._find(account, id)
        # The documents promise a 404 for an unknown id; the captured answer is this 400.
        if job is None or self._jobs.state(job) in _ENDED:
            return _refused(Refused("the run is already terminal and cannot be cancelled"))
        if self._jobs.cancel(job):
            self._jobs.settle(job, self._runs.spent(job, self._jobs.share(job)))
        return self._about(job, msgspec.json.encode(Cancelling(job.id)))

    # --- faults in this API's shapes

    def say_status(self, word: str, asked: Asked, reply: Reply) -> Reply | None:
        """The answer with another status word for runs that have not ended."""

        def edit(data: dict[str, Any]) -> dict[str, Any] | None:
            return {**data, "status": word} if data.get("status") in ("queued", "in_progress") else None

        return edited(reply, edit)

    def corrupt(self, how: str, asked: Asked, reply: Reply, account: str) -> Reply | None:
        """The answer corrupted in a way that only fits this API's shapes; None if it does not apply."""
        job = reply.job
        if how == "list":
            return msgspec.structs.replace(reply, body=self._list(account))
        if job is None:
            return None
        if how == "duplicate_id":
            return self._duplicated(job, reply)
        if how == "other_job":
            return msgspec.structs.replace(reply, body=self._other(job, reply, asked))
        return self._corrupted_end(how, job, reply)

    def _list(self, account: str) -> bytes:
        """A list in the style of this API, which has no list endpoint."""
        bodies = [self._body(job) for job in islice(self._jobs.newest_first(self.name, account), _PAGE)]
        return b'{"data":[%b],"has_more":false,"object":"list"}' % b",".join(bodies)

    def _other(self, job: JobRecord, reply: Reply, asked: Asked) -> bytes:
        other = self._jobs.another(job)
        if other is None:
            return reply.body.replace(job.id.encode(), PREFIX.encode() + b"00000000-0000-4000-8000-000000000001")
        return self._runs.queued(other) if asked.on == "submit" else self._body(other)

    def _duplicated(self, job: JobRecord, reply: Reply) -> Reply | None:
        other = self._jobs.another(job)
        if other is None or other.seq > job.seq:
            return None
        job.told_id = other.told_id
        return msgspec.structs.replace(reply, body=self._runs.queued(job))

    def _corrupted_end(self, how: str, job: JobRecord, reply: Reply) -> Reply | None:
        """Corruptions that apply to a completed run."""
        if self._jobs.state(job) != "COMPLETED":
            return None
        if how == "flip":
            body = self._runs.body(job, "IN_PROGRESS", 1.0, self._clock.now())
            return msgspec.structs.replace(reply, body=body) if job.told_final > 1 else None
        return edited(reply, _ENDS[how]) if how in _ENDS else None


def _refused(refused: Refused) -> Reply:
    body: dict[str, Any] = {"message": refused.message, "type": refused.type, "code": 400}
    if refused.param is not None:
        body["param"] = refused.param
    return as_json(400, {"error": body})


def _null_text(data: dict[str, Any]) -> dict[str, Any] | None:
    output: list[dict[str, Any]] = data["output"]
    if not output or output[-1]["type"] != "message":
        return None
    output[-1]["content"] = None
    return data


_ENDS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "null_response": lambda data: {**data, "output": None},
    "no_response": lambda data: {name: value for name, value in data.items() if name != "output"},
    "empty_choices": lambda data: {**data, "output": []},
    "null_content": _null_text,
}
