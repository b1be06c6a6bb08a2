"""The Sonar job API as the emulator serves it: submit, get and list, under both base paths.

Requests and answers are plain values here. This module knows nothing of keys, rates, clocks, faults or sockets.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any, Literal, TypeAlias

import msgspec

from aiopplx.emulator._corrupt import edited
from aiopplx.emulator._exchange import OUT_OF_CREDIT, RETIRED, Asked, Reply, as_json, error, invalid, usual
from aiopplx.emulator._jobs import Jobs, New
from aiopplx.emulator._json_types import is_object
from aiopplx.emulator._ledger import JobRecord
from aiopplx.emulator._sonar_bodies import Answers, created, question_of, summary, unfinished
from aiopplx.emulator._validation import missing, refusal_of, row, rows_of

Idempotency: TypeAlias = Literal["replay", "ignore", "reject"]
Paging: TypeAlias = Literal["follow", "ignore", "repeat"]

BASES = ("/async/chat/completions", "/v1/async/sonar")


class Settings(msgspec.Struct, frozen=True):
    """The emulator's settings that concern this API."""

    idempotency: Idempotency
    key_ttl: float | None
    page_size: int
    paging: Paging


class _Envelope(msgspec.Struct):
    request: msgspec.Raw


class Sonar:
    """The Sonar API over the emulator's jobs. Accounts are separate: `answer` is given the account of the request."""

    name = "sonar"
    # No captured answer of this API has such headers.
    always_sends_limits = False

    def __init__(self, settings: Settings, *, jobs: Jobs, answers: Answers) -> None:
        self._settings = settings
        self._jobs = jobs
        self._answers = answers
        self.retired = ""
        self.readable = False

    # --- routes

    def route(self, method: str, path: str) -> tuple[str, str, str] | None:
        """(kind of request, base path, job id) if the path belongs to this API; the kind is "" for an unsupported
        method.
        """
        for base in BASES:
            # For a path that ends in a slash, without an id, the service returns the list; users were caught by it.
            if path in (base, base + "/"):
                return {"POST": "submit", "GET": "list"}.get(method, ""), base, ""
            id = path[len(base) + 1 :] if path.startswith(base + "/") else ""
            if id and "/" not in id:
                return "get" if method == "GET" else "", base, id
        return None

    def bucket(self, on: str) -> str:
        """Each kind of request has a rate limit of its own."""
        return on

    def refusal(self, asked: Asked) -> Reply | None:
        """The answer to requests once the family is retired; whether old jobs stay readable is not known."""
        if not self.retired or (self.readable and asked.on == "get"):
            return None
        return error(403, self.retired, RETIRED)

    def with_headers(self, reply: Reply) -> Reply:
        """The answer, unchanged."""
        return reply

    def answer(self, asked: Asked, account: str) -> Reply:
        """The answer when no fault is active."""
        if asked.on == "submit":
            return self._submit(asked, account)
        return self._get(asked.job_id, account) if asked.on == "get" else self._list(asked.query, account)

    # --- submit

    def _submit(self, asked: Asked, account: str) -> Reply:
        try:
            body: Any = msgspec.json.decode(asked.body)
            envelope = msgspec.json.decode(asked.body, type=_Envelope) if is_object(body) else None
        except msgspec.ValidationError:
            return invalid([missing(("body", "request"))])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return invalid([row(("body", 0), "JSON decode error", "json_invalid")])
        rows = rows_of(body)
        if rows or envelope is None or not is_object(body):
            return invalid(rows)
        refusal = refusal_of(body["request"])
        if refusal is not None:
            return error(400, refusal.type, refusal.message)
        digest = blake2b(bytes(envelope.request), digest_size=16).digest()
        before = self._under(account, body.get("idempotency_key") or "")
        return self._new(asked, account, body, digest) if before is None else self._again(before, digest)

    def _under(self, account: str, key: str) -> JobRecord | None:
        """The job that this idempotency key still refers to."""
        if not key or self._settings.idempotency == "ignore":
            return None
        job, lives = self._jobs.under(account, key), self._settings.key_ttl
        return job if job is not None and (lives is None or self._jobs.age(job) <= lives) else None

    def _again(self, job: JobRecord, digest: bytes) -> Reply:
        """The answer to a repeated key. What the service does is not documented; these are the possibilities."""
        if self._settings.idempotency == "reject":
            return self._about(
                job, error(409, "conflict", "A request with this idempotency key was already submitted.")
            )
        if job.digest != digest:
            message = "This idempotency key was already used with a different request."
            return self._about(job, error(409, "idempotency_key_reused", message))
        return Reply(200, created(job), job=job)

    def _new(self, asked: Asked, account: str, body: dict[str, Any], digest: bytes) -> Reply:
        if self._jobs.out_of_credit:
            return error(401, "insufficient_quota", OUT_OF_CREDIT)
        request: dict[str, Any] = body["request"]
        job = self._jobs.make(
            New(
                account=account,
                api=self.name,
                model=request["model"],
                key=body.get("idempotency_key") or "",
                body=asked.body,
                digest=digest,
                question=question_of(request),
                cost=self._answers.cost(digest, request),
            )
        )
        return Reply(200, created(job), job=job)

    def _about(self, job: JobRecord, reply: Reply) -> Reply:
        reply.job = job
        return reply

    # --- get and list

    def _get(self, id: str, account: str) -> Reply:
        job = self._jobs.find(self.name, account, id)
        if job is None:
            return usual(404)
        self._jobs.poll(job)
        return Reply(200, self._body(job, counts=True), job=job)

    def _body(self, job: JobRecord, *, counts: bool = False) -> bytes:
        state = self._jobs.state(job)
        if counts and state in ("COMPLETED", "FAILED"):
            job.told_final += 1
        return self._answers.finished(job) if state == "COMPLETED" else unfinished(job, state)

    def _list(self, query: dict[str, str], account: str) -> Reply:
        follows = self._settings.paging != "ignore"
        limit = query.get("limit", "") if follows else ""
        token = query.get("next_token", "") if follows else ""
        if limit and (not limit.isascii() or not limit.isdigit() or not int(limit[:9])):
            message = "Input should be a valid integer greater than 0"
            return invalid([row(("query", "limit"), message, "int_parsing")])
        before = _position(token)
        if token and before is None:
            return error(400, "invalid_request", "next_token is not one that this service gave.")
        size = int(limit[:9]) if limit else self._settings.page_size
        return self._page(self._jobs.newest_first(self.name, account, before), size, token)

    def _page(self, jobs: Iterator[JobRecord], size: int, token: str) -> Reply:
        found = list(islice(jobs, size + 1))
        shown = found[:size]
        following = _token(shown[-1].seq) if len(found) > size else None
        if self._settings.paging == "repeat":
            following = token or _token(shown[-1].seq if shown else 0)
        rows = [summary(job, self._jobs.state(job)) for job in shown]
        for job, entry in zip(shown, rows, strict=True):
            job.told_final += entry.status in ("COMPLETED", "FAILED")
        return as_json(200, {"next_token": following, "requests": rows})

    # --- faults in this API's shapes

    def say_status(self, word: str, asked: Asked, reply: Reply) -> Reply | None:
        """The answer with another status word for jobs that have not ended."""

        def edit(data: dict[str, Any]) -> dict[str, Any] | None:
            if asked.on != "list":
                return {**data, "status": word} if data.get("status") in ("CREATED", "IN_PROGRESS") else None
            rows: list[dict[str, Any]] = data["requests"]
            said = [
                {**entry, "status": word} if entry["completed_at"] is None and entry["failed_at"] is None else entry
                for entry in rows
            ]
            return {**data, "requests": said} if said != rows else None

        return edited(reply, edit)

    def corrupt(self, how: str, asked: Asked, reply: Reply, account: str) -> Reply | None:
        """The answer corrupted in a way that only fits this API's shapes; None if it does not apply."""
        job = reply.job
        if how == "bad_row":
            return edited(reply, _with_bad_row)
        if how == "list":
            return msgspec.structs.replace(reply, body=self._list({}, account).body)
        if job is None:
            return None
        if how == "duplicate_id":
            return self._duplicated(job, reply)
        if how == "other_job":
            return msgspec.structs.replace(reply, body=self._other(job, reply, asked))
        return self._corrupted_end(how, job, reply)

    def _other(self, job: JobRecord, reply: Reply, asked: Asked) -> bytes:
        other = self._jobs.another(job)
        if other is None:
            return reply.body.replace(job.id.encode(), b"00000000-0000-4000-8000-000000000001")
        return created(other) if asked.on == "submit" else self._body(other)

    def _duplicated(self, job: JobRecord, reply: Reply) -> Reply | None:
        other = self._jobs.another(job)
        if other is None or other.seq > job.seq:
            return None
        job.told_id = other.told_id
        return msgspec.structs.replace(reply, body=created(job))

    def _corrupted_end(self, how: str, job: JobRecord, reply: Reply) -> Reply | None:
        """Corruptions that apply to a COMPLETED job."""
        if self._jobs.state(job) != "COMPLETED":
            return None
        if how == "flip":
            body = unfinished(job, "IN_PROGRESS")
            return msgspec.structs.replace(reply, body=body) if job.told_final > 1 else None
        return edited(reply, _ENDS[how]) if how in _ENDS else None


def _token(seq: int) -> str:
    return base64.urlsafe_b64encode(b"seq=%d" % seq).decode()


def _position(token: str) -> int | None:
    try:
        text = base64.urlsafe_b64decode(token.encode()).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return int(text[4:]) if text.startswith("seq=") and text[4:].isdigit() else None


def _with_bad_row(data: dict[str, Any]) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = data.get("requests") or []
    return {**data, "requests": [{**rows[0], "id": None, "status": 7}, *rows[1:]]} if rows else None


def _null_content(data: dict[str, Any]) -> dict[str, Any]:
    choice = data["response"]["choices"][0]
    choice["message"]["content"] = None
    return data


_ENDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "null_response": lambda data: {**data, "response": None},
    "no_response": lambda data: {name: value for name, value in data.items() if name != "response"},
    "empty_choices": lambda data: {**data, "response": {**data["response"], "choices": []}},
    "null_content": _null_content,
}
