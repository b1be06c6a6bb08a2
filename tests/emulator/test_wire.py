"""The wire server breaks HTTP in each way it promises, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import trustme
from _caller import Caller

from aiopplx.emulator import Emulator, WireServer, faults, wire

ID = b'{"id": "00000000-0000-4000-8000-000000000001"}'


async def raw(server: WireServer, data: bytes = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n") -> bytes:
    """What comes on one connection, until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


def after(url: str) -> Caller:
    return Caller(url, base="/x", keep=True)


# --- proper answers, scripts, records


async def test_list_gives_one_behaviour_a_request_repeating_the_last() -> None:
    script = [wire.Say(201), wire.Say(503, b"busy", (("Retry-After", "1"), ("Content-Type", "text/plain"))), wire.Say()]
    async with WireServer(script) as server, after(server.url) as c:
        answers = [await c.list() for _ in range(4)]
        assert [answer.status for answer in answers] == [201, 503, 200, 200]
        assert (answers[1].body, answers[1].headers["Retry-After"]) == (b"busy", "1")
        assert answers[1].headers["Content-Type"] == "text/plain"
        assert server.connections == 1


async def test_function_is_asked_with_each_whole_request() -> None:
    def script(request: wire.WireRequest) -> wire.Behaviour:
        return wire.Say(body=request.body) if request.method == "POST" else wire.Close()

    async with WireServer(script) as server, after(server.url) as c:
        assert (await c.submit({"a": 1})).json == {"a": 1}
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await c.list()


async def test_body_can_be_a_function_of_the_request() -> None:
    async with WireServer([wire.Say(body=lambda request: request.path.encode())]) as server, after(server.url) as c:
        assert (await c.get("abc")).body == b"/x/abc"


async def test_whole_requests_are_recorded_and_broken_ones_counted() -> None:
    async with WireServer([wire.Say(close=True)]) as server:
        whole = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        await raw(server, whole)
        chunked = b"POST /y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        await raw(server, chunked)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(whole[:-2])
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert [(request.path, request.body, request.data) for request in server.requests] == [
            ("/x", b"hello", whole),
            ("/y", b"abcde", chunked),
        ]
        assert server.requests[0].headers == {"host": "a", "content-length": "5"}
        assert (server.partial, server.connections) == (1, 3)


@pytest.mark.parametrize("script", [[], ()])
def test_empty_script_is_refused(script: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        WireServer(script)


# --- cut answers


@pytest.mark.parametrize("how", ["length", "chunked"])
async def test_client_sees_that_a_body_was_cut(how: Any) -> None:
    async with WireServer([wire.Cut(ID, how), wire.Say(body=ID)]) as server, after(server.url) as c:
        with pytest.raises(aiohttp.ClientPayloadError):
            await c.submit({})
        assert (await c.submit({})).body == ID
        assert len(server.requests) == 2


async def test_cut_gzip_stream_has_full_length_but_no_end() -> None:
    async with WireServer([wire.Cut(ID * 20, "gzip", 0.6)]) as server:
        head, _, body = (await raw(server)).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        inflater = zlib.decompressobj(31)
        inflater.decompress(body)
        assert not inflater.eof


async def test_body_without_a_length_is_cut_unseen() -> None:
    async with WireServer([wire.Cut(ID, "until_close")]) as server, after(server.url) as c:
        assert (await c.list()).body == ID[: len(ID) // 2]


async def test_cut_can_be_in_the_head_with_a_reset() -> None:
    async with WireServer([wire.Cut(how="head"), wire.Cut(reset=True)]) as server, after(server.url) as c:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await c.submit({})
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)) as caught:
            await c.submit({})
        assert "reset" in repr((caught.value, caught.value.__cause__)).lower()


# --- what is no HTTP


@pytest.mark.parametrize(
    "broken",
    [wire.GARBAGE, wire.HUGE_HEADER, wire.MANY_HEADERS, wire.BAD_HEADER, wire.TWO_LENGTHS, wire.LENGTH_AND_CHUNKED],
)
async def test_malformed_head_is_no_answer_to_a_client(broken: wire.Bytes) -> None:
    async with WireServer([broken]) as server, after(server.url) as c:
        with pytest.raises((aiohttp.ClientResponseError, aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await c.submit({})
        assert len(server.requests) == 1


@pytest.mark.parametrize("broken", [wire.BAD_CHUNK, wire.BAD_GZIP])
async def test_malformed_body_is_no_answer_to_a_client(broken: wire.Bytes) -> None:
    async with WireServer([broken]) as server, after(server.url) as c:
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientResponseError)):
            await c.submit({})


async def test_bytes_go_out_as_they_are() -> None:
    async with WireServer([wire.Bytes(b"\x00\xff anything")]) as server:
        assert await raw(server) == b"\x00\xff anything"


async def test_extra_answer_follows_a_proper_one() -> None:
    async with WireServer([wire.Extra(ID, b"{}")]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        data = await reader.readuntil(b"\r\n\r\n{}")
        assert data.count(b"HTTP/1.1 200") == 2
        assert ID in data
        writer.close()


# --- connections that end, or do not


@pytest.mark.parametrize(("when", "whole", "partial"), [("connect", 0, 0), ("head", 0, 1), ("request", 1, 0)])
@pytest.mark.parametrize("kind", [wire.Close, wire.Reset])
async def test_connection_ends_at_the_moment_named(
    kind: Callable[[Any], wire.Behaviour], when: Any, whole: int, partial: int
) -> None:
    async with WireServer([kind(when), wire.Say()]) as server, after(server.url) as c:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)) as caught:
            await c.submit({"n": 1})
        if kind is wire.Reset and when != "connect":
            assert isinstance(caught.value, aiohttp.ClientOSError)
        assert (len(server.requests), server.partial) == (whole, partial)
        assert (await c.submit({"n": 2})).status == 200
        assert server.requests[-1].body == b'{"n": 2}'


