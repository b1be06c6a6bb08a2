"""A service that does nothing by itself: each answer is given, held back or withheld as the test says.

Callbacks on the test's own loop, no task and no thread, so that whatever else is left over is the client's.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import anyio

from aiopplx import Event, EventKind, PollPolicy, Session

PATH = "/async/chat/completions"
KEY = "a-test-key"
NEVER = float("inf")
Answer = tuple[int, Any]


@dataclass(eq=False)
class Row:
    """A job at the service. `polls` counts its GETs that were answered, `told` those that said COMPLETED."""

    id: str
    key: str
    question: str
    polls: int = 0
    told: int = 0


@dataclass(eq=False)
class Asked:
    """One request: `kind` is submit, get or list; `name` is the id in its path, as it was sent."""

    kind: str
    query: dict[str, str]
    row: Row | None
    connection: _Connection = field(repr=False)
    name: str = ""

    @property
    def question(self) -> str:
        return self.row.question if self.row else ""


class Scripted:
    """The async API on 127.0.0.1. Set its attributes at any time.

    Attributes:
        polls: at which GET a job is COMPLETED; a number, or a function of the job (`NEVER`: infinity).
        hold: requests that get no answer until `release`.
        script: an answer other than the true one; None leaves the true one.
        text: the answer of a finished job.
        headers: of every answer that `script` gives.
    """

    def __init__(self, *, polls: float | Callable[[Row], float] = 1) -> None:
        self.polls = polls
        self.hold: Callable[[Asked], bool] = lambda asked: False
        self.script: Callable[[Asked], Answer | None] = lambda asked: None
        self.headers: dict[str, str] = {}
        self.text: Callable[[Row], str] = lambda row: f"answer to {row.question}"
        self.rows: dict[str, Row] = {}
        self.by_key: dict[str, Row] = {}
        self.requests: Counter[str] = Counter()
        self.held: list[Asked] = []
        self.connections: set[_Connection] = set()
        self._next = 0
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        # asyncio loses a connection that was accepted in the turn in which its server is closed, socket and all.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await asyncio.sleep(0)  # what was accepted gets its transport,
        self._server.close()
        await asyncio.sleep(0)  # and is told of it
        for connection in list(self.connections):
            connection.abort()
        await self.until(lambda: not self.connections)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def told(self) -> int:
        """Jobs that have been told to be COMPLETED."""
        return sum(row.told > 0 for row in self.rows.values())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a state of this service; a test that would wait for ever fails instead."""
        with anyio.fail_after(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def changed(self) -> None:
        self._changed.set()

    def release(self, *asked: Asked) -> None:
        """Answers what was held: these, or all."""
        for one in asked or list(self.held):
            if one in self.held:
                self.held.remove(one)
                self._answer(one)

    def reset(self, *asked: Asked) -> None:
        """Ends the connections of what was held, without an answer."""
        for one in asked or list(self.held):
            self.held.remove(one)
            one.connection.abort()

    def forget(self) -> None:
        """No job was ever made; ids begin anew."""
        self.rows.clear()
        self.by_key.clear()
        self._next = 0

    # --- what connections call

    def asked(self, connection: _Connection, method: str, target: str, body: bytes) -> None:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        job_id = parts.path.removeprefix(PATH).strip("/")
        if method == "POST":
            asked = Asked("submit", query, self._made(json.loads(body)), connection)
        elif job_id:
            asked = Asked("get", query, self.rows.get(job_id), connection, job_id)
        else:
            asked = Asked("list", query, None, connection)
        self.requests[asked.kind] += 1
        if self.hold(asked):
            self.held.append(asked)
        else:
            self._answer(asked)
        self.changed()

    def lost(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        self.held = [asked for asked in self.held if asked.connection is not connection]
        self.changed()

    def _made(self, body: Any) -> Row:
        key = body["idempotency_key"]
        row = self.by_key.get(key)
        if row is None:
            question = body["request"]["messages"][-1]["content"]
            row = self.by_key[key] = Row(f"job-{self._next}", key, question)
            self._next += 1
            self.rows[row.id] = row
        return row

    def _answer(self, asked: Asked) -> None:
        scripted = self.script(asked)
        status, value = scripted or self._truth(asked)
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        asked.connection.answer(status, body, self.headers if scripted else {})

    def _truth(self, asked: Asked) -> Answer:
        row = asked.row
        if asked.kind == "list":
            return 200, {"requests": [self.summary(row) for row in self.rows.values()], "next_token": None}
        if row is None:
            return 404, {"error": {"message": "no such job", "type": "not_found", "code": 404}}
        if asked.kind == "submit":
            return 200, self.summary(row)
        row.polls += 1
        needed = self.polls(row) if callable(self.polls) else self.polls
        if row.polls < needed:
            return 200, self.summary(row, "IN_PROGRESS")
        row.told += 1
        return 200, self.summary(row, "COMPLETED") | {"completed_at": 2, "response": self._response(row)}

    @staticmethod
    def summary(row: Row, status: str = "CREATED") -> dict[str, Any]:
        return {"id": row.id, "model": "sonar-deep-research", "created_at": 1, "status": status}

    def _response(self, row: Row) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text(row)}
        return {
            "id": row.id,
            "model": "sonar-deep-research",
            "created": 1,
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }


def is_submit(asked: Asked) -> bool:
    return asked.kind == "submit"


def is_get(asked: Asked) -> bool:
    return asked.kind == "get"


class Told:
    """A handler for `on_event` that keeps the events, and says when one of a kind has come."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came: dict[EventKind, asyncio.Event] = {}

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._of(event.kind).set()

    def _of(self, kind: EventKind) -> asyncio.Event:
        return self._came.setdefault(kind, asyncio.Event())

    async def first(self, kind: EventKind) -> None:
        """Wait until an event of this kind has come."""
        await self._of(kind).wait()

    def of(self, kind: EventKind) -> list[Event]:
        """The events of this kind so far."""
        return [event for event in self.events if event.kind is kind]


def opened(server: Scripted, told: list[Event] | None = None, **options: Any) -> Session:
    """A session at the scripted service, which polls a hundred times a second; its events go to `told`."""
    on_event = told.append if told is not None else None
    return Session(KEY, base_url=server.url, **{"poll": PollPolicy.fixed(0.01), "on_event": on_event} | options)


async def turns(count: int = 50) -> None:
    """So many turns of the loop; by default all that can happen without time or the other side's answers."""
    for _ in range(count):
        await asyncio.sleep(0)


class Boom(Exception):
    """What a user's own code raises."""


class _Connection(asyncio.Protocol):
    def __init__(self, service: Scripted) -> None:
        self._service = service
        self._bytes = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.lost(self)

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        head, found, rest = self._bytes.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if len(rest) >= length:
            self._bytes = rest[length:]
            method, target, _ = lines[0].split(" ")
            self._service.asked(self, method, target, rest[:length])

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        assert self._transport is not None
        lines = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._transport.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
