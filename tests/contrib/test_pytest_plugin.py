"""The plugin in a program's own tests: under anyio's plugin and under pytest-asyncio, in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from _shell import environment

PLUGIN = "aiopplx.contrib.pytest_plugin"
# What a program's tests look like. Each runner has a mark of its own for an async test.
PROGRAM = """
import asyncio
import os
import time
import unittest
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from aiopplx import JobStatus, PollPolicy, Session
from aiopplx.emulator import faults

pytestmark = pytest.mark.pplx_emulator(duration=1800.0)
BEGAN = time.monotonic()


async def test_thirty_minutes_take_no_time(pplx_session, pplx_emulator, pplx_clock):
    began = pplx_clock.now()
    job = await pplx_session.ask("Why did the Vasa sink?")
    assert job.ok
    assert pplx_clock.now() - began >= 1800.0
    assert pplx_emulator.ledger.created == 1
    assert time.monotonic() - BEGAN < 60.0


async def test_each_test_has_its_own_server(pplx_emulator):
    assert pplx_emulator.ledger.created == 0


@pytest.mark.pplx_emulator(answer_chars=100)
@pytest.mark.pplx_fault("submit", "accept_then_drop", times=1)
@pytest.mark.pplx_fault("get", faults.Status(503), times=2)
@pytest.mark.pplx_session(api="agent")
async def test_faults_come_by_name(pplx_session, pplx_emulator):
    job = await pplx_session.ask("Why?")
    assert job.status is JobStatus.IN_DOUBT
    assert pplx_emulator.ledger.created == 1


async def test_program_under_test_finds_the_emulator_in_the_environment(pplx_emulator, pplx_clock):
    async with Session(clock=pplx_clock) as session:
        assert (await session.ask("Why?")).ok
    assert pplx_emulator.ledger.created == 1


@pytest.mark.pplx_emulator(duration=30.0, time_scale=60.0)
async def test_session_is_on_the_time_of_its_emulator(pplx_session, pplx_clock):
    job = await pplx_session.ask("Why?", timeout=1e6)
    assert job.ok
    assert job.seconds >= 30.0
    async with Session(clock=pplx_clock) as session:
        assert (await session.ask("Why?", timeout=1e6)).ok


@pytest.mark.pplx_emulator(duration=30.0, time_scale=60.0)
def test_plain_test_has_a_clock_of_known_speed(pplx_emulator, pplx_clock):
    async def program():
        async with Session(clock=pplx_clock) as session:
            return await session.ask("Why?", timeout=1e6)

    assert asyncio.run(program()).seconds >= 30.0


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers())
async def test_property(pplx_session, number):
    assert (await pplx_session.ask(f"Why {number}?")).ok


class OfUnittest(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def emulated(self, pplx_emulator):
        self.emulator = pplx_emulator

    @pytest.mark.pplx_emulator(duration=0.5)
    async def test_program(self):
        async with Session(poll=PollPolicy.fixed(0.1)) as session:
            self.assertTrue((await session.ask("Why?")).ok)


class TestMarks:
    pytestmark = [pytest.mark.pplx_emulator(duration=60.0), pytest.mark.pplx_session(timeout=30.0)]

    @pytest.mark.pplx_emulator(duration=10.0)
    async def test_mark_of_a_test_beats_that_of_its_class(self, pplx_session):
        assert (await pplx_session.ask("Why?")).ok


@pytest.mark.pplx_fault("submit", "accept_then_drp")
async def test_misspelt_fault(pplx_emulator):
    pass


@pytest.mark.pplx_emulator(duration=0.5)
@pytest.mark.pplx_fault("list", "unavailable")
def test_without_a_loop(pplx_emulator):
    async def program():
        async with Session(poll=PollPolicy.fixed(0.1)) as session:
            return await session.ask("Why?")

    assert asyncio.run(program()).ok
    assert pplx_emulator.ledger.created == 1
    assert [rule.on for rule in pplx_emulator.faults.rules] == ["list"]


def test_session_without_a_loop(pplx_session):
    pass


def test_clock_without_a_loop(pplx_emulator, pplx_clock):
    pass


def test_environment_is_as_before():
    assert "PERPLEXITY_BASE_URL" not in os.environ
"""
RUNNERS = {
    "anyio": (
        ("-p", "no:asyncio"),
        "pytest.mark.anyio",
        "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n",
    ),
    "asyncio": (("-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function"), "pytest.mark.asyncio", ""),
}


def pytest_of(folder: Path, program: str, *words: str) -> str:
    """What pytest says of this program."""
    (folder / "test_program.py").write_text(program, encoding="utf-8")
    named = [] if any(point.value == PLUGIN for point in entry_points(group="pytest11")) else ["-p", PLUGIN]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", *named, *words],
        cwd=folder,
        env=environment(
            PYTEST_ADDOPTS="", PPLX_API_KEY="another-key-of-the-user"
        ),  # those of the run that this test is a part of are not the program's
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("runner", RUNNERS)
def test_programs_own_tests_run_under_either_plugin(runner: str, tmp_path: Path) -> None:
    words, mark, more = RUNNERS[runner]
    marked = re.sub(r"(?m)^( *)async def test", rf"\1@{mark}\n\1async def test", PROGRAM)
    said = pytest_of(tmp_path, marked + more, *words)
    assert "11 passed, 3 errors" in said, said
    assert "there is no fault 'accept_then_drp': is it 'accept_then_drop'?" in said
    assert "pplx_session is for async tests" in said
    assert "no pplx_clock" in said


# A test on a loop that outlives it has the fixtures on that loop too.
WIDER = """
import pytest
pytestmark = {mark}


async def test_one(pplx_session, pplx_emulator):
    assert (await pplx_session.ask("Why?")).ok


async def test_other(pplx_session, pplx_emulator):
    assert (await pplx_session.ask("Why?")).ok
    assert pplx_emulator.ledger.created == 1
"""
LOOPS = {
    "by the mark": ('pytest.mark.asyncio(loop_scope="module")', ()),
    "by the setting": ("pytest.mark.asyncio", ("-o", "asyncio_default_test_loop_scope=session")),
}


@pytest.mark.parametrize("loops", LOOPS)
def test_fixtures_are_on_the_loop_of_their_test(loops: str, tmp_path: Path) -> None:
    mark, words = LOOPS[loops]
    said = pytest_of(tmp_path, WIDER.format(mark=mark), *RUNNERS["asyncio"][0], *words)
    assert "2 passed" in said, said


def test_tests_of_the_page_pass(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    words, _, more = RUNNERS["anyio"]
    # Newer releases of Starlette want the successor of httpx for their own client, and work with httpx.
    theirs = ("-W", "ignore:Using `httpx` with `starlette.testclient`")
    for number, program in enumerate(programs):
        (tmp_path / f"test_page_{number}.py").write_text(program, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(f"import pytest\n{more}", encoding="utf-8")
    said = pytest_of(tmp_path, "", *words, *theirs)
    assert "7 passed" in said, said


def test_plugin_is_installed_with_the_package() -> None:
    found = [point for point in entry_points(group="pytest11") if point.name == "aiopplx"]
    assert [point.value for point in found] == [PLUGIN]
    assert hasattr(found[0].load(), "pplx_emulator")


def test_plugin_costs_no_import_of_the_client() -> None:
    program = f"import sys, {PLUGIN}; print('aiohttp' in sys.modules, 'aiopplx._session' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.split() == ["False", "False"]
