"""`aiopplx doctor`: which key and server are set, which APIs answer, and whether a journal is sound.

It makes only requests that need no job, and are therefore free: a page of the list, or a poll of a job that cannot
exist. `--probe` is the exception. This module knows nothing of files of questions.
"""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aiopplx._text.amounts import many
from aiopplx.apis import ApiName, KnownApi, known_apis
from aiopplx.cli._connect import Connected, retry_policy
from aiopplx.cli._exits import ACCOUNT, DONE, FAILED, LATER, USAGE, UsageError, code_until_signal, exit_code, told
from aiopplx.cli._journals import every
from aiopplx.cli._options import Connection
from aiopplx.cli._status import standing
from aiopplx.cli._text import clock, one_line, print_out
from aiopplx.journal import JournalReader, ResultDamaged, open_reader

if TYPE_CHECKING:
    from aiopplx import AiopplxError, Job, Session

KEYS = ("PERPLEXITY_API_KEY", "PPLX_API_KEY")

SERVICE = "https://api.perplexity.ai"
"""The default server of a session; a test checks that they are the same."""

AUTO = "auto"
"""What `--api` says by default: the first API that answers, of those that the library goes through by itself."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CAS = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""OpenSSL reads these itself."""
CAS_BY_SWITCH = ("REQUESTS_CA_BUNDLE",)
"""Read with `--proxy env`, unless one of the others is set."""
CAS_OF_OTHERS = ("CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")

SKEWED = 10.0
"""Seconds by which the clock may be off before it is told: a date has whole seconds, and an exchange takes some."""

ANSWER_TIMEOUT = 20.0
"""Seconds for the check of one API."""


async def doctor(connection: Connection, *, journal: str | None, probe: bool, yes: bool) -> int:
    """Run all checks and print what they found; 0 if an API answers, and the journal (if named) is sound.

    Raises:
        UsageError: options that do not go together, or a probe that was not agreed to.
    """
    connection.check()
    if yes and not probe:
        raise UsageError("--yes agrees to --probe: give both, or neither")
    return await code_until_signal(lambda: _Checks(connection).run(journal, probe=probe, yes=yes))


class _Checks:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answers: dict[str, bool] = {}
        self._codes: list[int] = []
        self._limits: dict[str, int] = {}
        self._skew: float | None = None

    async def run(self, journal: str | None, *, probe: bool, yes: bool) -> int:
        _report("key", _key(self._connection))
        _report("base url", _base_url(self._connection))
        for what, problem in _problems(self._connection):
            self._codes.append(exit_code(problem))
            _report(what, told(problem))
        _report("network", _network(self._connection))
        asked_for = self._connection.api or os.environ.get("AIOPPLX_API") or AUTO
        apis: list[tuple[KnownApi, ApiName]] = [(api, name_to_check(api, asked_for)) for api in known_apis()]
        for api, name in apis if not self._codes else ():
            await self._ask(api, name)
        may_be_used = [name for api, name in apis if asked_for == name or (asked_for == AUTO and api.is_in_auto)]
        used = next((name for name in may_be_used if self._answers.get(name)), None)
        _report("a run", f"asked for {asked_for}, would use {used}" if used else f"asked for {asked_for}, would fail")
        _report("limits", _limits(self._limits))
        _report("clock", _clock(self._skew))
        health = _journal(journal)
        if probe:
            for api, name in apis:
                if api.has_idempotency:
                    await self._probe(api, name, yes=yes)
        return health or (DONE if used else max(self._codes, default=FAILED))

    async def _ask(self, api: KnownApi, name: ApiName) -> None:
        from aiopplx import AiopplxError, EndpointRetired

        try:
            with anyio.fail_after(ANSWER_TIMEOUT):
                async with Connected(self._connection, api=name) as session:
                    try:
                        said = await (_latest_job(session) if api.has_list else _poll_unknown_job(session, api))
                    finally:
                        self._skew = session.clock_skew if session.clock_skew is not None else self._skew
                    self._limits.update(session.limits)
        except TimeoutError:
            self._codes.append(LATER)
            _report(name, f"no answer within {ANSWER_TIMEOUT:.0f} seconds")
        except EndpointRetired as error:
            self._codes.append(ACCOUNT)
            _report(name, f"retired for this key ({error.type})")
        except AiopplxError as error:
            self._codes.append(exit_code(error))
            _report(name, told(error))
        else:
            self._answers[name] = True
            _report(name, said)

    async def _probe(self, api: KnownApi, name: ApiName, *, yes: bool) -> None:
        if not self._answers.get(name):
            _report("probe", f"not made: {name} does not answer, and the probe is made there only")
            return
        _report(
            "probe", f"submits one cheap job to {name} twice under one idempotency key: it may be billed, even twice"
        )
        if not yes and not await _agreed():
            raise UsageError("nothing was submitted; --probe --yes agrees to the bill")
        # With `hold` nothing is sent again: a refusal of the second submission is the answer.
        async with Connected(self._connection, api=name, retry=retry_policy("hold")) as session:
            key = uuid.uuid4().hex
            first = await session.submit(api.cheapest, idempotency_key=key)
            _report("probe", f"first: job {one_line(first.id)}")
            _report("probe", await _repeated(session, api, key, first))


def name_to_check(api: KnownApi, asked_for: str) -> ApiName:
    """What to give as `--api` to check an API: its first name, or the one asked for, which may mean another path."""
    for name in api.names:
        if str(name) == asked_for:
            return name
    return api.names[0]


async def _latest_job(session: Session) -> str:
    found = await session.list(limit=1)
    return f"answers; latest job {one_line(found[0].id)}" if found else "answers; no jobs"


