"""A small server that plays the Sonar job API and breaks it, for the storm tests.

Written from the API's documents on bare asyncio streams. It knows nothing of aiopplx and shares no code with the
emulator: two fakes that agree with the client are better evidence than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

PATHS = ("/async/chat/completions", "/v1/async/sonar")

SUBMIT_FAULTS = (
    "drop_before",
    "reset_before",
    "accept_drop",
    "accept_reset",
    "accept_500",
    "accept_502_html",
    "accept_504_html",
    "status_500",
    "status_502_html",
    "status_503",
    "status_503_after",
    "status_429",
    "status_429_after",
    "status_409",
    "status_425",
    "truncated",
    "cut_body",
    "list",
    "no_id",
    "null_id",
    "html_200",
    "empty_200",
    "hang",
)
POLL_FAULTS = (
    "drop_before",
    "reset_before",
    "status_500",
    "status_502_html",
    "status_504_html",
    "status_503",
    "status_503_after",
    "status_429",
    "status_429_after",
    "status_408",
    "truncated",
    "cut_body",
    "list",
    "no_id",
    "null_id",
    "html_200",
    "empty_200",
    "hang",
    "other_id",
    "odd_status",
    "no_answer_yet",
)


@dataclass
class Task:
    """One job that was created, and so paid for."""

    id: str
    key: str
    question: str
    polls_needed: int
    created_at: int
    polls: int = 0
    delivered: int = 0


@dataclass
class Seen:
    """What the server saw. `posts` holds, for each key, every body that came under it."""

    posts: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    created: Counter[str] = field(default_factory=Counter[str])
    post_times: list[float] = field(default_factory=list[float])
    times: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    windows: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    polls: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    unauthorized: int = 0
    problems: list[str] = field(default_factory=list[str])

    @property
    def requests(self) -> int:
        return sum(len(bodies) for bodies in self.posts.values())


def answer_to(question: str) -> str:
    """The one right answer to a question."""
    return f"The answer to <{question}> is {len(question)} [1]."


class JobServer:
    """The Sonar job API on 127.0.0.1, honouring idempotency keys, with a share of faults.

    Args:
        key: the only API key that is accepted.
        rate: the share of requests on every path that meet a fault, 0 to 1.
        seed: of the faults and of the jobs' durations.
        polls: at how many polls a job is done: a function from its question.
        speed: how much faster the client's clock runs: a `Retry-After` of 1 is 1 / speed real seconds of silence.
        honours_keys: False makes a job of every submission that is accepted.
    """

    def __init__(
        self,
        *,
        key: str = "storm-key-0123456789",
        rate: float = 0.0,
        seed: int = 0,
        polls: Callable[[str], int] = lambda question: 1 + zlib.crc32(question.encode()) % 3,
        speed: float = 1.0,
        honours_keys: bool = True,
        submit_faults: Sequence[str] = SUBMIT_FAULTS,
        poll_faults: Sequence[str] = POLL_FAULTS,
    ) -> None:
        self.key = key
        self.rate = rate
        self.down: str = ""
        self.seen = Seen()
        self.tasks: dict[str, Task] = {}
        self.port = 0
        self._dice = random.Random(seed)
        self._polls = polls
        self._speed = speed
        self._honours_keys = honours_keys
        self._by_key: dict[str, Task] = {}
        self._faults = {"POST": submit_faults, "GET": poll_faults}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._milestone = 0
        self._reached = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        # asyncio loses a connection that was accepted in the turn in which its server is closed, socket and all: first
        # none is accepted any more, and those that were get their transports.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await asyncio.sleep(0)
        self._server.close()
        await asyncio.sleep(0)  # what was just accepted gets its task
        while self._connections:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await asyncio.sleep(0)  # closed connections let go of their sockets
        await self._server.wait_closed()

    async def has_seen(self, submissions: int) -> None:
        """Wait until so many submissions have come."""
        self._milestone = submissions
        self._reached.clear()
        await self._reached.wait()

    # --- connections

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # Also where the task was cancelled before its first step, and so never came to its own end.
        task.add_done_callback(lambda _: writer.close())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        line, *rows = head.rstrip().split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.seen.times.append((time.monotonic(), method))
        return await self._respond(method, target, headers, body, writer)

    # --- one request

    async def _respond(
        self, method: str, target: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        if headers.get("authorization") != f"Bearer {self.key}":
            self.seen.unauthorized += 1
            return await _send(writer, 401, _error("invalid_api_key", 401))
        key = self._note(body) if method == "POST" else ""
        if self.down:
            return await self._play(self.down, method, target, body, key, writer)
        if self._dice.random() < self.rate:
            name = self._dice.choice(self._faults[method])
            self.seen.faults[name] += 1
            return await self._play(name, method, target, body, key, writer)
        return await _send(writer, *self._truth(method, target, body, key))

    def _note(self, body: bytes) -> str:
        self.seen.post_times.append(time.monotonic())
        if len(self.seen.post_times) >= self._milestone:
            self._reached.set()
        key = json.loads(body).get("idempotency_key") or ""
        self.seen.posts.setdefault(key, []).append(body)
        if not key:
            self.seen.problems.append("a submission without a key")
        return key

    def _truth(self, method: str, target: str, body: bytes, key: str) -> tuple[int, bytes]:
        path, _, _ = target.partition("?")
        if path in PATHS:
            return self._submit(body, key) if method == "POST" else (200, self._list())
        base, _, id = path.rpartition("/")
        if method == "GET" and base in PATHS:
            return self._get(id)
        self.seen.problems.append(f"{method} {target}")
        return 404, _error("not_found", 404)

    def _submit(self, body: bytes, key: str) -> tuple[int, bytes]:
        data = json.loads(body)
        request = data.get("request")
        if not isinstance(request, dict) or not request.get("model") or not request.get("messages"):
            return 422, json.dumps({"detail": [{"loc": ["body", "request"], "msg": "Field required"}]}).encode()
        known = self._by_key.get(key)
        if known is not None and self._honours_keys:
            if self.seen.posts[key][0] != body:
                self.seen.problems.append(f"key {key} came with another body")
                return 409, _error("idempotency_key_reused", 409)
            return 200, _created(known)
        question = request["messages"][-1]["content"]
        task = Task(str(uuid.uuid4()), key, question, self._polls(question), int(time.time()))
        self.tasks[task.id] = self._by_key[key] = task
        self.seen.created[key] += 1
        return 200, _created(task)

    def _get(self, id: str) -> tuple[int, bytes]:
        self.seen.polls += 1
        task = self.tasks.get(id)
        if task is None:
            self.seen.problems.append(f"a poll of an unknown job {id}")
            return 404, _error("not_found", 404)
        task.polls += 1
        if task.polls < task.polls_needed:
            return 200, _job(task, "IN_PROGRESS", started_at=task.created_at)
        task.delivered += 1
        return 200, _completed(task)

    def _list(self) -> bytes:
        rows = [
            {
                "id": task.id,
                "created_at": task.created_at,
                "started_at": None,
                "completed_at": None,
                "failed_at": None,
                "model": "sonar-deep-research",
                "status": "IN_PROGRESS",
            }
            for task in list(self.tasks.values())[:20]
        ]
        return json.dumps({"next_token": None, "requests": rows}).encode()

    # --- faults

    async def _play(
        self, name: str, method: str, target: str, body: bytes, key: str, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer with a fault; False if the connection is to end."""
        match name:
            case "drop_before":
                return False
            case "reset_before":
                return _reset(writer)
            case "status_429" | "status_503" | "status_500" | "status_408" | "status_409" | "status_425":
                status = int(name[-3:])
                return await _send(writer, status, _error("some_error", status))
            case "status_429_after" | "status_503_after":
                return await self._ask_for_silence(int(name[7:10]), writer)
            case "status_502_html" | "status_504_html":
                return await _send(writer, int(name[7:10]), _PAGE, content_type="text/html")
            case "html_200":
                return await _send(writer, 200, _PAGE, content_type="text/html")
            case "empty_200":
                return await _send(writer, 200, b"")
            case "hang":
                await asyncio.sleep(0.03)
                return False
            case _:
                return await self._spoil(name, self._truth(method, target, body, key), writer)

    async def _spoil(self, name: str, truth: tuple[int, bytes], writer: asyncio.StreamWriter) -> bool:
        """Obey first: the job exists and is paid for, whatever the client is told."""
        status, body = truth
        match name:
            case "accept_drop":
                return False
            case "accept_reset":
                return _reset(writer)
            case "accept_500":
                return await _send(writer, 500, _error("internal_error", 500))
            case "accept_502_html" | "accept_504_html":
                return await _send(writer, int(name[7:10]), _PAGE, content_type="text/html")
            case "truncated":
                return await _send(writer, status, body[: len(body) * 2 // 3])
            case "cut_body":
                await _send(writer, status, body, sent=len(body) // 2)
                return False
            case "list":
                return await _send(writer, 200, self._list())
            case _:
                return await _send(writer, status, _edited(name, body))

    async def _ask_for_silence(self, status: int, writer: asyncio.StreamWriter) -> bool:
        seconds = self._dice.choice((1, 2, 5))
        body = _error("request_rate_limit_exceeded", status)
        stays = await _send(writer, status, body, headers=f"Retry-After: {seconds}\r\n")
        now = time.monotonic()
        self.seen.windows.append((now, now + seconds / self._speed))
        return stays


_PAGE = b"<html><head><title>502 Bad gateway</title></head><body>openresty</body></html>"


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    *,
    content_type: str = "application/json",
    headers: str = "",
    sent: int | None = None,
) -> bool:
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    writer.write(head.encode() + body[:sent])
    await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: close sends RST
    writer.transport.abort()
    return False


def _error(type: str, status: int) -> bytes:
    return json.dumps({"error": {"message": f"Scripted {status}.", "type": type, "code": status}}).encode()


def _job(task: Task, status: str, **known: Any) -> bytes:
    fields: dict[str, Any] = {
        "id": task.id,
        "model": "sonar-deep-research",
        "created_at": task.created_at,
        "started_at": None,
        "completed_at": None,
        "response": None,
        "failed_at": None,
        "error_message": None,
        "status": status,
    }
    return json.dumps(fields | known).encode()


def _created(task: Task) -> bytes:
    return _job(task, "CREATED")


def _completed(task: Task) -> bytes:
    message = {"role": "assistant", "content": answer_to(task.question)}
    response = {
        "id": task.id,
        "model": "sonar-deep-research",
        "created": task.created_at,
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": message, "delta": {"role": "assistant", "content": ""}}
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 30,
            "total_tokens": 37,
            "citation_tokens": None,
            "cost": {"input_tokens_cost": 1.4e-05, "output_tokens_cost": 0.00024, "total_cost": 0.25},
        },
        "citations": ["https://example.org/"],
        "search_results": [{"title": "An example", "url": "https://example.org/", "date": None}],
    }
    return _job(task, "COMPLETED", started_at=task.created_at, completed_at=task.created_at + 60, response=response)


def _edited(name: str, body: bytes) -> bytes:
    data = json.loads(body)
    match name:
        case "no_id":
            data.pop("id", None)
        case "null_id":
            data["id"] = None
        case "other_id":
            data["id"] = str(uuid.uuid4())
        case "odd_status" if data.get("status") != "COMPLETED":
            data["status"] = "PENDING_REVIEW"
        case "no_answer_yet" if data.get("status") == "COMPLETED":
            data["response"] = None
        case _:
            pass
    return json.dumps(data).encode()
