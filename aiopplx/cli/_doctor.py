"""`aiopplx doctor`: what is set, what answers, and how a journal is. All of it is free but `--probe`.

It asks what has an answer without a job: a page of the list, and a run that cannot exist. This module knows nothing of
files of questions.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aiopplx.cli._connect import Connected, retry_policy
from aiopplx.cli._exits import ACCOUNT, DONE, FAILED, LATER, USAGE, UsageError, code_until_signal, exit_code
from aiopplx.cli._journals import every
from aiopplx.cli._options import Api, Connection
from aiopplx.cli._status import standing
from aiopplx.cli._text import many, one_line, print_out
from aiopplx.journal import JournalReader, ResultDamaged, open_reader

if TYPE_CHECKING:
    from aiopplx import Job, Session

KEYS = ("PERPLEXITY_API_KEY", "PPLX_API_KEY")

SERVICE = "https://api.perplexity.ai"
"""Where a session asks by default; a test holds it to what a session says of itself."""

PATIENCE = 20.0
"""Seconds for one question to the service."""

NO_RUN = "resp_00000000-0000-0000-0000-000000000000"
"""An id that no run has: an API that says so has taken the key."""

PROBE = {"question": "Answer with one word: is water wet?", "model": "sonar"}
"""The cheapest job that there is, about a cent."""


async def doctor(connection: Connection, *, journal: Path | None, probe: bool, yes: bool) -> int:
    """Look at everything and say what is found; 0 if an API answers, and the journal (if named) is sound.

    Raises:
        UsageError: options that do not go together, or a probe that was not agreed to.
    """
    connection.check()
    if yes and not probe:
        raise UsageError("--yes agrees to --probe, which was not asked for")
    return await code_until_signal(lambda: _Visit(connection).make(journal, probe=probe, yes=yes))


class _Visit:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answers: dict[str, bool] = {}
        self._codes: list[int] = []
        self._limits: dict[str, int] = {}

    async def make(self, journal: Path | None, *, probe: bool, yes: bool) -> int:
        _tell("key", _key(self._connection))
        _tell("base url", _base_url(self._connection))
        asked_for = self._connection.api or os.environ.get("AIOPPLX_API") or "auto"
        sonar: Api = "sonar-v1" if asked_for == "sonar-v1" else "sonar"
        agent: Api = "agent-v1" if asked_for == "agent-v1" else "agent"
        await self._ask(sonar, _list)
        await self._ask(agent, _look)
        may_be_used = (sonar, agent) if asked_for == "auto" else (asked_for,)
        used = next((api for api in may_be_used if self._answers.get(api)), None)
        _tell("a run", f"asked for {asked_for}, would use {used}" if used else f"asked for {asked_for}, would fail")
        _tell("limits", _limits(self._limits))
        health = _journal(journal)
        if probe:
            await self._probe(sonar, yes=yes)
        return health or (DONE if used else max(self._codes, default=FAILED))

    async def _ask(self, api: Api, question: Callable[[Session], Awaitable[str]]) -> None:
        from aiopplx import AiopplxError, EndpointRetired

        try:
            with anyio.fail_after(PATIENCE):
                async with Connected(self._connection, api=api) as session:
                    said = await question(session)
                    self._limits.update(session.limits)
        except TimeoutError:
            self._codes.append(LATER)
            _tell(api, f"no answer within {PATIENCE:.0f} seconds")
        except EndpointRetired as error:
            self._codes.append(ACCOUNT)
            _tell(api, f"retired for this key ({error.type})")
        except AiopplxError as error:
            self._codes.append(exit_code(error))
            _tell(api, str(error))
        else:
            self._answers[api] = True
            _tell(api, said)

    async def _probe(self, api: Api, *, yes: bool) -> None:
        if not self._answers.get(api):
            _tell("probe", f"nothing to learn: {api} does not answer, and the Agent API has no idempotency keys")
            return
        _tell("probe", f"submits one cheap job to {api} twice under one idempotency key: it may be billed, twice too")
        if not yes and not await _agreed():
            raise UsageError("nothing was submitted; --probe --yes agrees to the bill")
        # Held: a refusal of the second one is the answer, and is not to be tried again.
        async with Connected(self._connection, api=api, retry=retry_policy("hold")) as session:
            key = uuid.uuid4().hex
            first = await session.submit(PROBE, idempotency_key=key)
            _tell("probe", f"first: job {one_line(first.id)}")
            _tell("probe", await _repeated(session, key, first))


async def _list(session: Session) -> str:
    found = await session.list(limit=1)
    return f"answers; latest job {one_line(found[0].id)}" if found else "answers; no jobs"


async def _look(session: Session) -> str:
    from aiopplx import APIError, NotFound

    try:
        await session.get(NO_RUN)
    except NotFound:
        pass
    except APIError as error:
        if error.status != 400:
            raise
    return "answers"


async def _repeated(session: Session, key: str, first: Job) -> str:
    from aiopplx import AiopplxError

    try:
        again = await session.submit(PROBE, idempotency_key=key)
    except AiopplxError as error:
        return f"a repeated key is refused: {error}"
    if again.id == first.id:
        return "a repeated key gets the same job back: resending is safe"
    return f"a repeated key makes another job ({one_line(again.id)}): use --on-doubt hold"


async def _agreed() -> bool:
    if not sys.stdin.isatty():
        return False
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return answer.strip().lower() in ("y", "yes")


def _key(connection: Connection) -> str:
    if connection.emulate:
        return "none needed by the emulator"
    if connection.api_key_file is not None:
        return f"{connection.api_key_file}, {_end_of(connection.key() or '')}"
    found = {name: os.environ[name].strip() for name in KEYS if os.environ.get(name)}
    if not found:
        return f"none: set {KEYS[0]}, or give --api-key-file FILE"
    return "; ".join(f"{name}, {_end_of(key)}" for name, key in found.items())


def _end_of(key: str) -> str:
    # Of a short word four characters would be half of it, and so short a word is no key of the service.
    return f"ends in {key[-4:]}" if len(key) >= 16 else f"of {many(len(key), 'character')}"


def _limits(said: dict[str, int]) -> str:
    if "limit" not in said:
        return "not told by what is free to ask; a run learns its pace from refusals, or give --rpm"
    left = f", {said['remaining']} left at the moment" if "remaining" in said else ""
    return f"{said['limit']} requests a minute for this key{left}"


def _base_url(connection: Connection) -> str:
    if connection.emulate:
        return "the built-in emulator"
    if connection.base_url:
        return one_line(connection.base_url)
    said = os.environ.get("PERPLEXITY_BASE_URL")
    return f"{one_line(said)} (PERPLEXITY_BASE_URL)" if said else f"{SERVICE} (default)"


def _journal(place: Path | None) -> int:
    """Say how a journal is; 0 if it is sound. Every stored result is read, and its checksum with it."""
    if place is None:
        return DONE
    from aiopplx import JournalError

    try:
        with open_reader(place) as journal:
            found, facts = standing(journal), journal.facts()
            damaged = stored = 0
            for record in every(journal):
                stored += record.has_result
                damaged += record.has_result and not _can_be_read(journal, record.pk)
    except JournalError as error:
        _tell("journal", str(error))
        return USAGE
    _tell("journal", f"{found.numbers}; begun with version {facts['made_by']}, opened {facts['openings']} times")
    _tell("journal", f"of {one_line(str(found.base_url)) or 'no server yet'}; {found.by_whom}")
    if found.writer is None and not facts["clean"]:
        _tell("journal", "its last run was broken off; the next one goes on from there")
    _tell("journal", f"{many(stored, 'result')} kept, {damaged:,} damaged")
    return FAILED if damaged else DONE


def _can_be_read(journal: JournalReader, pk: int) -> bool:
    try:
        journal.result(pk)
    except ResultDamaged:
        return False
    return True


def _tell(what: str, said: str) -> None:
    print_out(f"{what:<9} {one_line(said, 2000)}\n")
