"""The one module that calls aiohttp: one attempt of one `Call` becomes a `Reply` or a `NoReply`.

The question that decides about money is asked here: *was anything sent?* After a lost answer nobody can know whether
the server acted. But if no byte of the request's body was handed to a socket, no job can exist, and the submission may
be repeated without a doubt. Exceptions do not tell the two apart: aiohttp raises the same `ServerDisconnectedError` for
a connection that was closed while it lay idle in the pool and for one that broke after the request. So the body itself
keeps the record. aiohttp calls `write` on it once it has a connection, and not before: a body on which `write` was
never called is proof that nothing was submitted (`_Body`). A connection that breaks during the first write counts as
sent, although it may not have been; the error is on the side that costs nothing.

Exceptions of aiohttp end here, since they hold the request's headers, and so the API key (aiohttp #8402). This module
never retries, waits at no gate, and knows nothing of jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import platform
import socket
import ssl
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import aiohttp
import msgspec
import yarl
from aiohttp.abc import AbstractStreamWriter

from aiopplx._errors import ConfigError
from aiopplx._http.apart import apart, is_closed
from aiopplx._http.clock import NOTHING, Clock, Nothing
from aiopplx._http.limit import Limit
from aiopplx._http.proxy import Proxy, certificates, variable_for
from aiopplx._http.secret import Secret
from aiopplx._policy.network import NetworkOptions
from aiopplx._version import __version__
from aiopplx._wire.call import Broken, Call, Lane, NoReply, Reply

# In a burst, a submission may use a connection that has just been used, but never one that has been idle: the server
# may be closing it at this moment, and then nobody can tell whether the submission arrived.
SUBMIT_KEEPALIVE: Final = 0.25
# Polls of one job are up to two minutes apart; without this, each would need a TLS handshake.
POLL_KEEPALIVE: Final = 150.0
CONNECTIONS: Final = 64
TOLD_AFTER: Final = 8.0
"""Seconds without an answer after which those who wait are told. A submission takes two; a connection that cannot be
made is given up after ten (`NetworkOptions.connect_seconds`), and the first that fails so should be told of."""
IN_ONE_PIECE: Final = 128 * 1024
"""Bytes. A body up to this size may come in one piece, without being held back by aiohttp for a reader."""
_SUBMIT: Final = Lane.SUBMIT
HEADERS: Final = {
    "Accept": "application/json",
    "User-Agent": f"aiopplx/{__version__} Python/{platform.python_version()}",
}

# Not compressed: a compressed content that is cut short decompresses to a shorter one.
FILE_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity"}


def _address(base: yarl.URL, path: str) -> yarl.URL:
    """The URL of a path. Paths are percent-encoded already, so only those with a query have to be parsed again."""
    whole = base.raw_path.rstrip("/") + path
    return base.join(yarl.URL(whole, encoded=True)) if "?" in path else base.with_path(whole, encoded=True)


class Withdrawn(asyncio.CancelledError):
    """A submission that was cancelled before aiohttp began to write it: nothing was submitted, and nothing will be.

    For the client alone, which goes on with a plain `CancelledError`: what waits with a time limit looks for just that.
    """


class _Written:
    """When a submission was last handed to a connection, in wire seconds."""

    __slots__ = ("at", "clock")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at = -math.inf


class _Body(aiohttp.Payload):
    """The exact bytes of a submission, which remember whether aiohttp began to write them.

    While `sent` is False, nothing was submitted (the reason stands at the head of this module). This takes no trace
    hooks, so it works with the caller's own `ClientSession` as well.
    """

    _autoclose = True

    def __init__(self, value: bytes, written: _Written) -> None:
        super().__init__(value, content_type="application/json")
        self._size = len(value)
        self._written = written
        self.sent = False
        self._is_withdrawn = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    def withdrawn(self) -> bool:
        """Whether it was not written yet. Then it never will be, whatever a session of the caller's still does."""
        self._is_withdrawn = not self.sent
        return self._is_withdrawn

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if self._is_withdrawn:
            raise asyncio.CancelledError
        self.sent = True
        self._written.at = self._written.clock.wire_now()
        await writer.write(self._value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)


class Sink(Protocol):
    """Takes the content of an answer piece by piece, so that it never is in memory as a whole."""

    async def begin(self) -> bool:
        """A content begins; what an earlier attempt brought is void. Returns False if none can be taken."""
        ...

    async def take(self, piece: bytes) -> bool:
        """The next piece. Returns False if it cannot be taken."""
        ...


