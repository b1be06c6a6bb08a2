"""The emulated Agent API has the files that a run wrote and shared: their list, and the content of each."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from _agent_caller import BASES, AgentCaller, fits, run
from perplexity import AsyncPerplexity

from aiopplx.emulator import Emulator, faults

WRITES = run(tools=[{"type": "sandbox"}])
NAMES = {"a b.csv": b"1,2\n", "../../etc/passwd": b"\x00\xff", 'quote".txt': b"", "naïve.bin": b"x" * 100_000}


@pytest.mark.parametrize("base", BASES)
async def test_completed_run_lists_its_files(base: str) -> None:
    async with Emulator(duration=0, files=NAMES) as server, AgentCaller(server.url, base=base) as c:
        id = await c.job(WRITES)
        told = await c.seen(id)
        listed = (await c.call("GET", f"{base}/{id}/files")).json
        assert fits("ResponseFileList", listed)
        assert [(row["filename"], row["bytes"]) for row in listed["data"]] == [
            (name, len(content)) for name, content in NAMES.items()
        ]
        shared = [item for item in told["output"] if item["type"] == "share_file"]
        assert [item["file_id"] for item in shared] == [row["id"] for row in listed["data"]]
        for row, item in zip(listed["data"], shared, strict=True):
            answer = await c.call("GET", item["url"])
            assert answer.body == NAMES[row["filename"]]
            kind, _, name = answer.headers["Content-Disposition"].partition("filename*=UTF-8''")
            assert (kind, unquote(name)) == ("attachment; ", row["filename"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_official_sdk_lists_and_downloads_files() -> None:
    async with (
        Emulator(duration=0) as server,
        AsyncPerplexity(api_key="any word", base_url=server.url) as client,
    ):
        made = await client.responses.create(
            background=True, effort="low", input="Which ships?", tools=[{"type": "sandbox"}]
        )
        (row,) = (await client.responses.files.list(made.id)).data
        assert row.filename == "results.csv"
        content = await client.responses.files.content(row.id, response_id=made.id)
        assert len(await content.read()) == row.bytes


async def test_run_without_a_sandbox_or_an_end_has_none() -> None:
    async with Emulator(duration=100) as server, AgentCaller(server.url) as c:
        writing, other = await c.job(WRITES), await c.job(run())
        assert (await c.call("GET", f"{c.base}/{writing}/files")).json == {"data": [], "object": "list"}
        server.advance(101)
        assert (await c.call("GET", f"{c.base}/{other}/files")).json == {"data": [], "object": "list"}
        (row,) = (await c.call("GET", f"{c.base}/{writing}/files")).json["data"]
        for path in (f"{other}/files/{row['id']}/content", f"{writing}/files/other/content", "resp_x/files"):
            assert (await c.call("GET", f"{c.base}/{path}")).status in (400, 404)
        async with AgentCaller(server.url, "nobody") as stranger:
            assert (await stranger.call("GET", f"{c.base}/{writing}/files")).status == 200
        assert (await c.call("POST", f"{c.base}/{writing}/files")).headers["Allow"] == "GET, HEAD"


async def test_fault_can_be_for_files_alone() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        server.faults.add("files", faults.Status(502))
        server.faults.add("content", faults.Status(503))
        id = await c.job(WRITES)
        assert (await c.get(id)).status == 200
        assert (await c.call("GET", f"{c.base}/{id}/files")).status == 502
        assert (await c.call("GET", f"{c.base}/{id}/files/x/content")).status == 503
        assert server.ledger.requests["GET /v1/responses/{id}/files/{file_id}/content"] == 1
