"""An HTTP session without a network: shows what a client costs besides the request.

It has as much of `aiohttp.ClientSession` as a client of this API uses, so it can be passed to `Session(http=...)`. Its
own cost is measured apart, by `cost_us`, and taken off. This module knows nothing of the library.
"""

from __future__ import annotations

import array
import asyncio
import itertools
import time
from typing import Any

import _bodies
import yarl

_HEADERS = {"Content-Type": "application/json", "Server": "cloudflare", "CF-RAY": "98bfb7a0c9d2e3f4-FRA"}


class Answer:
    """A complete answer of 200."""

    __slots__ = ("_body", "content_length")

    status = 200
    headers = _HEADERS

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.content_length = len(body)

    async def read(self) -> bytes:
        return self._body

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass


class Stub:
    """Every POST makes a job, which no GET ever finds finished.

    Attributes:
        posts, gets: how many there were.
        awaited, came: at so many POSTs the event is set.
        gaps: seconds from the end of one GET of a job to the beginning of its next.
    """

    closed = False

    def __init__(self) -> None:
        self.posts = self.gets = 0
        self.awaited = 0
        self.came = asyncio.Event()
        self.gaps = array.array("d")
        self._ended: dict[str, float] = {}
        self._serial = itertools.count(1)
        self._created = _bodies.pending("CREATED", started=False)
        self._running = _bodies.pending("IN_PROGRESS", started=True)

    async def request(self, method: str, url: yarl.URL, **_: Any) -> Answer:
        begun = time.monotonic()
        # A real request gives way to the loop at least once.
        await asyncio.sleep(0)
        if method == "POST":
            self.posts += 1
            if self.posts == self.awaited:
                self.came.set()
            return Answer(b'{"id":"2c387cce-a2a3-4fd6-8757-%012x",%b' % (next(self._serial), self._created))
        job_id = url.name
        self.gets += 1
        before = self._ended.get(job_id)
        if before is not None:
            self.gaps.append(begun - before)
        self._ended[job_id] = time.monotonic()
        return Answer(b'{"id":"%b",%b' % (job_id.encode(), self._running))


async def cost_us(gets: int = 20_000) -> float:
    """CPU microseconds of one GET of the stub itself, by as many tasks as the library has polls out at once."""
    stub = Stub()
    url = yarl.URL("http://127.0.0.1/async/chat/completions/2c387cce-a2a3-4fd6-8757-b77602e7e87c", encoded=True)

    async def some() -> None:
        for _ in range(gets // 32):
            reply = await stub.request("GET", url)
            await reply.read()
            reply.release()

    before = time.process_time()
    await asyncio.gather(*(some() for _ in range(32)))
    return (time.process_time() - before) / stub.gets * 1e6