class Transport:
    """Makes attempts. Opens connections of its own, unless it is given the caller's session, which it never closes.

    Args:
        base_url: as `check_base_url` returned it.
        key: the API key.
        network: the bounds of one exchange.
        clock: measures the time limits, and is told of each exchange.
        http: the caller's own session.
        proxy: what requests go through, if there is no session of the caller's; None: directly.

    Attributes:
        proxy: the same.
    """

    def __init__(
        self,
        base_url: str,
        key: Secret,
        network: NetworkOptions,
        *,
        clock: Clock,
        http: aiohttp.ClientSession | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self.base_url = base_url
        self._base = yarl.URL(base_url)
        # Each poll of a job has the same address, and a `URL` keeps the parts that aiohttp has once worked out (host,
        # port, whether there is a password).
        self._address = functools.lru_cache(1024)(functools.partial(_address, yarl.URL(base_url)))
        self.limit: int = network.max_response_bytes
        self.file_limit: int = network.max_file_bytes
        # The caller's own session may be anything that has the methods of one: its answers are read as they offer it.
        self._in_one_piece = min(IN_ONE_PIECE, self.limit) if http is None else -1
        self._key = key
        self._theirs = http
        self.proxy: Proxy | None = proxy
        self._network = network
        self._certificates: ssl.SSLContext | bool = True
        self._submits: aiohttp.ClientSession | None = http
        self._polls: aiohttp.ClientSession | None = http
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=network.connect_seconds)
        self._written = _Written(clock)
        self._submit_limit = Limit(network.submit_seconds, clock, TOLD_AFTER)
        self._poll_limit = Limit(network.poll_seconds, clock, TOLD_AFTER)
        self._file_limit = Limit(network.file_seconds, clock)

    def open(self) -> None:
        """Make the connection pools; needs the running loop. Raises `ConfigError` if certificates cannot be read."""
        if self._theirs is None and self._submits is None:
            self._certificates = certificates(self._network) or True
            self._submits = self._pool(SUBMIT_KEEPALIVE)
            self._polls = self._pool(POLL_KEEPALIVE)

    async def close(self) -> None:
        """Close what `open` made, and nothing else."""
        self._submit_limit.close()
        self._poll_limit.close()
        self._file_limit.close()
        if self._theirs is not None:
            return
        pools = [pool for pool in (self._submits, self._polls) if pool is not None]
        self._submits = self._polls = None
        async with contextlib.AsyncExitStack() as stack:  # closes all, also if one is cancelled while it closes
            for pool in pools:
                stack.push_async_callback(pool.close)

    def notify(self, method: Callable[[], object]) -> None:
        """Call this method when an exchange, other than a download, has been open for `TOLD_AFTER` seconds.

        Not once its object is gone: a timer keeps no session that was dropped.
        """
        reference = weakref.WeakMethod(method)

        def call() -> None:
            if (alive := reference()) is not None:
                alive()

        self._submit_limit.notice = self._poll_limit.notice = call

    def open_since(self, moment: float) -> float:
        """When the first exchange began that began at `moment` or later and is open, in wire seconds.

        Infinity if there is none. Downloads of files do not count: they take long.
        """
        return min(self._submit_limit.open_since(moment), self._poll_limit.open_since(moment))

    def waits_for(self, moment: float, seconds: float) -> str:
        """What the exchanges wait for, the first for so many seconds, that began at `moment` or later and are open: a
        sentence for a person.
        """
        if self._submit_limit.open_since(moment) == math.inf:
            return f"no answer for {seconds:.0f} s; jobs at the service go on"
        if self._written.at < moment:
            return f"no connection for {seconds:.0f} s; no submission was sent in that time"
        limit = self._network.submit_seconds
        return (
            f"connected, but no answer for {seconds:.0f} s; a submission waits for up to {limit:g} s, then its outcome"
            " is unknown"
        )

    def scrub(self, text: str) -> str:
        """`text` without the API key."""
        return self._key.scrub(text)

    def _pool(self, keepalive: float) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=keepalive, ssl=self._certificates),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            proxy=self.proxy.url if self.proxy is not None else None,
            trust_env=False,  # aiohttp would look it up for each request
        )

    def exchange(self, call: Call, sink: Sink | None = None) -> Coroutine[Any, Any, Reply | NoReply]:
        """One attempt, whatever the caller's own session does in it.

        Args:
            call: what to ask.
            sink: takes the content of a 200, whose reply then has none; None to have it in the reply.

        Raises:
            Withdrawn: the submission was cancelled before a byte of it was sent.
            asyncio.CancelledError, KeyboardInterrupt, SystemExit: made anew, without the frames that hold the key.
            ConfigError: the connections are closed, as they are after the end of the session.
        """
        if call.lane is _SUBMIT:
            pool, limit = self._submits, self._submit_limit
        else:
            pool, limit = self._polls, self._poll_limit if sink is None else self._file_limit
        if pool is None:
            raise ConfigError("the session's connections are closed")
        body = _Body(call.body, self._written) if call.body is not None else None
        # Not awaited here: one frame fewer on the way of each request.
        if self._theirs is None:
            return self._contained(pool, call, body, limit, sink)
        return self._in_theirs(pool, call, body, limit, sink)

    async def _in_theirs(
        self, pool: aiohttp.ClientSession, call: Call, body: _Body | None, limit: Limit, sink: Sink | None
    ) -> Reply | NoReply:
        """One attempt in the caller's own session, which may swallow a cancellation: in a task of its own, it ends."""
        if pool.closed:
            return NoReply(Broken.CLOSED, "", sent=False, permanent=True)
        try:
            with limit:
                return await apart(self._contained(pool, call, body, NOTHING, sink))
        except TimeoutError as error:
            return _no_reply(error, sent=body is None or body.sent)
        except asyncio.CancelledError as ending:
            if body is None or not body.withdrawn():
                raise
            raise Withdrawn(*ending.args) from None

    async def _contained(
        self,
        pool: aiohttp.ClientSession,
        call: Call,
        body: _Body | None,
        limit: Limit | Nothing,
        sink: Sink | None,
    ) -> Reply | NoReply:
        """One attempt within its limit. Nothing that aiohttp raises leaves it, with its frames or as a context."""
        cancels: int | None = None
        ending: BaseException | None
        try:
            with limit as cancels:  # None where the task is new, and nobody has asked it to end
                return await self._attempt(pool, call, body, sink)
        except BaseException as error:
            ending = _ending(error, asyncio.current_task(), cancels or 0)
            failure = _no_reply(error, sent=body is None or body.sent)
            if failure.broken in _UNREACHED and not failure.sent and self._theirs is None:
                failure = _about_proxies(failure, self._network, self._base)
        # Outside the handler: there the exception, and the headers that it holds, would still be alive.
        if ending is None:
            return failure
        if isinstance(ending, asyncio.CancelledError) and body is not None and body.withdrawn():
            ending = Withdrawn(*ending.args)
        try:
            raise ending
        finally:
            del ending  # it holds this frame, and this frame should not hold it

    async def _attempt(
        self, pool: aiohttp.ClientSession, call: Call, body: _Body | None, sink: Sink | None
    ) -> Reply | NoReply:
        """The exchange itself. What it raises holds the key."""
        response = await pool.request(
            call.method,
            self._address(call.path),
            data=body,
            headers=self._key.header() if sink is None else self._key.header() | FILE_HEADERS,
            timeout=self._timeout,
            allow_redirects=False,
            raise_for_status=False,
        )
        try:
            if sink is not None and response.status == 200:
                return await self._poured(response, sink)
            content: bytes | None
            length = response.content_length
            if length is not None and "Content-Encoding" not in response.headers:
                if length > self.limit:
                    content = None
                elif length > self._in_one_piece:
                    content = await response.read()
                else:
                    content = await _whole(response.content)
            else:
                content = await self._read_counted(response)
        except BaseException:
            response.close()
            raise
        if content is None:
            response.close()
            return NoReply(Broken.TOO_LARGE, f"more than {self.limit:,} bytes", sent=True)
        return Reply(response.status, response.headers, self._key.scrub_body(content))

    async def _poured(self, response: aiohttp.ClientResponse, sink: Sink) -> Reply | NoReply:
        """The content into the sink, piece by piece."""
        size = response.content_length or 0
        is_taken = size <= self.file_limit and await sink.begin()
        size = size if size > self.file_limit else 0
        if is_taken:
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > self.file_limit or not await sink.take(piece):
                    is_taken = False
                    break
        if is_taken:
            return Reply(response.status, response.headers, b"")
        response.close()
        broken = Broken.TOO_LARGE if size > self.file_limit else Broken.DISK
        return NoReply(broken, "", sent=True, permanent=True)

    async def _read_counted(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The body of an answer that does not say how large it is (or will be, decompressed); None beyond the limit."""
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self.limit:
                return None
            parts.append(part)
        return b"".join(parts)


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """A short body. It nearly always comes in one piece, and is then not looked at a second time."""
    first = await content.readany()
    return first if content.at_eof() else first + await content.read()


def _ending(error: BaseException, task: asyncio.Task[Any] | None, cancels: int) -> BaseException | None:
    """What must go on up in place of a failed attempt, as a new exception without frames or context; None if nothing.

    Args:
        error: what the attempt raised.
        task: the task that made it; Any: it is not looked at.
        cancels: how often the task had been asked to end before the attempt.
    """
    match error:
        case KeyboardInterrupt():
            return KeyboardInterrupt(*error.args)
        case SystemExit():
            return SystemExit(*error.args)
        case asyncio.CancelledError() if task is None or task.cancelling():
            # With its message, by which anyio knows the cancellations of its own.
            return asyncio.CancelledError(*error.args)
        case GeneratorExit() if is_closed(task):
            return GeneratorExit()
        case _:
            # Asked to end during the attempt, the caller's session raised something else: that must not undo it.
            return asyncio.CancelledError() if task is not None and task.cancelling() > cancels else None


def _no_reply(error: BaseException, *, sent: bool) -> NoReply:
    """What an exception of aiohttp says, in our words. Its own text is never passed on: it may quote headers."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return NoReply(Broken.TLS, f"the certificate of {error.host} is not valid", sent=False, permanent=True)
        case aiohttp.ClientConnectorSSLError() | aiohttp.ServerFingerprintMismatch():
            return NoReply(Broken.TLS, "no common TLS version, or not a TLS server", sent=False, permanent=True)
        case aiohttp.ClientConnectorDNSError():
            unknown = getattr(error.os_error, "errno", None) == socket.EAI_NONAME
            return NoReply(Broken.DNS, error.host or "?", sent=False, permanent=unknown)
        case aiohttp.ClientProxyConnectionError():
            return NoReply(Broken.PROXY, _strerror(error), sent=False)
        case aiohttp.ClientHttpProxyError():
            return NoReply(Broken.PROXY, f"HTTP {error.status}", sent=False, permanent=error.status == 407)
        case aiohttp.ClientConnectorError():
            return NoReply(Broken.CONNECT, f"{error.host}:{error.port}, {_strerror(error)}", sent=False)
        case aiohttp.ConnectionTimeoutError():
            return NoReply(Broken.TIMEOUT, "no connection in time", sent=sent)
        case asyncio.TimeoutError():
            return NoReply(Broken.TIMEOUT, "no complete answer in time", sent=sent)
        case aiohttp.ClientResponseError():
            return NoReply(Broken.MALFORMED, "a head or a line that HTTP does not allow", sent=sent)
        case aiohttp.ClientPayloadError():
            return NoReply(Broken.TRUNCATED, "the body ended before its announced end", sent=sent)
        case aiohttp.ServerDisconnectedError():
            return NoReply(Broken.RESET, "the server closed it without an answer", sent=sent)
        case aiohttp.ClientError() | OSError():
            return NoReply(Broken.RESET, _strerror(error), sent=sent)
        case _:
            return NoReply(Broken.ROUTE, _strerror(error), sent=sent)


# What a network that is left only through a proxy looks like to somebody who does not use it.
_UNREACHED = frozenset({Broken.DNS, Broken.CONNECT, Broken.TLS, Broken.TIMEOUT})


def _about_proxies(no: NoReply, network: NetworkOptions, base: yarl.URL) -> NoReply:
    """The same, and that a proxy of the environment was not used, if one is set for this host.

    The proxy's address may hold a password, and is not told.
    """
    if network.proxy is not None or network.trust_env or not (name := variable_for(network, base)):
        return no
    return msgspec.structs.replace(
        no,
        detail=f"{no.detail}; {name} is set, but proxies of the environment are not used",
        unused_proxy=name,
    )


def _strerror(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)
