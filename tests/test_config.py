"""What each argument of the constructor may be, and what the environment adds."""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _postgres import Server

from aiopplx import ConfigError, Event, EventKind, JournalOptions, NetworkOptions, PollPolicy, RetryPolicy, Session
from aiopplx._config import BASE_URL, Settings, make_settings
from aiopplx._core.store.opening import LOCK_SECONDS, open_store
from aiopplx._events import Emitter
from aiopplx._http.secret import Secret
from aiopplx.journal import JournalAway, JournalLocked, MemoryJournal
from aiopplx.testing import Clock, JumpingClock

KEY = "config-test-key-0123456789"
NOTHING: dict[str, Any] = {
    "api_key": Secret(KEY),
    "base_url": None,
    "api": None,
    "rpm": None,
    "tier": None,
    "max_in_flight": 1000,
    "timeout": 3600.0,
    "max_cost": None,
    "journal": None,
    "shared": None,
    "poll": None,
    "retry": None,
    "http": None,
    "clock": None,
    "network": None,
}


def settings(**words: Any) -> Settings:
    return make_settings(**{**NOTHING, **words})


# --- what is given, and what is not ----------------------------------------------------------------------------------


def test_session_has_these_parameters_in_this_order() -> None:
    words = list(inspect.signature(Session).parameters)
    assert " ".join(words) == (
        "api_key base_url api rpm tier max_in_flight timeout max_cost journal shared poll retry on_event http clock"
        " network unknown"
    )


def test_nothing_but_a_key_is_needed() -> None:
    found = settings()
    assert (found.base_url, found.api.name, found.journal) == (BASE_URL, "sonar", None)
    assert (found.retry, found.network) == (RetryPolicy(), NetworkOptions())
    assert type(found.clock) is Clock
    assert KEY not in repr(found)


def test_settings_need_no_http_library() -> None:
    program = "import sys, aiopplx._config; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_path_alone_is_a_journal_with_default_options() -> None:
    assert settings(journal="run.db").journal == JournalOptions("run.db")
    assert settings(journal=Path("run.db")).journal == JournalOptions(Path("run.db"))
    journal = MemoryJournal(now=Clock().wall)
    assert settings(journal=journal).journal is journal


