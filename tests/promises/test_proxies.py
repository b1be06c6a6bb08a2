"""The way out of the machine: through real proxies and TLS on loopback sockets, given or named by the environment."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import pickle
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme
import yarl
from _faulty import emulator, session_at
from _frames import where_shown

from aiopplx import ConfigError, NetworkOptions, RetryPolicy, Session, TransportError
from aiopplx._http.proxy import Proxy, variable_for
from aiopplx.emulator import Emulator

HOST = "127.0.0.1"
PASSWORD = "canary-password-77c1"
VARIABLES = [
    case(name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")
    for case in (str.lower, str.upper)
] + ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"]
QUESTION = "Why did the Vasa sink?"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Connecting:
    """An HTTP proxy on a loopback socket that makes tunnels: what it was asked, and how often it answered.

    Args:
        wants: `user:password` that it asks for; "" for none.
        context: makes it a proxy that is itself reached by TLS.
    """

    def __init__(self, wants: str = "", context: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self._wants = b"Basic " + base64.b64encode(wants.encode()) if wants else b""
        self._context = context

    async def __aenter__(self) -> Connecting:
        self._server = await asyncio.start_server(self._serve, HOST, 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self._wants and self._wants not in head:
                writer.write(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            host, port = head.split()[1].decode().split(":")
            theirs, ours = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            with contextlib.closing(ours):
                await asyncio.gather(_pour(reader, ours), _pour(theirs, writer))


def closed_port() -> int:
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        return int(bound.getsockname()[1])


def shown(problem: BaseException) -> list[str]:
    """Where the password can be read in what was raised, but for the field of the caller's own value."""
    found = where_shown(PASSWORD, problem, but=__file__)
    return [place for place in found if not place.endswith(("network.proxy", "given.proxy"))]


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(65536):
        target.write(piece)
        await target.drain()
    target.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def of_server(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def service(authority: trustme.CA) -> AsyncIterator[tuple[Emulator, str]]:
    """The emulator behind TLS: a tunnel of its own in front of it, and the address of that."""
    async with emulator() as fake:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs, ours = await asyncio.open_connection(HOST, fake.port)
            with contextlib.suppress(OSError), contextlib.closing(ours), contextlib.closing(writer):
                await asyncio.gather(_pour(reader, ours), _pour(theirs, writer))

        server = await asyncio.start_server(serve, HOST, 0, ssl=of_server(authority))
        try:
            yield fake, f"https://{HOST}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


# --- what goes through ------------------------------------------------------------------------------------------------


async def test_job_goes_through_the_proxy_that_was_given(
    authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    caplog.set_level(logging.DEBUG)
    async with service(authority) as (fake, url), Connecting(f"me:{PASSWORD}") as proxy:
        given = f"http://me:{PASSWORD}@{proxy.address}"
        async with session_at(url, proxy=given, trust_env=True) as session:
            shown = session.proxy
            job = await session.ask(QUESTION)

    assert job.ok
    assert fake.ledger.created == 1
    assert shown == f"http://{proxy.address}"
    assert {head.split()[0] for head in proxy.heads} == {b"CONNECT"}
    assert b"Bearer" not in b"".join(proxy.heads)
    assert PASSWORD not in caplog.text


async def test_job_goes_through_a_proxy_over_tls(
    authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    async with (
        service(authority) as (_, url),
        Connecting(context=of_server(authority)) as proxy,
        session_at(url, proxy=f"https://{proxy.address}", trust_env=True) as session,
    ):
        assert (await session.ask(QUESTION)).ok

    assert proxy.heads


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
async def test_environments_proxy_is_used_when_trusted_and_only_then(
    name: str, authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    async with service(authority) as (_, url), Connecting() as proxy:
        monkeypatch.setenv(name, proxy.address)  # without a scheme, as curl takes it
        async with session_at(url) as session:
            with pytest.raises(TransportError, match="certificate"):
                await session.ask(QUESTION)
        unused = len(proxy.heads)
        async with session_at(url, trust_env=True) as session:
            monkeypatch.delenv(name)  # looked up when the session was opened
            assert (await session.ask(QUESTION)).ok
        used = len(proxy.heads)
        monkeypatch.setenv(name, proxy.address)
        monkeypatch.setenv("NO_PROXY", f"example.org,{HOST}")
        async with session_at(url, trust_env=True) as session:
            assert session.proxy is None
            assert (await session.ask(QUESTION)).ok

    assert unused == 0
    assert used > 0
    assert len(proxy.heads) == used


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_environments_certificates_are_believed_when_trusted_and_only_then(
    name: str, authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, bundle)
    async with service(authority) as (_, url):
        async with session_at(url, trust_env=True) as session:
            assert (await session.ask(QUESTION)).ok
        async with session_at(url) as session:
            with pytest.raises(TransportError, match="certificate"):
                await session.ask(QUESTION)


@pytest.fixture
def folder(bundle: str, tmp_path: Path) -> str:
    """The authority as OpenSSL finds it in a folder: under the hash of its name."""
    named = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", bundle], capture_output=True, check=True)
    made = tmp_path / "certificates"
    made.mkdir()
    (made / f"{named.stdout.decode().strip()}.0").write_bytes(Path(bundle).read_bytes())
    return str(made)


@pytest.fixture
def of_others(tmp_path: Path) -> str:
    """A bundle with another authority."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "others.pem")
    return str(tmp_path / "others.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
@pytest.mark.parametrize("name", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR, SSL_CERT_FILE"])
async def test_folder_of_certificates_is_believed(
    name: str, authority: trustme.CA, folder: str, of_others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, second = name.partition(", ")
    monkeypatch.setenv(first, folder)
    if second:
        monkeypatch.setenv(second, of_others)
    async with service(authority) as (_, url), session_at(url, trust_env=True) as session:
        assert (await session.ask(QUESTION)).ok


async def test_bundle_of_openssl_precedes_that_of_requests(
    authority: trustme.CA, bundle: str, of_others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", of_others)
    async with service(authority) as (_, url), session_at(url, trust_env=True) as session:
        assert (await session.ask(QUESTION)).ok


async def test_plain_http_goes_through_a_proxy_only_when_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emulator() as fake, emulator() as proxy:  # asked for http, a proxy gets the request itself
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        with pytest.raises(ConfigError, match="in the clear"):
            Session("any", base_url=fake.url, network=NetworkOptions(proxy=proxy.url))
        async with session_at(fake.url, trust_env=True) as session:
            assert (await session.ask(QUESTION)).ok
        inside = "http://service.example"
        async with session_at(inside, trust_env=True, allow_insecure=True) as session:
            assert session.proxy == proxy.url
            assert (await session.ask(QUESTION)).ok

    assert fake.ledger.created == 1
    assert proxy.ledger.created == 1


# --- what fails -------------------------------------------------------------------------------------------------------


async def test_refused_proxy_password_is_never_reported() -> None:
    async with Connecting("me:another") as proxy:
        session = session_at("https://service.example", proxy=f"http://me:{PASSWORD}@{proxy.address}")
        async with session:
            with pytest.raises(TransportError, match="407") as raised:
                await session.ask(QUESTION)

    assert not raised.value.sent
    assert raised.value.attempts == 1
    assert "nothing was billed" in str(raised.value)
    assert shown(raised.value) == []


async def test_missing_proxy_costs_nothing_and_shows_no_password() -> None:
    given = f"http://me:{PASSWORD}@{HOST}:{closed_port()}"
    async with session_at("https://service.example", proxy=given, retry=RetryPolicy()) as session:
        with pytest.raises(TransportError, match="proxy") as raised:
            await session.ask(QUESTION)

    assert not raised.value.sent
    assert shown(raised.value) == []


async def test_proxy_down_holds_back_no_session_without_it() -> None:
    given = f"http://{HOST}:{closed_port()}"
    async with emulator() as fake:
        broken = session_at(fake.url, proxy=given, allow_insecure=True)
        async with broken, session_at(fake.url) as session:
            with pytest.raises(TransportError):
                await broken.ask(QUESTION)
            assert (await session.ask(QUESTION)).ok
            assert session._running().client.gate is not broken._running().client.gate


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("has_file", [False, True])
async def test_unreadable_certificates_are_named_at_the_opening(
    name: str, has_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "ca.pem"
    if has_file and name == "REQUESTS_CA_BUNDLE":
        place.write_text("nothing of the kind")
    monkeypatch.setenv(name, str(place))
    with pytest.raises(ConfigError, match=f"{name} names certificates that cannot be read"):
        async with session_at("https://service.example", trust_env=True):
            pass


# --- what is refused, and what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "must look like"),
        ("http://", "must look like|cannot be read"),
        ("ftp://proxy.example:21", "must look like"),
        (f"http://me:{PASSWORD}@proxy.example:port", "cannot be read"),
        (f"http://me:{PASSWORD}@proxy.example:3128/path", "must look like"),
        (f"socks5://me:{PASSWORD}@proxy.example:1080", "is a SOCKS proxy"),
    ],
)
async def test_address_of_no_proxy_is_refused_unshown(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"network.proxy ({said})") as given:
        Session("any", network=NetworkOptions(proxy=address))
    assert shown(given.value) == []
    if not address:
        return  # a variable that is empty is one that is not set
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ConfigError, match=f"ALL_PROXY ({said})") as inherited:
        async with session_at("https://service.example", trust_env=True):
            pass
    assert shown(inherited.value) == []


async def test_callers_own_session_takes_no_proxy_beside_it() -> None:
    async with aiohttp.ClientSession() as http:
        for network in (NetworkOptions(proxy="http://proxy.example:3128"), NetworkOptions(trust_env=True)):
            with pytest.raises(ConfigError, match="http has its own proxy"):
                Session("any", http=http, network=network)
    for wrong in ({"proxy": 3128}, {"trust_env": "yes"}):
        with pytest.raises(ConfigError, match=f"network.{next(iter(wrong))} must be"):
            Session("any", network=NetworkOptions(**wrong))  # type: ignore[arg-type]  # what a caller may give


@pytest.mark.parametrize("password", [PASSWORD, f"p@{PASSWORD}", f"p/{PASSWORD}"])
def test_options_show_a_proxy_without_its_password(password: str) -> None:
    for address in (f"http://me:{password}@proxy.example:3128", f"me:{password}@proxy.example:3128"):
        options = NetworkOptions(proxy=address, poll_seconds=20)
        assert PASSWORD not in repr(options) + repr(options.__rich_repr__())
        assert "…@proxy.example:3128" in repr(options)
        assert "poll_seconds=20" in repr(options)
    assert "proxy=None" in repr(NetworkOptions())
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Proxy(f"http://me:{PASSWORD}@proxy.example:3128"))


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "a", "https_proxy": "b", "ALL_PROXY": "c"}, "https_proxy"),
        ({"HTTPS_PROXY": "a", "all_proxy": "b"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "c"}, "ALL_PROXY"),
        ({"HTTP_PROXY": "a"}, ""),
        ({"HTTPS_PROXY": "a", "NO_PROXY": "*"}, ""),
        ({"HTTPS_PROXY": "a", "NO_PROXY": "other.example"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "a", "no_proxy": ".example"}, ""),
        ({"HTTPS_PROXY": "a", "no_proxy": "service.example:443"}, ""),
        ({"HTTPS_PROXY": "a", "no_proxy": "service.example:8443"}, "HTTPS_PROXY"),
    ],
)
def test_variable_that_names_the_proxy(
    environment: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert variable_for(NetworkOptions(), yarl.URL("https://service.example")) == found


def test_header_of_a_visitor_does_not_choose_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, base = NetworkOptions(allow_insecure=True), yarl.URL("http://service.example")
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    assert variable_for(inside, base) == "HTTP_PROXY"
    monkeypatch.setenv("REQUEST_METHOD", "GET")  # a CGI program's: then HTTP_PROXY is the header `Proxy`
    assert variable_for(inside, base) == ""
