"""What each argument of the constructor may be, and what the environment adds."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiopplx import ConfigError, JournalOptions, NetworkOptions, RetryPolicy, Session
from aiopplx._config import BASE_URL, Settings, make_settings
from aiopplx._core.assembly import LOCK_SECONDS, open_store
from aiopplx._http.secret import Secret
from aiopplx.journal import JournalLocked, MemoryJournal
from aiopplx.testing import Clock, JumpingClock

KEY = "config-test-key-0123456789"
NOTHING: dict[str, Any] = {
    "api_key": Secret(KEY),
    "base_url": None,
    "api": None,
    "rpm": None,
    "max_in_flight": 1000,
    "timeout": 3600.0,
    "max_cost": None,
    "journal": None,
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
        "api_key base_url api rpm max_in_flight timeout max_cost journal poll retry on_event http clock network"
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
        ({"journal": 7}, "journal must be a path, a JournalOptions or an open Journal, not int"),
        ({"journal": JournalOptions(7)}, "journal.path must be a path, not int"),  # type: ignore[arg-type]  # the same
        ({"journal": JournalOptions("a", results="some")}, "journal.results must be one of 'keep'"),  # type: ignore[arg-type]  # the same
        ({"journal": JournalOptions("a", wait=-1.0)}, "journal.wait must be a number of seconds from 0, not -1.0"),
        ({"network": 60.0}, "network must be a NetworkOptions, not float"),
        ({"network": NetworkOptions(max_response_bytes=0)}, "network.max_response_bytes must be a whole number"),
        ({"network": NetworkOptions(connect_seconds=0)}, "network.connect_seconds must be a number above 0"),
        ({"network": NetworkOptions(poll_seconds=-1)}, "network.poll_seconds must be a number above 0"),
        ({"base_url": "http://example.org"}, r"network=NetworkOptions\(allow_insecure=True\)"),
        ({"base_url": "example.org"}, "base_url must look like"),
    ],
)
def test_misspelt_argument_value_is_refused_by_name(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(**words)
    with pytest.raises(ConfigError, match=said):
        Session(KEY, **words)


def test_insecure_address_is_accepted_where_allowed() -> None:
    network = NetworkOptions(allow_insecure=True)
    assert settings(base_url="http://example.org/", network=network).base_url == "http://example.org"


# --- a journal that another session has open -------------------------------------------------------------------------


async def test_locked_journal_is_refused_at_once(tmp_path: Path) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError

    held = await open_store(settings(journal=tmp_path / "run.db"))
    with pytest.raises(JournalLocked):
        await open_store(settings(journal=tmp_path / "run.db"), sleep=never)
    await held.close()


async def test_locked_journal_is_waited_for_until_it_is_free(tmp_path: Path) -> None:
    options = JournalOptions(tmp_path / "run.db", wait=60.0)
    was_refused, is_closed, naps = asyncio.Event(), asyncio.Event(), list[float]()

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        was_refused.set()
        await is_closed.wait()

    async with Session(KEY, journal=options):
        second = asyncio.create_task(open_store(settings(journal=options), sleep=nap))
        await was_refused.wait()
        assert not second.done()
    is_closed.set()
    opened = await second
    assert naps == [LOCK_SECONDS]
    await opened.close()


async def test_locked_journal_is_waited_for_only_as_asked(tmp_path: Path) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    async with Session(KEY, journal=tmp_path / "run.db"):
        with pytest.raises(JournalLocked):
            await open_store(settings(journal=JournalOptions(tmp_path / "run.db", wait=2.0)), sleep=nap)
    assert sum(naps) == pytest.approx(2.0)
