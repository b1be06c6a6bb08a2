"""Three hundred rows in a notebook: interrupted, the kernel killed, run again. Each is paid once and comes back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from _kernel import Kernel

from aiopplx.emulator import Emulator

ROWS = 300

FIRST = f"""
from aiopplx import PollPolicy, Session, rows
table = [{{"question": f"Why did ship {{n}} sink?", "meta": {{"ship": n}}}} for n in range({ROWS})]
"""
CELL = """
done = []
async with Session("key", journal="run.db", poll=PollPolicy.fixed(0.3)) as session:
    async with session.batch(table) as jobs:
        jobs.display()
        async for job in jobs:
            done.append(job)
            print("handed", len(done), flush=True)
"""
LAST = """
found = rows(done)
print("ships", sorted(row["ship"] for row in found) == list(range(len(table))))
print("answers", all(row["answer"] and row["status"] == "COMPLETED" for row in found))
print("jobs", len({row["job_id"] for row in found}))
"""


@pytest.mark.slow
async def test_rows_survive_an_interrupted_cell_and_a_killed_kernel(tmp_path: Path) -> None:
    async with Emulator(duration=lambda question: 1.0 + len(question) % 7 * 0.3, answer_chars=300) as server:
        kernel = await Kernel.started(server.url, tmp_path)
        assert await kernel.run(FIRST) == "--- done"
        kernel.give(CELL)
        await kernel.until("handed 20")
        kernel.process.send_signal(signal.SIGINT)
        assert await kernel.until("---") == "--- CancelledError"
        assert "left" in kernel.said[-2], "the output's last word"

        kernel.give(CELL)  # the same cell, in the same kernel
        await kernel.until("handed 60")
        await kernel.killed()

        kernel = await Kernel.started(server.url, tmp_path)
        assert await kernel.run(FIRST) == "--- done"
        assert await kernel.run(CELL) == "--- done"
        assert f"<b>Batch of {ROWS}</b>" in kernel.said[-2]
        assert f"{ROWS} done" in kernel.said[-2]
        assert " from the journal, $0.00" in kernel.said[-2]
        paid = server.ledger.created

        assert await kernel.run(CELL) == "--- done"
        assert f"{ROWS} from the journal, $0.00" in kernel.said[-2]
        assert await kernel.run(LAST) == "--- done"
        assert kernel.said[-4:-1] == ["ships True\n", "answers True\n", f"jobs {ROWS}\n"]
        await kernel.killed()
        assert (paid, server.ledger.created) == (ROWS, ROWS)
        assert set(server.ledger.created_by_key.values()) == {1}
