"""What a fault makes of an answer, as values. Nothing is sent here.

This module knows nothing of aiohttp, and of jobs only what the route's API says of them.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Protocol

import msgspec

from aiopplx.emulator import faults
from aiopplx.emulator._corrupt import corrupted
from aiopplx.emulator._exchange import HTML, JSON, USUAL, Asked, Ending, Reply, error, page, usual
from aiopplx.emulator.faults import Fault


class EmulatedAPI(Protocol):
    """One API of the emulator."""

    @property
    def name(self) -> str: ...
    @property
    def always_sends_limits(self) -> bool:
        """Its answers carry `x-ratelimit-*` wherever there is a limit, unless `limit_hints` is `never`."""
        ...

    def route(self, method: str, path: str) -> tuple[str, str, str] | None:
        """(kind of request, base path, job id) if the path belongs to this API; the kind is "" for an unsupported
        method.
        """
        ...

    def bucket(self, on: str) -> str:
        """The rate limit that applies to a kind of request."""
        ...

    def refusal(self, asked: Asked) -> Reply | None:
        """The answer to all requests of a retired family, whatever their key; None if the API is in service."""
        ...

    def answer(self, asked: Asked, account: str) -> Reply: ...
    def with_headers(self, reply: Reply) -> Reply:
        """A true answer (or a true refusal) with the headers that this API adds."""
        ...

    def say_status(self, word: str, asked: Asked, reply: Reply) -> Reply | None: ...
    def corrupt(self, how: str, asked: Asked, reply: Reply, account: str) -> Reply | None: ...


class Truth:
    """The answer to one request when no fault is active. It is computed at most once: asking for it executes the
    request.
    """

    def __init__(self, execute: Callable[[], Reply]) -> None:
        self._execute = execute
        self._reply: Reply | None = None

    @property
    def executed(self) -> bool:
        """True if the request was already executed."""
        return self._reply is not None

    def reply(self) -> Reply:
        if self._reply is None:
            self._reply = self._execute()
        return self._reply


def apply_fault(fault: Fault, asked: Asked, truth: Truth, api: EmulatedAPI, account: str, now: float) -> Reply | None:
    """The answer under this fault; None if the fault does not apply to the request or to its true answer."""
    match fault:
        case faults.Corrupt() | faults.SayStatus() | faults.Flood():
            return _changed(fault, asked, truth, api, account)
        case faults.Delay(seconds=seconds):
            return msgspec.structs.replace(truth.reply(), delay=seconds)
        case faults.RateLimited() | faults.Redirect():
            return None if _too_late(asked, truth) else _instead(fault, now)
        case faults.Status(after_accept=False) | faults.Drop(after_accept=False) | faults.Hang(after_accept=False):
            return None if _too_late(asked, truth) else _lost(fault)
        case _:
            reply = _lost(fault)
            reply.job = truth.reply().job
            return reply


def _too_late(asked: Asked, truth: Truth) -> bool:
    """A submission that an earlier rule has executed cannot be refused any more: it is billed."""
    return truth.executed and asked.method not in ("GET", "HEAD")


def _changed(
    fault: faults.Corrupt | faults.SayStatus | faults.Flood, asked: Asked, truth: Truth, api: EmulatedAPI, account: str
) -> Reply | None:
    """The true answer, if it is a 200, corrupted or padded."""
    if isinstance(fault, faults.Corrupt) and asked.on not in faults.ONLY.get(fault.how, (asked.on,)):
        return None
    true = truth.reply()
    if true.status != 200:
        return None
    match fault:
        case faults.Corrupt(how=how):
            return corrupted(how, true) or api.corrupt(how, asked, true, account)
        case faults.SayStatus(status=word):
            return api.say_status(word, asked, true)
        case faults.Flood(how=how, size=size):
            ending = {"plain": Ending.PAD, "gzip": Ending.BOMB, "endless": Ending.ENDLESS}[how]
            return msgspec.structs.replace(true, ending=ending, size=size)


def _instead(fault: faults.RateLimited | faults.Redirect, now: float) -> Reply:
    if isinstance(fault, faults.Redirect):
        return Reply(fault.status, b"", "", {"Location": fault.to})
    headers: dict[str, str] = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    if fault.retry_at is not None:
        headers["Retry-After"] = formatdate(now + fault.retry_at, usegmt=True)
    if fault.limit is not None:
        headers |= limit_headers(fault.limit, 0, now + fault.reset_in)
    return usual(fault.status, headers)


def limit_headers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    """The four headers as captured on the Agent API; `reset` is in seconds since 1970."""
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-used": str(limit - remaining),
        "x-ratelimit-reset": str(int(reset)),
    }


def _lost(fault: Fault) -> Reply:
    """An answer without any part of the true one."""
    match fault:
        case faults.Drop(reset=reset):
            return Reply(0, ending=Ending.RESET if reset else Ending.CLOSE)
        case faults.Hang(seconds=seconds):
            return Reply(0, ending=Ending.HANG, delay=seconds)
        case faults.Status():
            return _status(fault)
        case _:  # pragma: no cover
            raise TypeError(f"not a fault of this kind: {fault!r}")


def _status(fault: faults.Status) -> Reply:
    headers = dict(fault.headers)
    if fault.html:
        return page(fault.status, headers)
    if fault.body is not None:
        looks_html = fault.body.lstrip().startswith("<")
        content_type = fault.content_type if fault.content_type is not None else HTML if looks_html else JSON
        return Reply(fault.status, fault.body.encode(), content_type, headers)
    type, message = USUAL.get(fault.status, ("error", f"HTTP {fault.status}."))
    return error(fault.status, fault.type or type, fault.message or message, headers)