def test_clock_is_the_one_that_was_given() -> None:
    clock = JumpingClock()
    assert settings(clock=clock).clock is clock


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"rpm": 0}, "rpm must be a number above 0, not 0"),
        ({"rpm": True}, "rpm must be a number above 0"),
        ({"timeout": "60"}, "timeout must be a number above 0, not '60'"),
        ({"max_in_flight": 0}, "max_in_flight must be a whole number from 1"),
        ({"max_cost": float("nan")}, "max_cost must be a number above 0"),
        ({"api": "gopher"}, "api must be one of auto, sonar"),
        ({"poll": 10}, "PollPolicy.fixed"),
        ({"http": 7}, "http must be an aiohttp.ClientSession, not int"),
        ({"retry": 3}, "retry must be a RetryPolicy, not int"),
        ({"clock": 1000.0}, "clock must be a clock of aiopplx.testing, not float"),
        ({"journal": 7}, "journal must be a path, a URL, a JournalOptions or an open Journal, not int"),
        ({"journal": JournalOptions(7)}, "journal.path must be a path, not int"),  # type: ignore[arg-type]  # the same
        ({"journal": JournalOptions("a", results="some")}, "journal.results must be one of 'keep'"),  # type: ignore[arg-type]  # the same
        ({"journal": JournalOptions("a", wait=-1.0)}, "journal.wait must be a number of seconds from 0, not -1.0"),
        ({"journal": JournalOptions("a", run=" ")}, "journal.run must be a text that is not empty"),
        ({"network": 60.0}, "network must be a NetworkOptions, not float"),
        ({"network": NetworkOptions(max_response_bytes=0)}, "network.max_response_bytes must be a whole number"),
        ({"network": NetworkOptions(connect_seconds=0)}, "network.connect_seconds must be a number above 0"),
        ({"network": NetworkOptions(poll_seconds=-1)}, "network.poll_seconds must be a number above 0"),
        ({"base_url": "http://example.org"}, r"network=NetworkOptions\(allow_insecure=True\)"),
        ({"base_url": "example.org"}, "base_url has no scheme: write https://example.org"),
    ],
)
def test_misspelt_argument_value_is_refused_by_name(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(**words)
    with pytest.raises(ConfigError, match=said):
        Session(KEY, **words)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("proxy", "proxy is a field of NetworkOptions: Session(network=NetworkOptions(proxy=...))"),
        ("trust_env", "trust_env is a field of NetworkOptions: Session(network=NetworkOptions(trust_env=...))"),
        ("run", 'run is a field of JournalOptions: Session(journal=JournalOptions("research.db", run=...))'),
        ("call_seconds", "call_seconds is a field of RetryPolicy: Session(retry=RetryPolicy(call_seconds=...))"),
        ("max_inflight", "max_inflight is not an argument of Session: did you mean max_in_flight?"),
        ("key", "key is not an argument of Session: did you mean api_key?"),
        ("question", "question is not an argument of Session"),
    ],
)
@pytest.mark.parametrize("value", [7, "http://user:a-password@proxy.example:3128"])
def test_unknown_argument_is_refused_with_its_place(name: str, said: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Session(KEY, **{name: value})
    assert (str(refused.value), refused.value.argument) == (said, name)
    assert refused.value.__traceback__ is not None
    frame = refused.value.__traceback__.tb_next
    assert frame is not None
    assert "a-password" not in repr(frame.tb_frame.f_locals)


async def awaited(*given: Any) -> None: ...


class Awaited:
    async def __call__(self, *given: Any) -> None: ...


@pytest.mark.parametrize("hook", [awaited, Awaited(), Awaited().__call__, functools.partial(awaited)])
@pytest.mark.parametrize("place", ["on_event", "poll", "poll.rule"])
def test_async_function_that_nobody_awaits_is_refused(place: str, hook: Any) -> None:
    given = {"poll": PollPolicy.by(hook)} if place == "poll.rule" else {place: hook}
    with pytest.raises(ConfigError, match="not an async function") as refused:
        Session(KEY, **given)
    assert refused.value.argument == place


@pytest.mark.parametrize("name", ["api", "rpm", "tier", "timeout", "max_cost", "max_in_flight", "poll", "on_event"])
@pytest.mark.parametrize("key", ["pplx-abc123", "abcd1234efgh5678ijkl9012"])
def test_key_in_place_of_another_argument_is_not_repeated(name: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Session(KEY, **{name: key})
    assert refused.value.argument == name
    assert key not in str(refused.value)


# --- keys and addresses as people paste them --------------------------------------------------------------------------

SECRET = "abcd1234efgh5678ijkl9012"
WRONG_KEYS = [
    ("", "is empty"),
    ("  \n", "is empty"),
    (f'"{SECRET}"', "quotation mark"),
    (f"'{SECRET}'", "quotation mark"),
    (f"\u201c{SECRET}\u201d", "quotation mark"),
    (f"{SECRET} {SECRET}", "one key, on one line"),
    (f"{SECRET},{SECRET}", "one key, on one line"),
    (f"{SECRET};{SECRET}", "one key, on one line"),
    (f"{SECRET}\n{SECRET}", "one key, on one line"),
    (f"{SECRET}\r{SECRET}", "one key, on one line"),
    ("<your key>", "is a placeholder"),
    ("YOUR_API_KEY", "is a placeholder"),
    ("your-key", "is a placeholder"),
    ("pplx-xxxxxxxx", "is a placeholder"),
    ("pplx-...", "is a placeholder"),
    ("pplx-********", "is a placeholder"),
    ("None", "is a placeholder"),
    ("changeme", "is a placeholder"),
    (f"Bearer {SECRET}", "word Bearer"),
    (f"Authorization: Bearer {SECRET}", "word Bearer"),
    (f"PERPLEXITY_API_KEY={SECRET}", "name of a variable"),
    (f"export PERPLEXITY_API_KEY={SECRET}", "name of a variable"),
    ("$PERPLEXITY_API_KEY", "nothing has replaced"),
    ("${{ secrets.KEY }}", "nothing has replaced"),
    ("%PERPLEXITY_API_KEY%", "nothing has replaced"),
    (f"{SECRET}\u2013x", "non-ASCII"),
    (f"{SECRET}\x07x", "control"),
    (f"{SECRET}\u200b", "non-ASCII"),
    (b"x", "must be text, not bytes"),
    (7, "must be text, not int"),
]


@pytest.mark.parametrize(("key", "said"), WRONG_KEYS)
def test_what_is_no_key_is_refused_by_name(key: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        settings(api_key=Secret(key))
    assert refused.value.argument == "api_key"
    assert SECRET not in str(refused.value)
    if isinstance(key, str) and key:
        monkeypatch.delenv("PPLX_API_KEY", raising=False)
        monkeypatch.setenv("PERPLEXITY_API_KEY", key)
        with pytest.raises(ConfigError, match=f"PERPLEXITY_API_KEY .*{said}"):
            settings(api_key=None)


@pytest.mark.parametrize(
    "key", [SECRET, f" {SECRET}\n", "any-key", "test", "emulated", "a.b_c~d+e/f==", "user:pass", "a=b", "pplx-exxon"]
)
def test_key_of_any_usual_form_is_taken(key: str) -> None:
    assert settings(api_key=Secret(key)).key.reveal() == key.strip()


WRONG_ADDRESSES = [
    ("", "must look like"),
    ("api.perplexity.ai", "has no scheme: write https://api.perplexity.ai"),
    ("localhost:8080", "has no scheme: write http://localhost:8080$"),
    ("api.perplexity.ai/v1/responses", "has no scheme: write https://api.perplexity.ai$"),
    ("//api.perplexity.ai", "must look like"),
    ("ftp://api.perplexity.ai", "must look like"),
    ("https://", "must look like"),
    ('"https://api.perplexity.ai"', "quotation mark"),
    ("'https://api.perplexity.ai/v1'", "quotation mark"),
    ("\u201chttps://api.perplexity.ai\u201d", "quotation mark"),
    ("https://api.perplexity.ai'", "quotation mark"),
    ("https://api.perplexity.ai and more", "must look like"),
    ("https://user:secret@host/pplx", "has a user in it: write https://host/pplx$"),
    ("https://:secret@host:8443/v1", "has a user in it: write https://host:8443$"),
    ("https://host?", "has a query in it: write https://host$"),
    ("https://host/?key=secret", "has a query in it: write https://host$"),
    ("https://host/v1/models?a=b", "has a query in it: write https://host$"),
    ("https://host/#a", "has a fragment in it: write https://host$"),
    ("https://host/pplx#", "has a fragment in it: write https://host/pplx$"),
    ("https://user:secret@host/a?b=secret#c", "has a fragment in it: write https://host/a$"),
    ("https://www.perplexity.ai", "address of the website; the API is at https://api.perplexity.ai"),
    ("https://perplexity.ai/", "address of the website"),
    ("https://docs.perplexity.ai/api-reference", "address of the website"),
    *(
        (f"https://host{prefix}{path}{end}", f"ends in .*: write https://host{prefix}$")
        for prefix in ("", "/gateway")
        for path in (
            "/v1",
            "/V1/",
            "/v1/async",
            "/models",
            "/v1/models",
            "/v1/models/sonar-2",
            "/search",
            "/v1/embeddings",
            "/v1/batches",
            "/v1/files",
            "/completions",
            "/v1/messages",
            "/generate_auth_token",
            "/v1/sonar",
            "/v1/responses/resp_5e673b76-3ae9-4a96-abd8-46a85b8108df",
            "/v1/responses/resp_1/cancel",
            "/v1/agent/{response_id}/files",
            "/chat/completions",
            "/v1/chat/completions",
            "/async/chat/completions",
            "/v1/async/chat/completions",
            "/v1/async/sonar",
            "/responses",
            "/v1/responses",
            "/v1/agent",
            "/async/chat/completions/2c387cce-a2a3-4fd6-8757-b77602e7e87c",
        )
        for end in ("", "/")
    ),
    (b"https://host", "must be text, not bytes"),
    (7, "must be text, not int"),
]


@pytest.mark.parametrize(("address", "said"), WRONG_ADDRESSES)
def test_what_is_no_base_url_is_refused_by_name(address: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        settings(base_url=address)
    assert refused.value.argument == "base_url"
    assert "secret" not in str(refused.value)
    if isinstance(address, str) and address:
        monkeypatch.setenv("PERPLEXITY_BASE_URL", address)
        with pytest.raises(ConfigError, match=r"^PERPLEXITY_BASE_URL "):
            settings()


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("https://api.perplexity.ai/", "https://api.perplexity.ai"),
        (" HTTPS://API.perplexity.ai\n", "https://api.perplexity.ai"),
        ("https://host/pplx//", "https://host/pplx"),
        ("https://host/v1beta", "https://host/v1beta"),
        ("https://host/agents", "https://host/agents"),
        ("https://host/agent/pplx", "https://host/agent/pplx"),
        ("https://host/v1/pplx", "https://host/v1/pplx"),
        ("https://host/search-api/a", "https://host/search-api/a"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_base_url_of_any_usual_form_is_taken(address: str, meant: str) -> None:
    assert settings(base_url=address).base_url == meant


def test_empty_variable_of_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERPLEXITY_BASE_URL", "AIOPPLX_API", "PPLX_API_KEY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PERPLEXITY_API_KEY", KEY)
    found = settings(api_key=None)
    assert (found.base_url, found.api.name) == (BASE_URL, "sonar")


def test_insecure_address_is_accepted_where_allowed() -> None:
    network = NetworkOptions(allow_insecure=True)
    assert settings(base_url="http://example.org/", network=network).base_url == "http://example.org"


# --- a journal that another session has open -------------------------------------------------------------------------


def untold(unwritten: list[object]) -> None:
    raise AssertionError(unwritten)


async def test_locked_journal_is_refused_at_once(tmp_path: Path) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError

    held = await open_store(settings(journal=tmp_path / "run.db"), Emitter())
    with pytest.raises(JournalLocked):
        await open_store(settings(journal=tmp_path / "run.db"), Emitter(), sleep=never)
    await held.close(untold)


async def test_locked_journal_is_waited_for_until_it_is_free(tmp_path: Path) -> None:
    options = JournalOptions(tmp_path / "run.db", wait=60.0)
    was_refused, is_closed, naps = asyncio.Event(), asyncio.Event(), list[float]()

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        was_refused.set()
        await is_closed.wait()

    async with Session(KEY, journal=options):
        second = asyncio.create_task(open_store(settings(journal=options), Emitter(), sleep=nap))
        await was_refused.wait()
        assert not second.done()
    is_closed.set()
    opened = await second
    assert naps == [LOCK_SECONDS]
    await opened.close(untold)


async def test_database_that_is_away_is_waited_for(postgres: Server, tmp_path: Path) -> None:
    there, naps, told = tmp_path / "there", list[float](), list[Event]()
    url = f"postgresql:///postgres?host={there}&user=postgres&schema=waited"

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        if options.wait > 1.0 and len(naps) == 2:
            there.symlink_to(postgres.folder)  # its socket

    options = JournalOptions(url, wait=0.05)
    with pytest.raises(JournalAway):
        await open_store(settings(journal=options), Emitter(), sleep=nap)
    assert set(naps) == {LOCK_SECONDS}
    options, naps[:] = JournalOptions(url, wait=60.0), []
    emitter = Emitter(told.append)
    opened = await open_store(settings(journal=options), emitter, sleep=nap)
    await opened.close(untold)
    assert naps == [LOCK_SECONDS] * 2
    assert [(event.kind, "waited for, 60 s at most" in event.reason) for event in told] == [(EventKind.WARNING, True)]


async def test_locked_journal_is_waited_for_only_as_asked(tmp_path: Path) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    async with Session(KEY, journal=tmp_path / "run.db"):
        with pytest.raises(JournalLocked):
            await open_store(settings(journal=JournalOptions(tmp_path / "run.db", wait=2.0)), Emitter(), sleep=nap)
    assert sum(naps) == pytest.approx(2.0)