async def _poll_unknown_job(session: Session, api: KnownApi) -> str:
    from aiopplx import APIError, NotFound

    try:
        await session.get(api.unknown_id)
    except NotFound:
        pass
    except APIError as error:
        if error.status != 400:
            raise
    return "answers"


async def _repeated(session: Session, api: KnownApi, key: str, first: Job) -> str:
    from aiopplx import AiopplxError

    try:
        again = await session.submit(api.cheapest, idempotency_key=key)
    except AiopplxError as error:
        return f"a repeated key is refused: {told(error)}"
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
    found = {name: os.environ[name] for name in KEYS if os.environ.get(name)}
    if not found:
        return f"none: set {KEYS[0]}, or give --api-key-file FILE"
    return "; ".join(f"{name}, {_end_of(key.strip())}{_blanks_around(key)}" for name, key in found.items())


def _blanks_around(key: str) -> str:
    return ", with blanks or a line end around it that are not sent" if key != key.strip() else ""


def _problems(connection: Connection) -> Iterator[tuple[str, AiopplxError]]:
    """What is wrong with the key, the address and the proxy as they stand, each by itself; nothing is sent."""
    from aiopplx import ConfigError, Session

    if connection.emulate:
        return
    try:
        Session(connection.key(), base_url=SERVICE, api=AUTO)
    except ConfigError as error:
        yield "key", error
    try:
        Session("any-key", base_url=connection.base_url, api=AUTO)
    except ConfigError as error:
        yield "base url", error
        return
    try:
        _ = _session_to(connection).proxy
    except ConfigError as error:
        yield "proxy", error


def _session_to(connection: Connection) -> Session:
    """A session as the options typed make it, whatever the key is; nothing is sent. Raises `ConfigError`."""
    from aiopplx import Session

    return Session("any-key", base_url=connection.base_url, api=AUTO, network=connection.network())


def _network(connection: Connection) -> str:
    """The way to the network: the proxy, and which variables of the environment that name one, or certificates, count.

    By name: their values may hold a password.
    """
    from aiopplx import ConfigError

    if connection.emulate:
        return "not needed by the emulator"
    try:
        session = _session_to(connection)
        proxy, scheme = session.proxy, session.base_url.partition(":")[0].upper()
    except ConfigError:
        return "not known: see below"
    names = {name.upper(): name for name in os.environ if os.environ[name]}
    used = [name for name in CAS if name in names]
    if connection.proxy == "env":
        if proxy is not None:
            used.insert(0, f"{scheme}_PROXY" if f"{scheme}_PROXY" in names else "ALL_PROXY")
        used += ["NO_PROXY"] if "NO_PROXY" in names else []
        used += [name for name in CAS_BY_SWITCH if name in names and not set(CAS) & names.keys()]
    known = (*PROXIES, *CAS, *CAS_BY_SWITCH, *CAS_OF_OTHERS)
    unused = [name for name in known if name in names and name not in used]
    said = [f"through {proxy}" if proxy is not None else "directly"]
    for group, how in ((used, "used"), (unused, "not used")):
        said += [f"{', '.join(names[name] for name in group)} set, and {how}"] if group else []
    return "; ".join(said)


def _clock(skew: float | None) -> str:
    if skew is None:
        return "not compared: no answer had a date"
    if abs(skew) < SKEWED:
        return f"within {SKEWED:.0f} seconds of the server's"
    way = "ahead of" if skew > 0 else "behind"
    return f"{clock(abs(skew))} {way} the server's: set it, or ages of jobs and certificates are judged wrongly"


def _end_of(key: str) -> str:
    # Four characters would disclose much of a short word, and no key of the service is so short.
    return f"ends in {key[-4:]}" if len(key) >= 16 else f"of {many(len(key), 'character')}"


def _limits(said: dict[str, int]) -> str:
    if "limit" not in said:
        return "not stated in the answers to these free requests; a run learns its pace from refusals, or give --rpm"
    remaining = f", {said['remaining']} left at the moment" if "remaining" in said else ""
    return f"{said['limit']} requests a minute for this key{remaining}"


def _base_url(connection: Connection) -> str:
    if connection.emulate:
        return "the built-in emulator"
    if connection.base_url:
        return _without_secrets(connection.base_url)
    said = os.environ.get("PERPLEXITY_BASE_URL")
    return f"{_without_secrets(said)} (PERPLEXITY_BASE_URL)" if said else f"{SERVICE} (default)"


def _without_secrets(url: str) -> str:
    """An address without what may be secret in it, as reports are pasted elsewhere: a user, a query, a fragment."""
    return one_line(re.sub(r"[?#].*", "?…", re.sub(r"[^/]*@", "…@", url), flags=re.DOTALL))


def _journal(place: str | None) -> int:
    """Report on a journal; 0 if it is sound. Every stored result is read, which verifies its checksum."""
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
        _report("journal", told(error))
        return USAGE
    _report("journal", f"{found.numbers}; begun with version {facts['made_by']}, opened {facts['openings']} times")
    _report("journal", f"of {one_line(str(found.base_url)) or 'no server yet'}; {found.by_whom}")
    if found.writer is None and not facts["clean"]:
        _report("journal", "its last run was interrupted; the next one resumes it")
    _report("journal", f"{many(stored, 'result')} kept, {damaged:,} damaged")
    return FAILED if damaged else DONE


def _can_be_read(journal: JournalReader, pk: int) -> bool:
    try:
        journal.result(pk)
    except ResultDamaged:
        return False
    return True


def _report(what: str, said: str) -> None:
    print_out(f"{what:<9} {one_line(said, 2000)}\n")
