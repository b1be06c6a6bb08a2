"""What the emulator answers to requests that HTTP does not allow, or that no API has: by RFC 9110, and quietly."""

from __future__ import annotations

import asyncio
import logging
import zlib

import pytest
from _agent_caller import AgentCaller, run
from _caller import NEW, Caller

from aiopplx.emulator import Emulator

HEAD = b"Host: x\r\nAuthorization: Bearer any\r\nConnection: close\r\n"


async def exchange(server: Emulator, line: str, *, headers: bytes = b"", body: bytes = b"") -> tuple[int, bytes, bytes]:
    """(status, head, content) of one request that is sent as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    if body:
        headers += b"Content-Length: %d\r\n" % len(body)
    writer.write(f"{line} HTTP/1.1\r\n".encode("latin-1") + HEAD + headers + b"\r\n" + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, content


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("PUT /v1/responses", b"POST"),
        ("GET /v1/agent", b"POST"),
        ("HEAD /v1/agent", b"POST"),
        ("DELETE /v1/responses/resp_x", b"GET, HEAD"),
        ("GET /v1/responses/resp_x/cancel", b"POST"),
        ("DELETE /v1/async/sonar", b"GET, HEAD, POST"),
        ("POST /async/chat/completions/x", b"GET, HEAD"),
        ("TRACE /v1/agent/resp_x/files", b"GET, HEAD"),
        ("DELETE /_control/ledger", b"GET, HEAD"),
        ("GET /_control/reset", b"POST"),
        ("PUT /_control/faults", b"GET, HEAD, POST, DELETE"),
    ],
)
async def test_wrong_method_is_told_the_right_ones(line: str, allowed: bytes) -> None:
    async with Emulator() as server:
        status, head, _ = await exchange(server, line)
        assert status == 405
        assert b"\r\nAllow: " + allowed in head + b"\r\n"


@pytest.mark.parametrize("path", ["/_control/nothing", "/v1/nothing", "/"])
async def test_unknown_path_is_a_404_for_every_method(path: str) -> None:
    async with Emulator() as server:
        assert {(await exchange(server, f"{method} {path}"))[0] for method in ("GET", "HEAD", "PUT")} == {404}


async def test_head_is_the_answer_without_its_content() -> None:
    async with Emulator(duration=1e9) as server, AgentCaller(server.url) as agent, Caller(server.url) as c:
        for path in (f"{NEW}/{await c.job()}", NEW, f"/v1/responses/{await agent.job(run())}", "/_control/ledger"):
            status, head, content = await exchange(server, f"HEAD {path}")
            answer = await c.call("GET", path)
            assert (status, content) == (200, b"")
            if "_control" not in path:  # the ledger has grown meanwhile
                assert b"\r\nContent-Length: %d" % len(answer.body) in head


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip"])
async def test_body_that_lies_about_its_encoding_is_a_400(encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Emulator() as server:
        lie = f"Content-Encoding: {encoding}\r\n".encode()
        plain = b'{"preset":"low","input":"Why?","background":true}'
        for path in ("/v1/responses", NEW):
            status, _, content = await exchange(server, f"POST {path}", headers=lie, body=plain)
            if encoding == "x-gzip":
                continue  # not an encoding that aiohttp knows: the body is read as it is
            assert status == 400
            assert b'"type":"invalid_request","code":400' in content
        assert server.ledger.created == (1 if encoding == "x-gzip" else 0)
        assert {request.status for request in server.ledger.log} <= {400, 200, 422}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_body_that_is_truly_compressed_is_read() -> None:
    async with Emulator() as server:
        packer = zlib.compressobj(wbits=31)
        packed = packer.compress(b'{"preset":"low","input":"Why?","background":true}') + packer.flush()
        status, _, _ = await exchange(server, "POST /v1/responses", headers=b"Content-Encoding: gzip\r\n", body=packed)
        assert (status, server.ledger.created) == (200, 1)


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("GET /v1/async/sonar", b"X-A: a\x00b\r\n"),
        ("GET /v1/async/sonar", b"X\x00A: b\r\n"),
        ("GET /v1/async/sonar", b"X-A: \x01\x7f\r\n"),
        ("GET /v1/\x00", b""),
        ("GET /v1/async/sonar", b"no colon\r\n"),
        ("GET /v1/async/sonar", b"X-A: " + b"a" * 100_000 + b"\r\n"),
        ("POST /v1/async/sonar", b"Content-Length: 2\r\nContent-Length: 7\r\n"),
        ("POST /v1/async/sonar", b"Content-Length: -1\r\n"),
        ("POST /v1/async/sonar", b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"),
        ("", b""),
    ],
)
async def test_what_is_not_http_is_a_quiet_400(
    line: str, headers: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Emulator() as server:
        assert (await exchange(server, line, headers=headers))[0] == 400
        assert (await exchange(server, "GET /v1/async/sonar"))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capsys.readouterr().err == ""


async def test_fault_of_the_emulators_own_is_still_told(caplog: pytest.LogCaptureFixture) -> None:
    def broken(question: str) -> float:
        raise LookupError(question)

    async with Emulator(duration=broken) as server, Caller(server.url) as c:
        assert (await c.submit()).status == 500
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [LookupError]