@pytest.mark.parametrize("read", [True, False])
async def test_silent_server_never_answers(read: bool) -> None:
    async with WireServer([wire.Silent(read)]) as server, after(server.url) as c:
        asking = asyncio.create_task(c.submit({}))
        await server.until(lambda: len(server.requests) == read and server.connections == 1)
        done, _ = await asyncio.wait([asking], timeout=0.02)
        assert not done
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(server.requests) == read


@pytest.mark.parametrize("part", ["all", "body"])
async def test_drip_keeps_a_client_reading_without_an_end(part: Any) -> None:
    async with WireServer([wire.Drip(0.001, part)]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        first = await reader.read(10_000)
        assert (b"\r\n\r\n" in first) == (part == "body")
        assert await reader.readexactly(5)
        writer.close()


async def test_idle_connection_closes_unannounced_before_the_next_request() -> None:
    async with WireServer([wire.Say(close_after=0.0)]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        data = await reader.read()
        assert data.endswith(b"{}")
        assert b"close" not in data.lower()
        writer.close()
    async with WireServer([wire.Say()], idle=0.01) as server:
        assert (await raw(server)).endswith(b"{}")


async def test_connection_ends_after_so_many_answers() -> None:
    async with WireServer([wire.Say()], max_requests=2) as server, after(server.url) as c:
        for _ in range(6):
            assert (await c.list()).status == 200
        assert server.connections == 3
        assert [(request.connection, request.number) for request in server.requests] == [
            (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1),
        ]  # fmt: skip


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and a client's that trusts it."""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    authority.configure_trust(trusting)
    return serving, trusting


async def test_server_speaks_tls_with_a_context(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    serving, trusting = contexts
    async with WireServer([wire.Say()], ssl=serving) as server, aiohttp.ClientSession() as session:
        assert server.url.startswith("https://127.0.0.1:")
        async with session.get(server.url, ssl=trusting) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(server.url)


@pytest.mark.parametrize("abort", [True, False], ids=["abort", "close"])
@pytest.mark.parametrize("behaviour", [wire.Silent(), wire.Reset(), wire.Close(), wire.Say(), wire.Cut(ID, reset=True)])
async def test_client_that_leaves_over_tls_breaks_nothing(
    behaviour: wire.Behaviour, abort: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    serving, trusting = contexts
    before = asyncio.all_tasks()
    async with WireServer([behaviour], ssl=serving) as server:
        for count, request in enumerate([b"GET /x HTTP/1.1\r\n\r\n", b"GET /x"], start=1):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting)
            writer.write(request)
            await writer.drain()
            await server.until(lambda count=count: server.connections == count)
            if abort:
                writer.transport.abort()
            else:
                writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            await asyncio.gather(*(asyncio.all_tasks() - before))  # raises what ended the server's task


async def test_leaving_the_block_ends_everything_without_a_warning() -> None:
    before = asyncio.all_tasks()
    writers: list[asyncio.StreamWriter] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for behaviour in (
            wire.Silent(),
            wire.Silent(read=False),
            wire.Drip(),
            wire.Say(delay=60),
            wire.Say(close_after=60),
        ):
            async with WireServer([behaviour]) as server:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writers.append(writer)
                writer.write(b"GET /x HTTP/1.1\r\n\r\n")
                if behaviour != wire.Silent(read=False):
                    await server.until(lambda: len(server.requests) == 1)
                idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", server.port)
                writers.append(idle_writer)
                await server.until(lambda: server.connections == 2)
            await asyncio.wait_for(idle_reader.read(), 5)
            await asyncio.wait_for(reader.read(), 5)
            assert asyncio.all_tasks() == before
        for writer in writers:
            writer.close()
            await writer.wait_closed()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def closed_after(turns: int, server: Emulator | WireServer) -> None:
    """A server that is closed so many turns of the loop after connections were asked for."""
    clients = [socket.socket() for _ in range(3)]
    await server.__aenter__()
    try:
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", server.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await server.__aexit__(None, None, None)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("make", [Emulator, lambda: WireServer([wire.Silent()])], ids=("emulator", "wire"))
def test_connection_being_accepted_ends_with_the_others(make: Callable[[], Emulator | WireServer], loop: str) -> None:
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for turns in range(5):
            run(closed_after(turns, make()))
            gc.collect()
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("make", [Emulator, lambda: WireServer([wire.Silent()])], ids=("emulator", "wire"))
async def test_server_cancelled_while_closing_stops_listening(make: Callable[[], Emulator | WireServer]) -> None:
    server = make()
    await server.__aenter__()
    closing = asyncio.create_task(server.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    gc.collect()


def test_resets_and_closes_are_the_same_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with Emulator() as server, after(server.url) as c:
            for reset in (False, True):
                server.faults.clear()
                server.faults.add("*", faults.Drop(reset=reset))
                with pytest.raises(aiohttp.ClientOSError if reset else aiohttp.ServerDisconnectedError):
                    await c.call("GET", "/v1/async/sonar")
        async with WireServer([wire.Reset(), wire.Cut()]) as wired, after(wired.url) as c:
            # POSTs, since aiohttp sends a GET that was reset once more by itself.
            with pytest.raises(aiohttp.ClientOSError):
                await c.submit({})
            with pytest.raises(aiohttp.ClientPayloadError):
                await c.submit({})
        assert len(asyncio.all_tasks()) == 1

    uvloop.run(main())
