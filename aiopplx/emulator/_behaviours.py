"""What the wire server can do with a request, as values, and the bytes that each value sends.

This module knows nothing of sockets.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class WireRequest(msgspec.Struct, frozen=True):
    """One complete request. `connection` and `number` count from 0: which connection, and which request on it.

    `method` and `path` are as received, `body` is without its transfer coding. `data` has all bytes of it, head and
    body; the names of `headers` are in lower case.
    """

    connection: int
    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    data: bytes


Body: TypeAlias = bytes | Callable[[WireRequest], bytes]
"""The body of an answer, or what makes it of the request."""


class Say(msgspec.Struct, frozen=True):
    """A well-formed answer with this `status`.

    `body` may be a function of the request. `close` announces the end (`Connection: close`) and ends the connection;
    `close_after` ends it unannounced after this many idle seconds, 0.0 at once: the keep-alive race. `delay` is seconds
    before the first byte. A `Content-Type` or `Content-Length` in `headers` replaces the usual one.
    """

    status: int = 200
    body: Body = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False
    close_after: float | None = None
    delay: float = 0.0


class Cut(msgspec.Struct, frozen=True):
    """An answer that ends early, after which the connection is closed, or reset with `reset`.

    `how`: `length`, fewer bytes than `Content-Length` announces; `chunked`, without the last chunk; `gzip`, a
    compressed stream cut short while `Content-Length` is right; `until_close`, no length at all, so that the cut cannot
    be detected; `head`, in the middle of the headers. `keep` is the share of `body` that is sent.
    """

    body: Body = b'{"id": "00000000-0000-4000-8000-000000000001"}'
    how: Literal["length", "chunked", "gzip", "until_close", "head"] = "length"
    keep: float = 0.5
    reset: bool = False


class Bytes(msgspec.Struct, frozen=True):
    """Exactly the bytes `data` in place of an answer; then the connection is closed, or left open with `keep_open`."""

    data: bytes
    keep_open: bool = False


class Drip(msgspec.Struct, frozen=True):
    """A slow-loris: a well-formed answer sent one byte every `every` seconds. `part`: all of it this way, or only its
    body.

    `body` is followed by spaces up to `size` bytes, so that it does not end by itself.
    """

    every: float = 0.05
    part: Literal["all", "body"] = "body"
    body: Body = b"{}"
    size: int = 1_000_000


class Silent(msgspec.Struct, frozen=True):
    """No answer, ever. With `read=False` the request is not read either: over TLS, a handshake that stalls."""

    read: bool = True


class Reset(msgspec.Struct, frozen=True):
    """The connection is reset (RST), `when`: on `connect`, after the `head`, or after the whole `request`."""

    when: Literal["connect", "head", "request"] = "request"


class Close(msgspec.Struct, frozen=True):
    """The connection is closed (FIN) without an answer, `when`: on `connect`, after the `head`, or after the whole
    `request`.
    """

    when: Literal["connect", "head", "request"] = "request"


class Extra(msgspec.Struct, frozen=True):
    """A well-formed answer with `body`, followed at once by an unsolicited one with `extra`, on a connection that stays
    open.
    """

    body: Body = b"{}"
    extra: bytes = b'{"id": "nobody asked for this"}'


Behaviour: TypeAlias = Say | Cut | Bytes | Drip | Silent | Reset | Close | Extra
"""What a server does with one request."""

GARBAGE = Bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc this is not HTTP at all\r\n\r\n")
"""An answer whose first line is not HTTP."""
HUGE_HEADER = Bytes(OK + b"X-Long: " + b"a" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}")
"""A header line longer than clients accept."""
MANY_HEADERS = Bytes(OK + b"".join(b"X-%d: y\r\n" % n for n in range(50_000)) + b"Content-Length: 2\r\n\r\n{}")
"""More headers than clients accept."""
BAD_HEADER = Bytes(OK + b"no colon in this line\r\nContent-Length: 2\r\n\r\n{}")
"""A header line without a colon."""
TWO_LENGTHS = Bytes(OK + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\n{}     ")
"""Two lengths that differ."""
LENGTH_AND_CHUNKED = Bytes(OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
"""A length and a chunked body at once."""
BAD_CHUNK = Bytes(OK + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n")
"""A chunk whose size is not a number."""
BAD_GZIP = Bytes(OK + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!")
"""A body that is declared as compressed and is not."""
INTERIM_ONLY = Bytes(b"HTTP/1.1 100 Continue\r\n\r\n" * 3)
"""Interim answers (1xx) and no final one."""


def made(body: Body, request: WireRequest | None) -> bytes:
    if not callable(body):
        return body
    return body(request) if request is not None else b""


def answer(status: int, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    given = {name.lower() for name, _ in headers}
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    if "content-type" not in given:
        lines.append("Content-Type: application/json")
    if "content-length" not in given and "transfer-encoding" not in given:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def cut_short(cut: Cut, body: bytes) -> bytes:
    kept = body[: int(len(body) * cut.keep)]
    match cut.how:
        case "length":
            return OK + b"Content-Length: %d\r\n\r\n" % len(body) + kept
        case "chunked":
            return OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + kept
        case "gzip":
            packed = gzip.compress(body)
            packed = packed[: max(1, int(len(packed) * cut.keep))]
            return OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        case "until_close":
            return OK + b"Connection: close\r\n\r\n" + kept
        case "head":
            return OK + b"Content-Len"
