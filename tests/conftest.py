"""What every test may use: asyncio, an environment without a real key, and a scripted service."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from _postgres import Server, running
from _scripted import Scripted
from hypothesis import settings

# How long an example takes says more about the machine than about us.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERPLEXITY_API_KEY", "PPLX_API_KEY", "PERPLEXITY_BASE_URL", "AIOPPLX_API"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    """A service that does what the test says, with no job at the start."""
    async with Scripted() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of this process's own, started when the first test asks for it."""
    with running() as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a database's server takes long, so it runs where the long runs do: on one Python."""
    for item in items:
        words = getattr(getattr(item, "callspec", None), "params", {}).values()
        if "postgres" in getattr(item, "fixturenames", ()) or any(
            isinstance(word, str) and word == "postgres" for word in words
        ):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """What is loaded now stays, thousands of tests with it: a search for what one of them has left need not see it."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    # A run in the background of a script has SIGINT ignored, and so would every child that is to be interrupted.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
