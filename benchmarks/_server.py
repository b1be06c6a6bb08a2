"""The other end of every benchmark: a loopback HTTP server in a process of its own, cheap enough never to decide.

A bare `asyncio.Protocol` that plays the job API far enough for any client: a POST makes a job, its n-th GET finds it
COMPLETED, with about thirteen response headers as behind a CDN. It counts what it was asked for, so that a benchmark
can prove that two peers made the same exchanges. It is not the emulator: it checks nothing and has no faults.

    python benchmarks/_server.py --size 50000 --gets 1

prints its port on the first line and serves until its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from urllib.parse import parse_qs, urlsplit

import _bodies

COUNTS = b"/_counts"
_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Date: Fri, 09 Oct 2026 19:07:20 GMT\r\n"
    b"Content-Type: application/json\r\n"
    b"Connection: keep-alive\r\n"
    b"Server: cloudflare\r\n"
    b"CF-RAY: 98bfb7a0c9d2e3f4-FRA\r\n"
    b"cf-cache-status: DYNAMIC\r\n"
    b"Cache-Control: private, no-store\r\n"
    b"Strict-Transport-Security: max-age=15552000; includeSubDomains; preload\r\n"
    b"Access-Control-Allow-Origin: *\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"X-Request-Id: 1fbf7849-2f7e-4946-ab3c-7cd0f2e6f3be\r\n"
    b'alt-svc: h3=":443"; ma=86400\r\n'
    b"Content-Length: "
)


class Ledger:
    """The jobs, and what was asked for."""

    def __init__(self, size: int, gets: int, *, two_byte: bool) -> None:
        self.gets_needed = gets
        self.posts = self.gets = self.lists = self.connections = self.finished = 0
        self.jobs: dict[bytes, int] = {}
        self._by_key: dict[str, bytes] = {}
        self._serial = itertools.count(1)
        self._created = _bodies.pending("CREATED", started=False)
        self._running = _bodies.pending("IN_PROGRESS", started=True)
        self._completed = _bodies.completed(size, two_byte=two_byte)

    def submit(self, body: bytes) -> bytes:
        self.posts += 1
        key = json.loads(body).get("idempotency_key")
        job_id = self._by_key.get(key) if key else None
        if job_id is None:
            job_id = b"2c387cce-a2a3-4fd6-8757-%012x" % next(self._serial)
            self.jobs[job_id] = 0
            if key:
                self._by_key[key] = job_id
        return self._record(job_id, self._created)

    def get(self, job_id: bytes) -> bytes | None:
        polls = self.jobs.get(job_id)
        if polls is None:
            return None
        self.gets += 1
        self.jobs[job_id] = polls = polls + 1
        if not self._is_done(polls):
            return self._record(job_id, self._running)
        self.finished += polls == self.gets_needed
        return self._record(job_id, self._completed)

    def page(self, query: str) -> bytes:
        self.lists += 1
        asked = parse_qs(query)
        start, limit = int(asked.get("next_token", ["0"])[0]), int(asked.get("limit", ["20"])[0])
        ids = list(itertools.islice(self.jobs, start, start + limit))
        rows = [_bodies.row(one.decode(), "COMPLETED" if self._is_done(self.jobs[one]) else "CREATED") for one in ids]
        more = start + limit < len(self.jobs)
        return json.dumps({"next_token": str(start + limit) if more else None, "requests": rows}).encode()

    def counts(self) -> bytes:
        names = ("posts", "gets", "lists", "connections", "finished")
        return json.dumps({"jobs": len(self.jobs), **{name: getattr(self, name) for name in names}}).encode()

    def _is_done(self, polls: int) -> bool:
        return 0 < self.gets_needed <= polls

    @staticmethod
    def _record(job_id: bytes, tail: bytes) -> bytes:
        return b'{"id":"' + job_id + b'",' + tail


class Connection(asyncio.Protocol):
    """One connection: answers whatever whole requests have come, pipelined ones too."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ledger.connections += 1

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head, start = self._held[:end], end + 4
            whole = start + length(head)
            if len(self._held) < whole:
                return
            body, self._held = self._held[start:whole], self._held[whole:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        answer = self._reply(head, body)
        if answer is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
        else:
            self._transport.write(b"%b%d\r\n\r\n%b" % (_HEAD, len(answer), answer))

    def _reply(self, head: bytes, body: bytes) -> bytes | None:
        method, target, _ = head.split(b" ", 2)
        if method == b"POST":
            return self._ledger.submit(body)
        if target == COUNTS:
            return self._ledger.counts()
        path, _, last = target.rpartition(b"/")
        if path.endswith((b"/completions", b"/sonar")):
            return self._ledger.get(last)
        return self._ledger.page(urlsplit(target.decode()).query)


def length(head: bytes) -> int:
    if head.startswith(b"GET"):
        return 0
    folded = head.lower()
    at = folded.find(b"\r\ncontent-length:")
    return int(folded[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def serve(ledger: Ledger) -> None:
    """Serve until standard input closes: an orphan ends with the process that started it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(ledger), "127.0.0.1", 0, backlog=4096)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description="The server of the benchmarks.")
    parser.add_argument("--size", type=int, default=50_000, help="bytes of a finished record")
    parser.add_argument("--gets", type=int, default=1, help="the n-th GET of a job finds it finished; 0: none does")
    parser.add_argument("--two-byte", action="store_true", help="text beyond Latin-1, as real answers have it")
    given = parser.parse_args()
    asyncio.run(serve(Ledger(given.size, given.gets, two_byte=given.two_byte)))


if __name__ == "__main__":
    main()
