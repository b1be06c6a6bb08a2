"""No command shows the password of a journal's URL, whatever comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from _postgres import Server
from _shell import KEY, run_at

from aiopplx import PollPolicy, Session
from aiopplx.__main__ import main
from aiopplx.cli._exits import UsageError
from aiopplx.cli._journals import place_of, typed, where_its_password_is
from aiopplx.cli._options import Connection, JournalOptions, without_password
from aiopplx.emulator import Emulator, faults

SECRET = "hunter2"
NOWHERE = f"postgresql://app:{SECRET}@127.0.0.1:1/app"
"""Nothing listens at this port."""


@pytest.fixture(autouse=True)
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERPLEXITY_API_KEY", "k" * 20)
    monkeypatch.setenv("PERPLEXITY_BASE_URL", "http://127.0.0.1:1")
    file = tmp_path / "q.csv"
    file.write_text("question\nWhy?\nHow?\n")
    return file


@pytest.mark.parametrize(
    "words",
    [
        ("run", "q.csv", "--yes", "--journal", NOWHERE),
        ("run", "q.csv", "--dry-run", "--json", f"--journal={NOWHERE}"),
        ("run", "q.csv", "--emulate", "--journal", NOWHERE, "-o", "a.csv"),
        ("run", "q.csv", "--yes", "--journal", f"{NOWHERE}?passwort={SECRET}"),
        ("run", "q.csv", "--dry-run", "--json", "--question", "city", "--journal", NOWHERE),
        ("run", "q.csv", "--journal", NOWHERE, "--without-log"),
        ("run", NOWHERE),
        ("run", NOWHERE, "--dry-run", "--json"),
        ("run", "q.csv", "-o", NOWHERE),
        ("run", "q.csv", "-o", f"{NOWHERE}.pdf"),
        ("status", NOWHERE),
        ("status", NOWHERE, "--running", "--json"),
        ("status", "--journal", NOWHERE),
        ("status", f"--journal={NOWHERE}"),
        ("status", "q.csv.journal.db", NOWHERE),
        ("watch", NOWHERE),
        ("cost", NOWHERE, "--by", NOWHERE),
        ("cost", NOWHERE, "--json"),
        ("cost", NOWHERE, "--recount"),
        ("export", NOWHERE),
        ("export", "q.csv.journal.db", "-o", NOWHERE),
        ("review", NOWHERE),
        ("review", NOWHERE, "--drop", "0123456789"),
        ("adopt", NOWHERE, "some-id"),
        ("journal", "migrate", NOWHERE),
        ("doctor", "--emulate", "--journal", NOWHERE),
        (NOWHERE,),
    ],
    ids=lambda words: " ".join(words).replace(NOWHERE, "URL")[:60],
)
def test_no_command_shows_the_password_of_a_database_away(
    words: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*words]) != 0
    out, err = capfd.readouterr()
    assert out + err
    assert SECRET not in out + err


def test_commands_to_copy_say_where_the_password_comes_from() -> None:
    place = place_of(JournalOptions(journal=without_password(f"{NOWHERE}?schema=s")), "q.csv", (), Connection())
    assert place is not None
    assert typed(place) == '"postgresql://app@127.0.0.1:1/app?schema=s"'
    assert "PGPASSWORD" in where_its_password_is(place)
    for other in ("q.csv.journal.db", without_password("postgresql://app@127.0.0.1/app")):
        assert (typed(other).strip('"'), where_its_password_is(other)) == (other, "")


def test_url_of_a_database_is_no_file_of_questions() -> None:
    with pytest.raises(UsageError, match="--journal takes that"):
        place_of(JournalOptions(), without_password(NOWHERE), (), Connection())


@pytest.mark.slow
async def test_no_command_shows_the_password_of_a_database_there(postgres: Server, questions: Path) -> None:
    url = postgres.url().replace("postgresql:///", f"postgresql://postgres:{SECRET}@/").replace("&user=postgres", "")
    shown = str(without_password(url))
    said: list[str] = []
    async with Emulator(duration=0.0, answer_chars=100) as server:

        async def told(*words: str) -> str:
            done = await run_at(server, *words)
            said.append(f"{words}\n{done.stdout}{done.stderr}")
            return done.stdout + done.stderr

        whole = ("run", "q.csv", "--journal", url, "--yes", "--poll", "0.2")
        assert "2 done" in await told(*whole)
        await anyio.Path(questions).write_text("question\nWhy?\nHow?\nWhen?\n")
        # The price is that of the one row which is not paid yet, by the costs that the journal has.
        assert f"2 finished in {shown}; the other 1: " in await told(*whole, "--dry-run")
        found = json.loads((await told(*whole, "--dry-run", "--json")).partition("\n")[0])
        assert (found["estimate"]["finished"], found["estimate"]["count"]) == (2, 1)
        assert found["journal"] == shown
        server.faults.add("submit", faults.Drop(after_accept=True))
        assert f'aiopplx review "{shown}"' in await told(*whole, "--on-doubt", "hold")
        assert "PGPASSWORD" in said[-1]
        assert f'aiopplx review "{shown}" --drop KEY' in await told("review", url)
        assert "PGPASSWORD" in said[-1]
        server.faults.clear()
        for words in (
            ("status", url, "--json"),
            ("status", url, "--running"),
            ("watch", url),
            ("cost", url, "--recount"),
            ("export", url, "-o", "exported.csv"),
            ("review", url, "--drop", "0123456789"),
            ("adopt", url, "an-id"),
            ("journal", "migrate", url),
            ("doctor", "--journal", url),
        ):
            await told(*words)
        async with Session(
            api_key=KEY, base_url=server.url, journal=url, api="sonar", poll=PollPolicy.fixed(3600.0)
        ) as session:
            await session.submit("Elsewhere?", tag="1")
        await anyio.Path(questions).write_text("question\nWhy?\n")
        assert f'aiopplx adopt "{shown}" ' in await told(*whole)
    assert [words for words in said if SECRET in words.partition("\n")[2]] == []
