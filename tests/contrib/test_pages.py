"""The example application in a real browser, and for two hundred of them at once."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from _apps import QUESTION, running
from _browser import BROWSER, browser

from aiopplx.emulator import Emulator

pytestmark = pytest.mark.slow
ANSWERED = "document.querySelector('main a')"


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
async def test_question_is_typed_watched_and_its_answer_read(tmp_path: Path) -> None:
    async with (
        Emulator(duration=2.0, answer_chars=400) as server,
        running("fastapi", server) as app,
        browser(tmp_path) as tab,
    ):
        hostile = "<img src=x onerror=\"document.title='broken'\"> Why did the Vasa sink?"
        await tab.open(app.url)
        with anyio.fail_after(100):
            await tab.until("document.querySelector('form input')")
            await tab.run(f"document.querySelector('input').value = {json.dumps(hostile)}")
            await tab.run("document.querySelector('button').click()")
            await tab.until("document.querySelector('main article')")
            await tab.until(ANSWERED)
            assert await tab.run("document.querySelector('article h2').textContent") == hostile
            assert await tab.run("document.querySelectorAll('article li').length") > 0, "what it has searched for"
            assert await tab.run("document.title") == "Research"
            await tab.run(f"{ANSWERED}.click()")
            await tab.until("document.querySelector('a[href^=\"https://\"]')")
    assert server.ledger.created == 1


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
async def test_page_counts_and_survives_a_reload_and_refusals(tmp_path: Path) -> None:
    states = "document.querySelectorAll('main .state')"
    async with (
        Emulator(duration=36_000.0, answer_chars=400) as server,
        running("fastapi", server) as app,
        browser(tmp_path) as tab,
    ):
        await tab.open(app.url)
        with anyio.fail_after(100):
            await tab.until("document.querySelector('form input')")
            await tab.run(f"document.querySelector('input').value = {json.dumps(QUESTION['question'])}")
            await tab.run("document.querySelector('button').click()")
            await tab.until(f"/, [1-9]\\d* s,/.test({states}[0]?.textContent)")  # without an update, which says 0 s
            await tab.open(app.url)
            await tab.until(f"/in progress, [1-9]/.test({states}[0]?.textContent)")
            await tab.run("follow('x'.repeat(3000), 'What is refused?')")
            await tab.until(f"{states}[0].textContent === 'the server does not tell how it stands'")
    assert server.ledger.created == 1


async def test_two_hundred_browsers_are_served_by_one_poller() -> None:
    told: list[list[str]] = [[] for _ in range(200)]
    async with Emulator(duration=3.0, answer_chars=200) as server, running("fastapi", server) as app:
        job_ids = [await app.start(question=f"{QUESTION['question']} {n}") for n in range(4)]

        async def watch(n: int) -> None:
            async for name, id, _ in app.events(job_ids[n % 4]):
                told[n].append(f"{name} {id}")

        async with anyio.create_task_group() as group:
            for n in range(200):
                group.start_soon(watch, n)
        async with app.client.get("/health") as response:
            assert (await response.json())["running"] == 0
        polls = [job.polls for job in server.ledger.jobs]
        await app.stop()
    assert all(updates[-1].startswith("done ") for updates in told)
    assert all(len(set(updates)) == len(updates) for updates in told), "each once"
    # Every 0.3 seconds for three seconds, whoever watches; some more for a slow machine. Fifty pollers would make 500.
    assert max(polls) <= 40
