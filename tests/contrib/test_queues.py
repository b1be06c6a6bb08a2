"""The programs for Celery and DBOS, with a real worker and a real database: one order is one job, and is answered."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from _apps import EXAMPLES, ROOT
from _postgres import Server
from _shell import environment

from aiopplx.emulator import Emulator
from aiopplx.journal._postgres.driver import AsyncpgDatabase
from aiopplx.journal._postgres.url import address_of

pytestmark = pytest.mark.slow

WITHIN = 90.0
CELERY = """
broker_url = result_backend_transport = "filesystem://"
broker_transport_options = {{
    "data_folder_in": "{folder}", "data_folder_out": "{folder}", "control_folder": "{folder}/control"
}}
result_backend = "file://{folder}/results"
"""
CUSTOMER = """
from celery_app import ask

orders = [ask(f"order {n}", f"What became of order {n}?") for n in range(4) for delivery in range(2)]
print(len({order.get(timeout=80) for order in orders}))
"""


@asynccontextmanager
async def started(
    server: Emulator, postgres: Server, folder: Path, *words: str, **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program beside the examples. It is ended with the block, and all of its processes with it."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env=environment(
            PERPLEXITY_BASE_URL=server.url,
            PERPLEXITY_API_KEY="any",
            RESEARCH_WAIT="0.5",
            PYTHONPATH=os.pathsep.join(map(str, (ROOT, EXAMPLES, folder))),
            PYTHONDONTWRITEBYTECODE="1",
            **env,
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()


async def said(process: asyncio.subprocess.Process) -> str:
    """What it has printed by its end. One that does not end in time is ended, and fails the test with what it said."""
    assert process.stdout is not None
    reading = asyncio.create_task(process.stdout.read())
    await asyncio.wait([reading], timeout=WITHIN)
    is_late = not reading.done()
    if is_late:
        os.killpg(process.pid, signal.SIGKILL)
    printed = await reading
    await process.wait()
    assert not is_late, f"not ended within {WITHIN:.0f} s: {printed.decode()}"
    return printed.decode()


@pytest.mark.parametrize("name", ["celery_app", "dbos_app"])
def test_page_on_queues_shows_the_program_word_for_word(name: str) -> None:
    page = (ROOT / "docs" / "queue-worker.md").read_text(encoding="utf-8")
    shown = (
        page.partition(f"<!-- not run: a part of docs/examples/{name}.py")[2].split("```")[1].removeprefix("python\n")
    )
    assert "def collect" in shown
    assert shown in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


async def without_holders(journal: str) -> None:
    """The leases of all sessions are over, which would take a minute."""
    address = address_of(journal)
    database = AsyncpgDatabase(address)
    await database.execute(f"DELETE FROM {address.schema}.worker")
    await database.close()


async def test_celery_submits_in_one_task_and_collects_in_another(postgres: Server, tmp_path: Path) -> None:
    for name in ("control", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "celeryconfig.py").write_text(CELERY.format(folder=tmp_path), encoding="utf-8")
    words = [sys.executable, "-m", "celery", "--app", "celery_app", "worker", "--concurrency=2", "--loglevel=INFO"]
    env = {"RESEARCH_JOURNAL": postgres.url()}
    async with Emulator(duration=2.0, answer_chars=300) as server:
        async with (
            started(server, postgres, tmp_path, *words, **env) as worker,
            started(server, postgres, tmp_path, sys.executable, "-c", CUSTOMER, **env) as customer,
        ):
            answered = await said(customer)
            worker.send_signal(signal.SIGTERM)
            told = await said(worker)
        assert (answered.strip(), worker.returncode) == ("4", 0), answered + told
        assert server.ledger.created == 4  # each was ordered twice
    assert "Retry in 0.5s" in told  # no task waited for as long as a job takes
    assert "Traceback" not in told


async def test_dbos_goes_on_after_a_crash_with_its_job(postgres: Server, tmp_path: Path) -> None:
    journal = postgres.url()
    words = [sys.executable, str(EXAMPLES / "dbos_app.py"), "order 7", "Why did the Vasa sink?"]
    # A database of its own, which it makes: it builds indexes CONCURRENTLY, and each waits for all transactions that
    # are open in the same database, also for one that an earlier test left.
    own = journal.partition("&schema")[0].replace("/postgres?", "/dbos?")
    env = {"RESEARCH_JOURNAL": journal, "DBOS_SYSTEM_DATABASE_URL": own}
    async with Emulator(duration=3600.0, answer_chars=300) as server:
        async with started(server, postgres, tmp_path, *words, **env) as first:
            ending = asyncio.create_task(said(first))
            made = asyncio.create_task(server.until(lambda ledger: ledger.created == 1))
            await asyncio.wait({ending, made}, return_when=asyncio.FIRST_COMPLETED)
            assert made.done(), await ending
            first.kill()
            await ending
        await without_holders(journal)
        server.advance(3600.0)
        async with started(server, postgres, tmp_path, *words, **env) as second:
            answered = await said(second)
        assert (second.returncode, server.ledger.created) == (0, 1), answered
        [job] = server.ledger.jobs
    assert job.told_final
    assert "Traceback" not in answered
