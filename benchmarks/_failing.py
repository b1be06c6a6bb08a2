"""A service that fails, for the benchmarks that count what is paid and lost: it shares nothing with the emulator.

A bare `asyncio.Protocol`. A POST makes a job, and a GET finds it finished a while later. A share of all requests fails,
each in one of many ways; of the POSTs that fail, half have made their job before. For each idempotency key it keeps the
jobs that were made under it: one, if it honours keys.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Self

import _bodies
from _server import length

OK, REFUSED = b"200 OK", b"429 Too Many Requests"
ERRORS = (b"500 Internal Server Error", b"502 Bad Gateway", b"503 Service Unavailable", b"504 Gateway Timeout")
PAGE = b"<html><body><h1>Something went wrong</h1></body></html>"


class Service:
    """The jobs, and what was asked for. It serves within `async with`; `url` is its address.

    Args:
        honours: a key that was seen before gets its first job again; else a new one.
        fails: the share of requests that fail.
        seconds: how long a job takes, on average.
        seed: of its moods.
    """

    def __init__(self, *, honours: bool, fails: float, seconds: float, seed: int = 0) -> None:
        self.honours = honours
        self.fails = fails
        self.seconds = seconds
        self.posts = self.gets = self.failed = 0
        self.by_key: dict[str, list[str]] = {}
        self.bodies: dict[str, bytes] = {}
        self.changed_bodies = 0
        self._ends: dict[str, float] = {}
        self._chance = random.Random(seed)
        self._done = _bodies.completed(600, two_byte=False)
        self._created = _bodies.pending("CREATED", started=False)
        self._running = _bodies.pending("IN_PROGRESS", started=True)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def made(self) -> int:
        return sum(map(len, self.by_key.values()))

    def answer(self, head: bytes, body: bytes) -> bytes | None:
        """The bytes to send; None to reset the connection. What ends in the middle is followed by the end."""
        fails = self._chance.random() < self.fails
        self.failed += fails
        if head.startswith(b"POST"):
            self.posts += 1
            if fails and self._chance.random() < 0.5:
                return self._failure(None)
            made = self._post(body)
        else:
            self.gets += 1
            made = self._get(head.split(b" ", 2)[1].rpartition(b"/")[2].decode())
        return self._failure(made) if fails else _whole(OK if made else b"404 Not Found", made or b'{"detail":"no"}')

    def _post(self, body: bytes) -> bytes:
        key = json.loads(body)["idempotency_key"]
        made = self.by_key.setdefault(key, [])
        self.changed_bodies += self.bodies.setdefault(key, body) != body
        if not made or not self.honours:
            made.append(f"2c387cce-a2a3-4fd6-8757-{self.made:012x}")
            self._ends[made[-1]] = asyncio.get_running_loop().time() + self._chance.uniform(0.5, 1.5) * self.seconds
        return b'{"id":"' + made[-1].encode() + b'",' + self._created

    def _get(self, job_id: str) -> bytes | None:
        ends = self._ends.get(job_id)
        if ends is None:
            return None
        is_over = asyncio.get_running_loop().time() >= ends
        return b'{"id":"' + job_id.encode() + b'",' + (self._done if is_over else self._running)

    def _failure(self, made: bytes | None) -> bytes | None:
        """`made`: the true answer, which does not arrive; None if there is none, because nothing was done."""
        mood = self._chance.randrange(40)
        if mood == 0 and made is None:
            return _whole(REFUSED, b'{"error":{"message":"slow down","type":"rate_limit"}}', b"Retry-After: 1\r\n")
        if mood < 14:
            return None
        if mood < 20 and made is not None:
            return _whole(OK, made)[: -self._chance.randrange(1, len(made))]
        if mood < 24 and made is not None:
            return _whole(OK, made[: len(made) // 2])
        if mood < 28:
            return _whole(OK, PAGE, b"Content-Type: text/html\r\n")
        return _whole(self._chance.choice(ERRORS), PAGE, b"Content-Type: text/html\r\n")


def _whole(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


class Connection(asyncio.Protocol):
    """One connection. One that was answered with less than was announced ends after it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head, start = self._held[:end], end + 4
            whole = start + length(head)
            if len(self._held) < whole:
                return
            body, self._held = self._held[start:whole], self._held[whole:]
            answer = self._service.answer(head, body)
            if answer is None:
                self._transport.abort()
                return
            self._transport.write(answer)
            head, _, sent = answer.partition(b"\r\n\r\n")
            if not sent or len(sent) < length(head):
                self._transport.close()
                return
