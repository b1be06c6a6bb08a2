"""Several workers: what each finds of the others' jobs, and a deploy under load. Real servers and a real client."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import anyio
import pytest
from _apps import KEY, browsers, ended, events, killed, listening, running, serves, spawned, url_of
from _postgres import Server

from aiopplx.emulator import Emulator, faults

pytestmark = pytest.mark.slow


async def pinned(url: str, stack: AsyncExitStack) -> list[aiohttp.ClientSession]:
    """A client of each of two workers: one connection that is kept, at the worker that accepted it."""
    found: dict[int, aiohttp.ClientSession] = {}
    with anyio.fail_after(60):
        while len(found) < 2:
            client = await stack.enter_async_context(
                aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=600))
            )
            async with client.get("/pid") as response:
                found.setdefault(await response.json(), client)
    return list(found.values())


async def asked(client: aiohttp.ClientSession, question: str) -> str:
    async with client.post("/research", json={"question": question}) as response:
        assert response.status == 202, await response.text()
        job_id: str = (await response.json())["id"]
        return job_id


async def test_two_workers_find_jobs_of_each_other_by_id() -> None:
    async with (
        Emulator(duration=2.0, answer_chars=200) as server,
        running("fastapi", server, workers=2) as app,
        AsyncExitStack() as stack,
    ):
        one, other = await pinned(app.url, stack)
        job_id = await asked(one, "Why did the Vasa sink?")
        *updates, (name, _, done) = [event async for event in events(other, job_id)]
        assert updates
        assert (name, done["ok"]) == ("done", True)
        async with one.get(f"/research/{job_id}/answer.json") as response:
            assert (await response.json())["text"] == done["text"]
        # The supervisor is told to stop while one of them follows: both end, and the id is in the log.
        left = await asked(one, "Who first measured the speed of light?")
        reading = events(other, left)
        assert (await anext(reading))[0] == "update"
        app.process.send_signal(signal.SIGTERM)
        assert "done" not in [event[0] async for event in reading]
        said = await ended(app.process, None)
    assert f"1 job goes on, and is billed, at the service: {left}" in said
    assert "Traceback" not in said
    assert KEY not in said
    assert server.ledger.created == 2


async def test_two_workers_share_one_journal_on_postgresql(postgres: Server) -> None:
    """One tag is one job over both; each has the updates and the answer of a job that the other holds."""
    async with (
        Emulator(duration=3.0, answer_chars=200) as server,
        running("fastapi", server, journal=postgres.url(), workers=2) as app,
        AsyncExitStack() as stack,
    ):
        both = await pinned(app.url, stack)

        async def order(client: aiohttp.ClientSession, tag: str) -> str:
            async with client.post("/research", json={"question": f"What is known of {tag}?", "tag": tag}) as response:
                assert response.status == 202, await response.text()
                job_id: str = (await response.json())["id"]
                return job_id

        tags = [f"order {number}" for number in range(8)]
        found = await asyncio.gather(*(order(client, tag) for tag in tags for client in both))
        assert found[::2] == found[1::2]
        assert server.ledger.created == len(set(found)) == 8
        for client in both:
            *_, (name, _, done) = [event async for event in events(client, found[0])]
            assert (name, done["ok"]) == ("done", True)


async def test_two_workers_with_one_file_do_not_come_up(tmp_path: Path) -> None:
    journal = str(tmp_path / "research.db")
    with listening() as sock:
        async with Emulator() as server:
            process = await spawned("fastapi", server, sock, journal=journal, workers=2, JOURNAL_WAIT="0")
            try:
                said = await ended(process, None)
            finally:
                await killed(process)
    assert re.search(r"JournalLocked: .*research\.db", said)
    assert KEY not in said


# --- a deploy --------------------------------------------------------------------------------------------------------

JOURNALS = {"a file for each worker": "research-{worker}.db", "one on PostgreSQL": ""}
"""By what the workers have: where worker n writes. Orders go to the worker of their number where files are apart, and
to both at once where they share one."""


class Service:
    """Two workers at two addresses, one of each framework, that are replaced one after the other."""

    def __init__(self, server: Emulator, journal: str, *, is_shared: bool = False) -> None:
        self._server = server
        self._journal = journal
        self.is_shared = is_shared
        self.sockets: list[socket.socket] = [listening(), listening()]
        self.clients = [browsers(url_of(sock)) for sock in self.sockets]
        self.processes: list[asyncio.subprocess.Process] = []
        self.said: list[str] = []

    async def spawn(self, worker: int) -> asyncio.subprocess.Process:
        journal = self._journal.format(worker=worker)
        framework, sock = ("fastapi", "aiohttp")[worker], self.sockets[worker]
        return await spawned(framework, self._server, sock, journal=journal, grace=1)

    async def start(self) -> None:
        self.processes = [await self.spawn(worker) for worker in (0, 1)]
        for process, client in zip(self.processes, self.clients, strict=True):
            await serves(process, client)

    async def replace(self, worker: int) -> None:
        """The new one is started first, and waits for the old one to let go."""
        old, self.processes[worker] = self.processes[worker], await self.spawn(worker)
        self.said.append(await ended(old))
        await serves(self.processes[worker], self.clients[worker])

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        for process in self.processes:
            await killed(process)
        for sock in self.sockets:
            sock.close()


class Customers:
    """Orders that come all the time. Whoever gets no answer orders again, under the same number."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.ids: dict[str, set[str]] = {}
        self.ends: dict[str, str] = {}
        self.again = 0

    async def order(self, number: int) -> None:
        tag = f"order {number}"
        worker = number % 2
        ask = {"question": f"What is known of {tag}?", "tag": tag}
        at = (0, 1) if self._service.is_shared else (worker,)
        bodies = await asyncio.gather(*(self._of(each, "POST", "/research", ask) for each in at))
        self.ids.setdefault(tag, set()).update(body["id"] for body in bodies)
        body = bodies[0]
        while True:  # at the other worker: an id is good everywhere
            job = await self._of(1 - worker, "GET", f"/research/{body['id']}/answer.json")
            if job["status"] != "TIMED_OUT":
                break
        self.ends[tag] = job["status"]

    async def _of(self, worker: int, method: str, path: str, json: object = None) -> dict[str, str]:
        while True:
            try:
                async with self._service.clients[worker].request(method, path, json=json) as response:
                    if response.status < 300:
                        body: dict[str, str] = await response.json()
                        return body
                    assert response.status in {500, 502, 503}, await response.text()
            except aiohttp.ClientConnectionError:
                pass
            self.again += 1
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("journal", JOURNALS)
async def test_rolling_deploy_under_load_loses_nothing_and_pays_once(
    journal: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path / JOURNALS[journal])
    if is_shared := not JOURNALS[journal]:
        place = request.getfixturevalue("postgres").url()
    async with Emulator(duration=2.5, answer_chars=200) as server:
        server.faults.add("submit", faults.Delay(1.2))  # so that submissions are on the way when a worker is stopped
        service = Service(server, place, is_shared=is_shared)
        customers = Customers(service)
        is_over = False

        async def orders() -> None:
            number = 0
            async with anyio.create_task_group() as group:
                while not is_over or number % 2:
                    group.start_soon(customers.order, number)
                    number += 1
                    await asyncio.sleep(0.05)

        try:
            await service.start()
            with anyio.fail_after(100):
                async with anyio.create_task_group() as group:
                    group.start_soon(orders)
                    for worker in (0, 1):
                        await server_has(server, running_jobs=2)
                        await service.replace(worker)
                    is_over = True
        finally:
            await service.close()
    said = "".join(service.said)
    # In a shared journal most are handed over: only those that somebody waited for were left by anybody.
    assert is_shared or re.search("goe?s? on, and (are|is) billed, at the service", said), "none ran at the stop"
    assert KEY not in said
    assert customers.again > 0, "there were some whose request was cut"
    assert len(customers.ids) > 20
    assert set(customers.ends.values()) == {"COMPLETED"}, "none is lost"
    assert customers.ends.keys() == customers.ids.keys()
    told = [job_id for ids in customers.ids.values() for job_id in ids]
    assert len(told) == len(customers.ids), "one order, one id"
    assert sorted(told) == sorted(job.id for job in server.ledger.jobs), "none is paid twice"


async def server_has(server: Emulator, *, running_jobs: int) -> None:
    with anyio.fail_after(60):
        while sum(not job.told_final for job in server.ledger.jobs) < running_jobs:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
