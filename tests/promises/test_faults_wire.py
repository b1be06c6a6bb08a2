"""What can go wrong between the client and any HTTP server (docs/reliability.md, "The wire")."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Sequence
from email.utils import formatdate
from urllib.parse import quote

import aiohttp
import pytest
import trustme
from _faulty import ENOUGH, KEY, OTHERS, QUESTIONS, SPEED, VICTIM, emulator, session_at, taken
from aiohttp.abc import AbstractResolver, ResolveResult

from aiopplx import (
    ConfigError,
    Event,
    EventKind,
    InDoubt,
    Job,
    JobStatus,
    NotFound,
    PollPolicy,
    ProtocolError,
    RetryPolicy,
    TransportError,
)
from aiopplx.emulator import AfterPolls, WireServer, wire

ID = "2c387cce-a2a3-4fd6-8757-b77602e7e87c"


def job_body(status: str, text: str | None = None) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    response = None if text is None else {"id": ID, "model": "sonar-deep-research", "choices": [choice]}
    return json.dumps({"id": ID, "model": "sonar-deep-research", "status": status, "response": response}).encode()


CREATED = wire.Say(body=job_body("CREATED"))
DONE = wire.Say(body=job_body("COMPLETED", "The answer [1]."))


async def asked(script: Sequence[wire.Behaviour], **more: object) -> tuple[Job, WireServer, list[Event]]:
    """What becomes of one question at a server that follows this script, request by request."""
    events: list[Event] = []
    async with WireServer(script) as server, session_at(server.url, events=events, **more) as session:
        return await session.ask(VICTIM), server, events


def faults_told(events: list[Event]) -> list[str]:
    return [event.fault for event in events if event.kind in (EventKind.RETRYING, EventKind.POLL_FAILED)]


BROKEN: dict[str, wire.Behaviour] = {
    "reset after the head": wire.Reset("head"),
    "reset after the request": wire.Reset("request"),
    "closed after the head": wire.Close("head"),
    "closed after the request": wire.Close("request"),
    "silent": wire.Silent(),
    "dripping body": wire.Drip(every=0.02, part="body"),
    "dripping head": wire.Drip(every=0.02, part="all"),
    "cut by length": wire.Cut(job_body("CREATED"), "length"),
    "cut by length, reset": wire.Cut(job_body("CREATED"), "length", reset=True),
    "cut in a chunk": wire.Cut(job_body("CREATED"), "chunked"),
    "cut in gzip": wire.Cut(job_body("CREATED"), "gzip"),
    "cut without a length": wire.Cut(job_body("CREATED"), "until_close"),
    "cut in the head": wire.Cut(job_body("CREATED"), "head"),
    "garbage": wire.GARBAGE,
    "huge header": wire.HUGE_HEADER,
    "many headers": wire.MANY_HEADERS,
    "bad header": wire.BAD_HEADER,
    "two lengths": wire.TWO_LENGTHS,
    "length and chunked": wire.LENGTH_AND_CHUNKED,
    "bad chunk": wire.BAD_CHUNK,
    "bad gzip": wire.BAD_GZIP,
    "interim only": wire.INTERIM_ONLY,
    "gzip without saying so": wire.Say(body=b"\x1f\x8b\x08\x00" + bytes(40)),
    "not UTF-8": wire.Say(body='{"id": "é"}'.encode("utf-16")),
}
# These end by our own limit; all others break by themselves, however long that limit is.
ENDLESS = frozenset({"silent", "dripping body", "dripping head"})


def giving_up(name: str, **limits: float) -> dict[str, float]:
    """These limits of one exchange if what BROKEN has under this name would go on for ever."""
    return limits if name in ENDLESS else {}


@pytest.mark.parametrize("name", BROKEN)
async def test_submission_whose_answer_breaks_is_resent_unchanged(name: str) -> None:
    limits = giving_up(name, submit_seconds=ENOUGH)
    job, server, events = await asked([BROKEN[name], BROKEN[name], CREATED, DONE], **limits)
    posts = [request.body for request in server.requests if request.method == "POST"]

    assert job.ok
    assert job.id == ID
    if name in ENDLESS:
        # One more wherever a busy machine gave up a good one, sent (D) or not yet (N).
        assert job.attempts >= 3
        assert {"D"} <= set(faults_told(events)) <= {"D", "N"}
    else:
        assert job.attempts == 3
        assert set(faults_told(events)) == {"D"}
    assert len(set(posts)) == 1
    assert json.loads(posts[0])["idempotency_key"] == job.idempotency_key


@pytest.mark.parametrize("name", BROKEN)
async def test_poll_whose_answer_breaks_is_repeated_without_harm(name: str) -> None:
    limits = giving_up(name, poll_seconds=ENOUGH)
    job, server, events = await asked([CREATED, BROKEN[name], BROKEN[name], DONE], **limits)

    assert job.ok
    assert job.text == "The answer [1]."
    assert {event.fault for event in events if event.kind is EventKind.POLL_FAILED} == {"P"}
    assert sum(request.method == "POST" for request in server.requests) == 1
    assert job.attempts == 1


@pytest.mark.parametrize("name", ["silent", "cut by length", "garbage", "reset after the request"])
async def test_submission_whose_answers_all_break_is_in_doubt(name: str) -> None:
    job, _, events = await asked([BROKEN[name]], **giving_up(name, submit_seconds=0.2))

    assert job.status is JobStatus.IN_DOUBT
    assert isinstance(job.error, InDoubt)
    assert job.error.status is None
    assert job.idempotency_key in str(job.error)
    # N: a busy machine gave it up before it was sent.
    assert {"D"} <= set(faults_told(events)) <= ({"D", "N"} if name in ENDLESS else {"D"})


async def test_silent_server_is_given_up_within_one_exchange() -> None:
    retry = RetryPolicy(doubt_tries=2)
    async with (
        WireServer([wire.Silent()]) as server,
        session_at(server.url, retry=retry, submit_seconds=0.1) as session,
    ):
        async with asyncio.timeout(20):
            job = await session.ask(VICTIM)

        assert job.status is JobStatus.IN_DOUBT
        assert "time limit" in str(job.error)
        assert len(server.requests) == 2


async def test_connection_reset_before_it_is_used_costs_nothing() -> None:
    job, server, events = await asked([wire.Reset("connect"), wire.Reset("connect"), CREATED, DONE])

    assert job.ok
    assert set(faults_told(events)) <= {"N", "D"}
    assert sum(request.method == "POST" for request in server.requests) == 1


async def test_unrequested_answer_is_not_used_for_the_next_request() -> None:
    extra = wire.Extra(job_body("IN_PROGRESS"), job_body("COMPLETED", "another job's secret"))
    job, _, _ = await asked([wire.Extra(job_body("CREATED"), job_body("COMPLETED", "wrong")), extra, extra, DONE])

    assert job.ok
    assert job.text == "The answer [1]."


async def test_submission_never_rides_a_connection_that_sat_idle() -> None:
    script = [wire.Say(body=job_body("CREATED").replace(ID[:1].encode(), b"%d" % n)) for n in range(3)]
    async with WireServer(script) as server, session_at(server.url, speed=1.0) as session:
        for _ in script:
            await session.submit(VICTIM)
            await asyncio.sleep(0.4)  # longer than a submission's connection is kept, shorter than any server's limit

        assert [request.number for request in server.requests] == [0, 0, 0]


async def test_polls_keep_their_connection() -> None:
    job, server, _ = await asked([CREATED, *[wire.Say(body=job_body("IN_PROGRESS"))] * 5, DONE])
    polls = [request for request in server.requests if request.method == "GET"]

    assert job.ok
    assert len(polls) == 6
    assert len({request.connection for request in polls}) == 1


@pytest.mark.parametrize("answers", [1, 2, 7])
async def test_unannounced_close_of_kept_connections_pays_nothing_twice(answers: int) -> None:
    created: dict[str, str] = {}

    def answer(request: wire.WireRequest) -> wire.Behaviour:
        if request.method == "GET":
            return wire.Say(body=job_body("COMPLETED", "yes").replace(ID.encode(), request.path[-36:].encode()))
        key = json.loads(request.body)["idempotency_key"]
        id = created.setdefault(key, f"00000000-0000-4000-8000-{len(created):012d}")
        return wire.Say(body=job_body("CREATED").replace(ID.encode(), id.encode()))

    async with WireServer(answer, max_requests=answers) as server, session_at(server.url) as session:
        async with session.batch(f"Question {n}?" for n in range(60)) as jobs:
            found = [job async for job in jobs]

        assert [job.ok for job in found] == [True] * 60
        assert len({job.id for job in found}) == 60 == len(created)


async def test_exhausted_count_of_submissions_holds_the_next_one_back() -> None:
    times: list[float] = []

    def answer(request: wire.WireRequest) -> wire.Behaviour:
        times.append(time.monotonic())
        now = time.time()
        headers = (
            ("Date", formatdate(now, usegmt=True)),
            ("x-ratelimit-limit", "50"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", str(int(now) + 30)),
        )
        body = job_body("CREATED").replace(ID.encode(), f"{ID}-{len(times)}".encode())
        return wire.Say(body=body, headers=headers)

    async with WireServer(answer) as server, session_at(server.url) as session:
        await session.submit(VICTIM)
        await session.submit(VICTIM)

    assert times[1] - times[0] >= 29.0 / SPEED


async def test_redirect_to_another_host_carries_nothing_there() -> None:
    async with WireServer([DONE]) as thief:
        move = wire.Say(status=308, body=b"", headers=(("Location", f"{thief.url}/async/chat/completions"),))
        job, _, _ = await asked([move])

        assert job.status is JobStatus.REJECTED
        assert isinstance(job.error, ProtocolError)
        assert KEY not in str(job.error)
        assert thief.connections == 0


# --- no connection ----------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_absent_server_is_reported_at_once_without_doubt() -> None:
    events: list[Event] = []
    async with session_at(f"http://127.0.0.1:{closed_port()}", events=events) as session:
        with pytest.raises(TransportError, match="nothing was sent, nothing was billed") as raised:
            await session.ask(VICTIM)

    assert not raised.value.sent
    assert not raised.value.is_in_doubt
    assert raised.value.idempotency_key
    assert set(faults_told(events)) == {"N"}
    assert raised.value.attempts == RetryPolicy().first_contact_tries


async def test_batch_at_an_absent_server_ends_with_one_error() -> None:
    events: list[Event] = []
    async with session_at(f"http://127.0.0.1:{closed_port()}", events=events) as session:
        batch = session.batch(f"Question {n}?" for n in range(500))
        with pytest.raises(TransportError, match="could not connect"):
            await taken(batch, [])

    assert sum(event.kind is EventKind.STOPPED for event in events) == 1


async def test_late_server_gets_every_question_once() -> None:
    server = emulator(duration=AfterPolls(1), port=closed_port())
    up: list[asyncio.Task[None]] = []

    def start(event: Event) -> None:
        if event.kind is EventKind.RETRYING and not up:
            up.append(asyncio.get_running_loop().create_task(server.start()))

    async with session_at(server.url, on_event=start, speed=2.0) as session:
        try:
            found = await taken(session.batch([VICTIM, *OTHERS]), [])
        finally:
            await server.close()

    assert [job.ok for job in found] == [True] * 4
    assert set(server.ledger.created_by_key.values()) == {1}
    assert server.ledger.created == 4


async def test_server_that_goes_away_briefly_loses_no_job() -> None:
    server = emulator(duration=AfterPolls(3))
    await server.start()
    async with session_at(server.url) as session:
        try:
            job = await session.submit(VICTIM)
            await server.close()
            waiting = asyncio.create_task(session.wait(job.id))
            late = asyncio.create_task(session.ask(OTHERS[0]))
            await asyncio.sleep(0.3)  # twenty seconds of the session's clock in which nobody answers
            assert not waiting.done()
            assert not late.done()
            await server.start()
            found = [await waiting, await late]
        finally:
            await server.close()

    assert [one.ok for one in found] == [True, True]
    assert server.ledger.created == 2


class Resolver(AbstractResolver):
    """Name servers that fail in one way so many times, then know that every host is this machine."""

    def __init__(self, code: int, times: int) -> None:
        self.code = code
        self.left = times
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise socket.gaierror(self.code, "scripted")
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_unknown_host_name_is_reported_at_once() -> None:
    resolver = Resolver(socket.EAI_NONAME, 1000)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        session_at("https://no-such-host.example", http=http) as session,
    ):
        with pytest.raises(TransportError, match=r"no-such-host\.example") as raised:
            await session.ask(VICTIM)

    assert not raised.value.sent
    assert raised.value.attempts == 1
    assert resolver.asked == 1


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_environments_proxy_is_named_when_nothing_is_reached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    async with session_at(f"https://127.0.0.1:{closed_port()}") as session:
        with pytest.raises(TransportError) as bare:
            await session.ask(VICTIM)
    monkeypatch.setenv(name, "http://user:secret@127.0.0.1:9")
    async with session_at(f"https://127.0.0.1:{closed_port()}") as session:
        with pytest.raises(TransportError) as raised:
            await session.ask(VICTIM)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with session_at(f"https://127.0.0.1:{closed_port()}") as session:
        with pytest.raises(TransportError) as excepted:
            await session.ask(VICTIM)

    assert f"{name} is set, but proxies of the environment are not used; nothing was sent" in raised.value.message
    assert "trust_env=True" in raised.value.remedy
    assert raised.value.unused_proxy == name
    assert "trust_env=True" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "proxies" not in str(bare.value) + str(excepted.value)


AWAY = ("EAI_NONAME", "EAI_AGAIN", "EAI_NODATA", "EAI_FAIL")


@pytest.mark.parametrize("name", AWAY)
async def test_name_that_is_lost_midway_costs_no_job(name: str) -> None:
    resolver = Resolver(getattr(socket, name), 0)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    async with emulator() as server, aiohttp.ClientSession(connector=connector) as http:
        url = server.url.replace("127.0.0.1", "api.localhost")
        async with session_at(url, http=http) as session, session.batch(QUESTIONS, max_in_flight=3) as jobs:
            found = [await anext(jobs)]
            resolver.left = 20
            found += [job async for job in jobs]

    assert resolver.left == 0
    assert [job.ok for job in found] == [True] * len(QUESTIONS)
    assert server.ledger.created == len(QUESTIONS)


async def test_silent_name_server_is_asked_again() -> None:
    resolver = Resolver(socket.EAI_AGAIN, 2)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    async with emulator() as server, aiohttp.ClientSession(connector=connector) as http:
        url = server.url.replace("127.0.0.1", "service.localhost")
        async with session_at(url, http=http) as session:
            job = await session.ask(VICTIM)

    assert job.ok
    assert job.attempts == 3
    assert server.ledger.created == 1


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_untrusted_certificate_is_reported_at_once_without_a_retry(authority: trustme.CA) -> None:
    async with (
        WireServer([CREATED], ssl=server_context(authority, "127.0.0.1")) as server,
        session_at(server.url) as session,
    ):
        with pytest.raises(TransportError, match="certificate") as raised:
            await session.ask(VICTIM)

    assert not raised.value.sent
    assert raised.value.attempts == 1
    assert server.requests == []


async def test_certificate_for_another_host_is_reported_at_once(authority: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        WireServer([CREATED], ssl=server_context(authority, "somewhere-else.example")) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as http,
        session_at(server.url, http=http) as session,
    ):
        with pytest.raises(TransportError, match="certificate") as raised:
            await taken(session.batch(OTHERS), [])

        assert not raised.value.sent
        assert server.requests == []


async def test_certificate_that_the_users_session_trusts_is_accepted(authority: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        WireServer([CREATED, DONE], ssl=server_context(authority, "127.0.0.1")) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as http,
        session_at(server.url, http=http) as session,
    ):
        assert (await session.ask(VICTIM)).ok


async def test_server_without_tls_is_reported_at_once() -> None:
    def say_something(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 This is no TLS\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(say_something, "127.0.0.1", 0) as server,
        session_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as session,
    ):
        with pytest.raises(TransportError, match="TLS") as raised:
            await session.ask(VICTIM)

    assert not raised.value.sent
    assert raised.value.attempts == 1


async def test_stalled_tls_handshake_ends_and_sends_nothing() -> None:
    async with (
        WireServer([wire.Silent(read=False)]) as server,
        session_at(server.url.replace("http:", "https:"), retry=RetryPolicy(), connect_seconds=0.2) as session,
    ):
        with pytest.raises(TransportError, match="no connection in time") as raised:
            await session.ask(VICTIM)

    assert not raised.value.sent
    assert raised.value.attempts == RetryPolicy().first_contact_tries


# --- proxies ----------------------------------------------------------------------------------------------------------


async def test_proxy_that_wants_a_password_is_reported_at_once() -> None:
    refusal = wire.Say(status=407, body=b"", headers=(("Proxy-Authenticate", "Basic"),))
    async with (
        WireServer([refusal]) as proxy,
        aiohttp.ClientSession(proxy=proxy.url) as http,
        session_at("https://service.example", http=http) as session,
    ):
        with pytest.raises(TransportError, match="407") as raised:
            await session.ask(VICTIM)

    assert not raised.value.sent
    assert raised.value.attempts == 1
    assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert KEY.encode() not in proxy.requests[0].data


async def test_proxy_that_is_not_there_is_not_sent() -> None:
    async with (
        aiohttp.ClientSession(proxy=f"http://127.0.0.1:{closed_port()}") as http,
        session_at("https://service.example", http=http) as session,
    ):
        with pytest.raises(TransportError, match="proxy") as raised:
            await session.ask(VICTIM)

    assert not raised.value.sent


async def test_proxy_that_refuses_for_a_while_costs_nothing() -> None:
    script = [wire.Say(status=502, body=b""), wire.Say(status=502, body=b""), wire.Say(status=407, body=b"")]
    async with WireServer(script) as proxy, aiohttp.ClientSession(proxy=proxy.url) as http:
        events: list[Event] = []
        async with session_at("https://service.example", http=http, events=events) as session:
            with pytest.raises(TransportError):
                await session.ask(VICTIM)

    assert faults_told(events) == ["N", "N"]


# --- the user's own aiohttp session -----------------------------------------------------------------------------------


async def test_users_session_keeps_its_headers_and_stays_open() -> None:
    async with (
        WireServer([CREATED, DONE]) as server,
        aiohttp.ClientSession(headers={"X-Team": "blue"}, cookies={"seen": "yes"}) as http,
    ):
        async with session_at(server.url, http=http) as session:
            assert (await session.ask(VICTIM)).ok
        assert not http.closed
        async with http.get(server.url) as answer:
            assert answer.status == 200

    ours = server.requests[:2]
    assert {request.headers["x-team"] for request in ours} == {"blue"}
    assert {request.headers["authorization"] for request in ours} == {f"Bearer {KEY}"}
    assert "authorization" not in server.requests[2].headers


async def test_users_session_does_not_replace_the_api_key() -> None:
    async with (
        WireServer([CREATED, DONE]) as server,
        aiohttp.ClientSession() as http,
        session_at(server.url, http=http) as session,
    ):
        http.headers["authorization"] = "Basic x"  # from the beginning, it would have been refused
        assert (await session.ask(VICTIM)).ok

    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}


async def test_session_that_raises_for_status_does_no_harm() -> None:
    refusal = wire.Say(status=400, body=b'{"error": {"type": "invalid_model", "message": "No such model."}}')
    script = [wire.Say(status=502, body=b"<html>"), CREATED, wire.Say(status=503), DONE, refusal]
    async with (
        WireServer(script) as server,
        aiohttp.ClientSession(raise_for_status=True) as http,
        session_at(server.url, http=http) as session,
    ):
        job = await session.ask(VICTIM)
        refused = await session.ask(OTHERS[0])

    assert job.ok
    assert job.attempts == 2
    assert server.requests[0].body == server.requests[1].body
    assert refused.status is JobStatus.REJECTED
    assert refused.error is not None
    assert refused.error.status == 400
    assert refused.error.message == "No such model."


async def test_users_session_does_not_shorten_our_time_limits() -> None:
    slow = wire.Say(body=job_body("CREATED"), delay=0.3)
    timeout = aiohttp.ClientTimeout(total=0.05)
    async with (
        WireServer([slow, DONE]) as server,
        aiohttp.ClientSession(timeout=timeout) as http,
        session_at(server.url, http=http) as session,
    ):
        job = await session.ask(VICTIM)

    assert job.ok
    assert job.attempts == 1


async def test_users_closed_session_is_named_and_nothing_is_sent() -> None:
    async with WireServer([CREATED]) as server:
        http = aiohttp.ClientSession()
        await http.close()
        async with session_at(server.url, http=http) as session:
            with pytest.raises(ConfigError, match="closed"):
                (await session.ask(VICTIM)).result()

    assert server.requests == []


async def test_our_own_connections_return_no_server_cookie() -> None:
    cookie = wire.Say(body=job_body("CREATED"), headers=(("Set-Cookie", "track=1; Path=/"),))
    job, server, _ = await asked([cookie, DONE], poll=PollPolicy.fixed(1))

    assert job.ok
    assert all("cookie" not in request.headers for request in server.requests)


# --- addresses and keys that cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://api.example", "ftp://api.example", "api.example", "https://u:p@api.example", "https://a.example?x=1"],
)
def test_address_that_would_lose_the_key_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        session_at(url)

    assert KEY not in str(raised.value)


@pytest.mark.parametrize("key", ["", "  ", "two words", "line\nbreak", "cl\u00e9", "nul\x00"])
def test_key_unfit_for_a_header_is_refused_unquoted(key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        session_at("https://api.example", api_key=key)

    assert not key.strip() or key not in str(raised.value)


NO_IDS = ["", " ", "\t\n", "\u00a0\u3000", ".", "..", ".. ", "a\0b", "x" * 2_049, "\ud800"]


@pytest.mark.parametrize("id", NO_IDS, ids=lambda bad: ascii(bad[:8]))
async def test_id_that_could_leave_its_path_is_never_sent(id: str) -> None:
    async with WireServer([DONE]) as server, session_at(server.url) as session:
        with pytest.raises(ValueError, match="id"):
            await session.get(id)
        with pytest.raises(ValueError, match="id"):
            await session.wait(id)

    assert server.requests == []


@pytest.mark.parametrize(
    "id", ["../", "/..", "a/b", "//b", "?x", "#", "%2e%2e", "a b", "a\\b", ";x", "%", "\u00e9", "a\r\nb"]
)
async def test_odd_id_is_one_segment_of_the_path(id: str) -> None:
    missing = wire.Say(404, b'{"error": {"type": "not_found", "message": "no such job"}}')
    async with WireServer([missing]) as server, session_at(server.url) as session:
        with pytest.raises(NotFound):
            await session.get(id)
    assert [request.path for request in server.requests] == [f"/async/chat/completions/{quote(id, safe='')}"]


@pytest.mark.parametrize("id", [".", "..", "x" * 2_049])
async def test_unusable_id_from_the_server_counts_as_none(id: str) -> None:
    job, server, _ = await asked([wire.Say(body=job_body("CREATED").replace(ID.encode(), id.encode()))])

    assert job.status is JobStatus.IN_DOUBT
    assert {request.path for request in server.requests} == {"/async/chat/completions"}
    assert f"the server named it {id[:100]!r}"[:60] in str(job.error)


@pytest.mark.parametrize("name", ["reset after the request", "silent", "cut by length", "garbage"])
async def test_lost_answer_without_keys_is_doubt_never_resent(name: str) -> None:
    job, server, _ = await asked([BROKEN[name]], api="agent", **giving_up(name, submit_seconds=ENOUGH))

    assert job.status is JobStatus.IN_DOUBT
    assert isinstance(job.error, InDoubt)
    assert len(server.requests) == 1
    # More: a busy machine gave it up before it was sent.
    assert job.attempts == 1 or name in ENDLESS
