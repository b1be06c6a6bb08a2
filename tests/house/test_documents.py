"""The programs of README.md and docs/ run as they are printed: each one is saved to a file and started by itself.

They meet a server that is done with a job before it answers the submission, and says so in that answer. The service may
do this too, and nothing of the library is patched: with a job that takes its time, the default poll policy would poll
for the first time after half a minute.

`<!-- a notebook's cell -->` before a block makes it a cell: all cells run in order, in one kernel.
`<!-- with a session -->` before a block lets it run with the names that its reader has (`tests/support/_reader.py`).
`<!-- not run: reason -->` on the line before a Python block leaves it out. The two commands of the README are run by
`.ci/run`, which finds them by the comments before them.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from _kernel import Kernel
from _reader import run_as_read
from aiohttp import web

from aiopplx.cli._app import make_app
from aiopplx.emulator import Emulator

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(?:^<!-- (?P<word>[^\n]+) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
DATABASE = "RESEARCH_DATABASE"
"""Programs that name this variable have a new journal on a PostgreSQL server of the tests' own in it."""
KEPT = ("Authorization", "Content-Type")
REASON = re.compile(r"not run: .{5,}")
COMMAND = re.compile(r"^(?:.* && )?(?:\S*/|python -m )?aiopplx (?P<name>[a-z]+)(?P<rest>[^#\n]*)", re.MULTILINE)


def blocks() -> dict[str, tuple[str, str, str]]:
    """By page and line: (kind, comment before it, text)."""
    found = {}
    for page in PAGES:
        said = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(said):
            line = said.count("\n", 0, match.start("kind")) + 1
            found[f"{page.name}:{line}"] = (match["kind"], match["word"] or "", match["text"])
    return found


BLOCKS = blocks()
CELL = "a notebook's cell"
CELLS = [text for kind, word, text in BLOCKS.values() if kind == "python" and word == CELL]
FRAGMENT = "with a session"
FRAGMENTS = {where: text for where, (kind, word, text) in BLOCKS.items() if kind == "python" and word == FRAGMENT}
PROGRAMS = {where: text for where, (kind, word, text) in BLOCKS.items() if kind == "python" and not word}
SHELL = "".join(text for kind, _, text in BLOCKS.values() if kind == "sh")
COMMANDS = sorted({(match["name"], match["rest"]) for match in COMMAND.finditer(SHELL)})


@asynccontextmanager
async def eager_server() -> AsyncIterator[str]:
    """The emulator behind a door at which every submission is answered with its finished job."""
    async with Emulator(duration=0.0, answer_chars=400) as emulator, aiohttp.ClientSession(emulator.url) as behind:

        async def handle(request: web.BaseRequest) -> web.Response:
            send = {name: request.headers[name] for name in KEPT if name in request.headers}
            asked = await request.read()
            async with behind.request(request.method, request.raw_path, data=asked, headers=send) as told:
                status, body = told.status, await told.json()
            if request.method == "POST" and status == 200:
                async with behind.get(f"{request.path}/{body['id']}", headers=send) as told:
                    body = await told.json()
            return web.json_response(body, status=status)

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def started(*words: str, cwd: Path, **env: str) -> tuple[int, str]:
    """Exit code and all that was said, of a program that meets the eager server."""
    async with eager_server() as url:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        where = {**os.environ, "PERPLEXITY_API_KEY": "test", "PERPLEXITY_BASE_URL": url, "PATH": path, **env}
        program = await asyncio.create_subprocess_exec(
            *words, cwd=cwd, env=where, stdin=asyncio.subprocess.DEVNULL, stdout=-1, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await program.communicate()
        return program.returncode or 0, said.decode()


@pytest.mark.parametrize("where", PROGRAMS)
async def test_python_block_runs_as_it_is_printed(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[where], encoding="utf-8")
    env = {DATABASE: request.getfixturevalue("postgres").url()} if DATABASE in PROGRAMS[where] else {}
    code, said = await started(sys.executable, "-X", "dev", "-W", "error", str(program), cwd=tmp_path, **env)
    assert code == 0, said
    # A job that went wrong is printed, not raised, by most programs; an unraised warning is printed too.
    assert "Error" not in said
    assert "Warning" not in said


@pytest.mark.parametrize("where", FRAGMENTS)
async def test_fragment_runs_with_what_its_reader_has(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERPLEXITY_API_KEY", "any")
    await run_as_read(FRAGMENTS[where], where)


async def test_cells_of_a_notebook_run_in_one_kernel(tmp_path: Path) -> None:
    async with eager_server() as url:
        kernel = await Kernel.started(url, tmp_path)
        for cell in CELLS:
            assert await kernel.run(cell) == "--- done", "".join(kernel.said[-30:])
        await kernel.killed()
    said = "".join(kernel.said)
    assert len(CELLS) > 4
    assert "3 from the journal, $0.00" in said
    assert "Warning" not in said


@pytest.mark.parametrize(("name", "rest"), COMMANDS)
async def test_printed_command_has_the_options_it_shows(name: str, rest: str, tmp_path: Path) -> None:
    code, help = await started(sys.executable, "-m", "aiopplx", name, "--help", cwd=tmp_path)
    assert code == 0, help
    assert [word for word in rest.split() if word.startswith("-") and f"{word} " not in f"{help} "] == []


def test_page_on_tables_names_just_the_options_of_run() -> None:
    """Those about the service and the journal are the subject of other pages."""
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", page))
    elsewhere = {"Service", "Journal"}
    app = make_app()
    options = {
        argument.name: {group.name for group in argument.parameter.group or ()} & elsewhere
        for command in ("run", "export")
        for argument in app[command].assemble_argument_collection()
        if argument.name.startswith("--")
    }
    assert sorted(named - options.keys() - {"--help"}) == []
    assert sorted(name for name, others in options.items() if not others and name not in named) == ["--output"]
    assert "`-o` writes what the name says" in page


@pytest.mark.parametrize(
    ("option", "default"), [("--confirm-above", "10"), ("--timeout", "3,600"), ("--max-in-flight", "1,000")]
)
def test_page_on_tables_has_the_defaults_of_run(option: str, default: str) -> None:
    (row,) = re.findall(
        rf"^\| `{option}[^\n]*", (ROOT / "docs" / "tables.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    (argument,) = (one for one in make_app()["run"].assemble_argument_collection() if one.name == option)
    assert f"({default})" in row
    assert float(default.replace(",", "")) == argument.field_info.default


async def test_first_program_of_the_readme_prints_answers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(next(iter(PROGRAMS.values())), encoding="utf-8")
    code, said = await started(sys.executable, str(program), cwd=tmp_path)
    assert code == 0, said
    assert len(said) > 500, "two answers of some hundred characters each"


def test_readme_has_the_two_commands_that_ci_runs() -> None:
    commands = {word: text for kind, word, text in BLOCKS.values() if kind == "sh" and word.endswith(" command")}
    assert set(commands) == {"run command", "test command"}
    for text in commands.values():
        assert text.startswith("python3 -m venv .venv && .venv/bin/pip install "), "a fresh machine has nothing else"
        assert text.count("\n") == 1, "one line to copy"


def test_unexecuted_block_says_why() -> None:
    odd = {
        where: word
        for where, (kind, word, _) in BLOCKS.items()
        if kind == "python" and word not in ("", CELL, FRAGMENT)
    }
    assert {where: word for where, word in odd.items() if not REASON.match(word)} == {}
    assert len(PROGRAMS) >= len(odd), "most of what is printed runs"
