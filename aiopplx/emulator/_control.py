"""The emulator controlled over HTTP, for programs that do not hold the object: `/_control/...`.

Plain JSON in and out; no key is needed. This module knows nothing of sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from aiopplx.emulator._exchange import Asked, Reply, as_json, error
from aiopplx.emulator._ledger import Ledger
from aiopplx.emulator._script import On, Script
from aiopplx.emulator.faults import NAMED, Fault

PREFIX = "/_control/"


class Controlled(Protocol):
    """The emulator's methods that the control paths call."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def faults(self) -> Script: ...
    def reset(self) -> None: ...
    def revoke(self, key: str) -> None: ...
    def retire(self, error_type: str = ..., *, readable: bool = ...) -> None: ...
    def advance(self, seconds: float) -> None: ...


class _NewRule(msgspec.Struct, forbid_unknown_fields=True):
    """`fault` is a name of `faults.NAMED`, or an object with its `fault` tag."""

    on: On
    fault: msgspec.Raw
    times: int | None = None
    rate: float | None = None
    after: int = 0
    match: str | None = None


class _Seconds(msgspec.Struct, forbid_unknown_fields=True):
    seconds: float


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    key: str


class _Type(msgspec.Struct, forbid_unknown_fields=True):
    error_type: str = "chat_completions_not_available"
    readable: bool = False


_DONE = {"ok": True}


def control(emulator: Controlled, asked: Asked) -> Reply:
    """Answers one request under `/_control/`."""
    path = asked.path.removeprefix(PREFIX)
    action = _ACTIONS.get(f"{'GET' if asked.method == 'HEAD' else asked.method} {path}")
    if action is None and (allowed := _allowed(path)):
        return as_json(405, {"detail": "Method Not Allowed"}, {"Allow": ", ".join(allowed)})
    if action is None:
        return error(404, "not_found", f"The control paths are: {', '.join(_ACTIONS)}")
    try:
        return as_json(200, action(emulator, asked.body))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, KeyError) as problem:
        return error(400, "invalid_request", f"{asked.path}: {problem}")


def _allowed(path: str) -> list[str]:
    """The methods of a control path."""
    methods = [action.split()[0] for action in _ACTIONS if action.split()[1] == path]
    return ["GET", "HEAD", *methods[1:]] if methods[:1] == ["GET"] else methods


def _ledger(emulator: Controlled, body: bytes) -> dict[str, Any]:
    ledger = emulator.ledger
    return {
        "created": ledger.created,
        "created_by_api": ledger.created_by_api,
        "billed": round(ledger.billed, 5),
        "created_by_key": ledger.created_by_key,
        "requests": ledger.requests,
        "peak": ledger.peak,
        "jobs": [
            {
                "id": job.id,
                "key": job.key,
                "account": job.account,
                "api": job.api,
                "cost": job.cost,
                "billed": job.billed,
            }
            for job in ledger.jobs
        ],
    }


def _add_fault(emulator: Controlled, body: bytes) -> dict[str, Any]:
    rule = msgspec.json.decode(body, type=_NewRule)
    emulator.faults.add(
        rule.on, _fault(rule.fault), times=rule.times, rate=rule.rate, after=rule.after, match=rule.match
    )
    return {"rules": len(emulator.faults.rules)}


def _fault(said: msgspec.Raw) -> Fault:
    if bytes(said).startswith(b'"'):
        name = msgspec.json.decode(said, type=str)
        if name not in NAMED:
            raise ValueError(f"no fault is named {name!r}; the names are: {', '.join(NAMED)}")
        return NAMED[name]
    fault: Fault = msgspec.json.decode(said, type=Fault)
    return fault


def _rules(emulator: Controlled, body: bytes) -> dict[str, Any]:
    return {
        "rules": [
            {
                "on": rule.on,
                "fault": rule.fault,
                "times": rule.times,
                "rate": rule.rate,
                "seen": rule.seen,
                "hits": rule.hits,
            }
            for rule in emulator.faults.rules
        ]
    }


def _clear(emulator: Controlled, body: bytes) -> dict[str, Any]:
    emulator.faults.clear()
    return _DONE


def _reset(emulator: Controlled, body: bytes) -> dict[str, Any]:
    emulator.reset()
    return _DONE


def _advance(emulator: Controlled, body: bytes) -> dict[str, Any]:
    emulator.advance(msgspec.json.decode(body, type=_Seconds).seconds)
    return _DONE


def _revoke(emulator: Controlled, body: bytes) -> dict[str, Any]:
    emulator.revoke(msgspec.json.decode(body, type=_Key).key)
    return _DONE


def _retire(emulator: Controlled, body: bytes) -> dict[str, Any]:
    said = msgspec.json.decode(body or b"{}", type=_Type)
    emulator.retire(said.error_type, readable=said.readable)
    return _DONE


_ACTIONS: dict[str, Callable[[Controlled, bytes], dict[str, Any]]] = {
    "GET ledger": _ledger,
    "GET faults": _rules,
    "POST faults": _add_fault,
    "DELETE faults": _clear,
    "POST reset": _reset,
    "POST advance": _advance,
    "POST revoke": _revoke,
    "POST retire": _retire,
}
