"""Make the pictures of the documents, and those that are only looked at: what a user sees, at the widths that users have.

    python docs/pictures/make.py                       # all, into build/pictures
    python docs/pictures/make.py report terminal       # some
    python docs/pictures/make.py --publish             # and put the new ones in the place of those beside this file

Needs the extras `bench` and `docs`, and Chromium. Those of a notebook need `jupyter-lab` on PATH, with a kernel that can
import aiopplx; without it they are left out, and that is said. Answers come from the emulator, whose prose is invented.
A program run by hand: it knows the library only as a user does, and nothing imports it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import fcntl
import io
import json
import os
import pty
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import msgspec  # noqa: E402
import pyte  # noqa: E402
from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.style import Style  # noqa: E402
from rich.text import Text  # noqa: E402
from _apps import running  # noqa: E402
from _browser import Tab, browser  # noqa: E402
from _shell import KEY, command, environment  # noqa: E402

from aiopplx import Job, RetryPolicy, Session  # noqa: E402
from aiopplx.emulator import Emulator, faults  # noqa: E402
from aiopplx.report import html_report  # noqa: E402

PHONE, DESK, PAPER = 390, 1280, 643
"""CSS pixels across: a phone, a desk, and what two centimetres of margin leave of a sheet of A4."""
ENDS_WITHIN = 120.0
"""Seconds after which a program that should have shown something is taken for stuck."""
QUESTIONS = [
    "Which companies ran commercial heat-pump factories in Europe in 2025, and how large is the market?",
    "Why did the Vasa sink?",
    "How have the costs of offshore wind changed since 2020?",
    "What did Müller & Söhne GmbH announce in 2024?",
    "متى غرقت السفينة فاسا؟",
    "Which methods of removing carbon dioxide from the air were in commercial use in 2025, and what did a tonne cost?",
    "How large is the market for heat pumps in Poland?",
    "Who first measured the speed of light?",
]


class Camera:
    """Takes pictures of pages.

    Args:
        tab: of a browser.
        folder: where pictures go.
    """

    def __init__(self, tab: Tab, folder: Path) -> None:
        self.tab = tab
        self.folder = folder

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        await self.tab.call("Page.navigate", url=url)
        await self.tab.until(
            f"location.href.startsWith({url.partition('?')[0]!r}) && document.readyState == 'complete'"
        )

    async def look(self, width: int, height: int, *, dark: bool = False, paper: bool = False) -> None:
        """Show the page so."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if width == PHONE else 1, mobile=width == PHONE,
        )  # fmt: skip
        await self.tab.call("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])
        await self.tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    async def take(self, name: str, width: int, height: int, *, dark: bool = False, paper: bool = False) -> None:
        """Keep what the page shows at this size, as NAME.png."""
        await self.look(width, height, dark=dark, paper=paper)
        told = await self.tab.call("Page.captureScreenshot", format="png")
        self.keep(name, base64.b64decode(told["data"]))

    async def take_part(self, name: str, width: int, first: str, last: str) -> None:
        """Keep what lies between two elements, as far as `width` goes."""
        box = await self.tab.run(
            f"(a => (b => [a.left, a.top, b.right, b.bottom])({last}.getBoundingClientRect()))"
            f"({first}.getBoundingClientRect())"
        )
        clip = {"x": box[0], "y": box[1], "width": min(width, box[2] - box[0]), "height": box[3] - box[1], "scale": 1}
        told = await self.tab.call("Page.captureScreenshot", format="png", clip=clip)
        self.keep(name, base64.b64decode(told["data"]))

    async def scroll(self, selector: str) -> None:
        """Bring the first of these elements to the top. What lies above gets its true height only on the way."""
        for _ in range(5):
            await self.tab.run(f"document.querySelector({selector!r}).scrollIntoView()")
            await self.tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def keep(self, name: str, png: bytes) -> None:
        """Keep a picture with 256 colours: text needs no more, and it is half of the size."""
        image = Image.open(io.BytesIO(png)).convert("RGB")
        path = self.folder / f"{name}.png"
        image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}  {path.stat().st_size // 1024} KiB")


# --- answers ---------------------------------------------------------------------------------------------------------


class Changed:
    """A response of the emulator with another answer, for what the emulator does not write."""

    def __init__(self, response: Any, answer: Any) -> None:
        self._response = response
        self._answer = answer

    def answer(self) -> Any:
        return self._answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)


def reworded(job: Job, **changes: Any) -> Job:
    response: Any = job.response
    answer = msgspec.structs.replace(response.answer(), **changes)
    return msgspec.structs.replace(job, response=Changed(response, answer))


async def answers() -> list[Job]:
    """Jobs that are done, with columns of their own."""
    rows = [
        {"question": question, "meta": {"region": "Europe", "year": 2020 + at, "analyst": "M. Ångström"}}
        for at, question in enumerate(QUESTIONS)
    ]
    async with Emulator(duration=lambda question: 0.2 + len(question) / 200, answer_chars=5000, think=True) as server:
        async with Session(KEY, base_url=server.url) as session:
            async with session.batch(rows, ordered=True) as jobs:
                done = [job async for job in jobs]
    return [msgspec.structs.replace(job, seconds=150.0 + 31 * at) for at, job in enumerate(done)]


async def mixed() -> list[Job]:
    """Jobs of which most need a look: refused, failed, in doubt, left, cut, and with citations that name nothing."""
    whole = await answers()
    asked = ["refused: " + QUESTIONS[1], "in doubt: " + QUESTIONS[2], QUESTIONS[3], QUESTIONS[6], QUESTIONS[7]]
    async with Emulator(
        duration=lambda question: 3600.0 if question == QUESTIONS[7] else 0.2, failing=lambda q: q == QUESTIONS[6]
    ) as server:
        server.faults.add("submit", faults.Status(400), match=asked[0])
        server.faults.add("submit", faults.Drop(after_accept=True), match=asked[1])
        async with Session(KEY, base_url=server.url, timeout=20.0, retry=RetryPolicy(on_doubt="hold")) as session:
            async with session.batch(asked, ordered=True) as jobs:
                ended = [job async for job in jobs]
    lost = reworded(whole[0], text=whole[0].text.replace("[1]", "[99]", 2).replace("[2]", "[web:41]", 1))
    cut = reworded(whole[1], finish_reason="length")
    bare = reworded(whole[5], sources=[], text=whole[5].text.split("| Year")[0])
    return [lost, *ended, cut, bare]


# --- the report ------------------------------------------------------------------------------------------------------


async def report(camera: Camera) -> None:
    for name, jobs in (("report", await answers()), ("report-mixed", await mixed())):
        page = camera.folder / f"{name}.html"
        parts = html_report(
            jobs, title="Heat pumps and other questions", day="26 November 2026", source="companies.csv"
        )
        page.write_text("".join(parts), encoding="utf-8")
        await camera.open(page.as_uri())
        for dark in (False, True):
            shade = "-dark" if dark else ""
            await camera.take(f"{name}-desk{shade}", DESK, 1300, dark=dark)
            await camera.take(f"{name}-phone{shade}", PHONE, 844, dark=dark)
        await camera.take(f"{name}-paper", PAPER, 1000, paper=True)
        paper = await camera.tab.call("Page.printToPDF", preferCSSPageSize=True, displayHeaderFooter=False)
        (camera.folder / f"{name}.pdf").write_bytes(base64.b64decode(paper["data"]))
        await camera.scroll(".answer")
        await camera.take(f"{name}-answer", DESK, 1300)
        await camera.take(f"{name}-answer-dark", DESK, 1300, dark=True)
        await camera.take(f"{name}-answer-phone", PHONE, 1300)
        await camera.scroll(".sources")
        await camera.take(f"{name}-sources", DESK, 1000)


# --- the terminal ----------------------------------------------------------------------------------------------------

_FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
line-height: {line_height}px; font-variant-east-asian: full-width; }} {styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
<rect width="{width}" height="{height}" rx="8" fill="#1b1d21"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


_TITLE = 28
"""Units that rich leaves above the first line."""


def as_text(screen: pyte.Screen) -> Text:
    """What a terminal shows, without the empty lines at its end."""
    lines = [Text() for _ in range(screen.lines)]
    for row, line in enumerate(lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        for (colour, is_bold), run in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            line.append("".join(cell.data for cell in run), Style(color=colour_of(colour), bold=is_bold))
        line.rstrip()
    while len(lines) > 1 and not lines[-1].plain:
        lines.pop()
    return Text("\n").join(lines)


def colour_of(name: str) -> str | None:
    """A colour as rich calls it."""
    if name in ("default", "brown"):
        return {"brown": "yellow"}.get(name)
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name.replace("bright", "bright_")


async def on_screen(
    words: list[str], columns: int, env: dict[str, str], *, shows: str = "", lines: int = 40
) -> pyte.Screen:
    """Run the command line at a terminal of this width, until it has ended or its screen shows something.

    Args:
        words: of the command.
        columns, lines: of the terminal.
        env: of the process.
        shows: a pattern; "" waits for the end.
    """
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        command(*words), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environment(TERM="xterm-256color", **env),
    )  # fmt: skip
    os.close(theirs)

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says EIO when the last one has closed the terminal
                return
            if not part:
                return
            stream.feed(part)
            if shows and re.search(shows, "\n".join(screen.display)):
                return

    try:
        async with asyncio.timeout(ENDS_WITHIN):
            await asyncio.to_thread(read)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return screen


def companies(folder: Path, count: int) -> Path:
    """A table as people have it."""
    rng = random.Random(1)
    names = [
        "ACME, Inc.",
        "Müller & Söhne",
        "Ångström AB",
        "Vasa Shipping",
        "Kinetic Labs",
        "日本ヒートポンプ",
        "Nord Wind",
    ]
    path = folder / "companies.csv"
    rows = [
        f'"{names[at % 7]}{"" if at < 7 else f" {at}"}",{2023 + at % 3},{rng.choice(["North", "South", "West"])}\r\n'
        for at in range(count)
    ]
    path.write_text("company,year,region\r\n" + "".join(rows), encoding="utf-8", newline="")
    return path


async def terminal(camera: Camera) -> None:
    ask = ["--template", "What did {company} announce in {year}?"]
    for columns in (40, 100, 200):
        rng = random.Random(3)
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            name = companies(place, 300).name
            run = ["run", name, *ask, "-o", "answers.csv"]
            async with Emulator(
                duration=lambda question: 1.0 + rng.lognormvariate(1.2, 0.5),
                answer_chars=2000,
                rpm=1500,
                failing=lambda question: " 44 " in question or " 12 " in question,
            ) as server:
                server.faults.add("submit", faults.Drop(after_accept=True), match=" 61 announce", times=1)
                terminal = Terminal(camera, server, place, columns)
                await terminal.draw("look", [*run[:4], "--dry-run"])
                await terminal.draw("pilot", [*run, "--pilot", "5"], shows=r"\[y/N\]")
                await terminal.draw("run", [*run, "--yes", "--max-cost", "300"], shows=r"1[6-9]\d of 300")
                await terminal.draw("again", [*run, "--yes", "--on-doubt", "hold"])
                await terminal.draw("status", ["status", f"{name}.journal.db"])


def trimmed(svg: str) -> str:
    """The same without the space for a title."""
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()  # type: ignore[union-attr]  # ours
    return svg.replace(f'viewBox="0 0 {width} {height}"', f'viewBox="0 {_TITLE} {width} {float(height) - _TITLE}"', 1)


class Terminal:
    """A terminal of one width, in one folder, at one server."""

    def __init__(self, camera: Camera, server: Emulator, place: Path, columns: int) -> None:
        self._camera = camera
        self._place = place
        self._columns = columns
        self._env = {
            "PERPLEXITY_BASE_URL": server.url,
            "PERPLEXITY_API_KEY": KEY,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": str(columns),
        }

    async def draw(self, name: str, words: list[str], *, shows: str = "") -> None:
        """Run the command line, and keep what is on the screen as terminal-NAME-COLUMNS.svg, and as a picture."""
        camera, columns = self._camera, self._columns
        here = os.getcwd()
        os.chdir(self._place)
        try:
            screen = await on_screen(words, columns, self._env, shows=shows)
        finally:
            os.chdir(here)
        console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="256")
        said = " ".join(f'"{word}"' if " " in word else word for word in words)
        console.print(Text(f"$ aiopplx {said}", style="bold"), soft_wrap=False)
        console.print(as_text(screen), soft_wrap=False, no_wrap=True, crop=True)
        svg = trimmed(console.export_svg(code_format=_FORMAT, unique_id="t", title=""))
        path = camera.folder / f"terminal-{name}-{columns}.svg"
        path.write_text(svg, encoding="utf-8")
        print(f"{path}  {path.stat().st_size // 1024} KiB")
        await camera.open(path.as_uri())
        box = "document.documentElement.viewBox.baseVal"
        size = await camera.tab.run(f"{box}.height / {box}.width")
        width = min(1600, columns * 10 + 20)
        await camera.take(f"terminal-{name}-{columns}", width, round(width * size))


# --- a notebook ------------------------------------------------------------------------------------------------------

CELLS = [
    """import pandas as pd
from aiopplx import Session, questions, rows

table = pd.DataFrame({"company": ["ACME", "Vasa AB", "Nord Wind"] * 20, "year": range(1966, 2026)})
async with Session(journal="companies.db") as session:
    print(await session.estimate(questions(table, template="What did {company} announce in {year}?")))""",
    """async with Session(journal="companies.db", max_cost=90) as session:
    async with session.batch(questions(table, template="What did {company} announce in {year}?")) as jobs:
        jobs.display()
        done = [job async for job in jobs]""",
    "pd.DataFrame(rows(done)).head(3)",
    "session",
    "done[0]",
]


async def notebook(camera: Camera) -> None:
    lab = shutil.which("jupyter-lab")
    if lab is None:
        print("no jupyter-lab on PATH: the pictures of a notebook are left out")
        return
    cells = [{"cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": None, "outputs": [],
        "source": source} for n, source in enumerate(CELLS)]  # fmt: skip
    book = {"cells": cells, "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3",
        "language": "python"}}, "nbformat": 4, "nbformat_minor": 5}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "companies.ipynb").write_text(json.dumps(book))
        async with Emulator(duration=0.5, answer_chars=3000, think=True,
            failing=lambda question: "1990" in question) as server:  # fmt: skip
            env = environment(
                PERPLEXITY_BASE_URL=server.url, PERPLEXITY_API_KEY=KEY, PYTHONPATH=str(ROOT), HOME=scratch
            )
            await done(Path(lab).with_name("jupyter-execute"), "--inplace", "companies.ipynb", cwd=place, env=env)
        shutil.copy(place / "companies.ipynb", place / "untrusted.ipynb")
        await done(Path(lab).with_name("jupyter-trust"), "companies.ipynb", cwd=place, env=env)
        for name, theme in (("", "JupyterLab Light"), ("-dark", "JupyterLab Dark")):
            settings = place / "settings" / "@jupyterlab" / "apputils-extension"
            settings.mkdir(parents=True, exist_ok=True)
            (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
            async with serving(lab, place, {**env, "JUPYTERLAB_SETTINGS_DIR": str(place / "settings")}) as url:
                for book_name, trust in (("companies", ""), ("untrusted", "-untrusted")):
                    await camera.look(1100, 2600)
                    await camera.open(f"{url}/doc/tree/{book_name}.ipynb?reset")
                    await camera.tab.until(
                        "document.querySelectorAll('.jp-OutputArea-output .mathjax_ignore').length >= 3"
                    )
                    await asyncio.sleep(3)  # until the news are asked about, which is no part of the notebook
                    await camera.tab.run("document.querySelectorAll('.Toastify').forEach(one => one.remove())")
                    await camera.take(f"notebook{trust}{name}", 1100, 2400)
                    for part, cell in (("batch", 1), ("job", 4)):
                        shown = f"document.querySelectorAll('.jp-Cell')[{cell}]"
                        await camera.take_part(f"notebook-{part}{trust}{name}", 1000, shown, shown)


async def done(*words: Any, cwd: Path, env: dict[str, str]) -> None:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(*map(str, words), cwd=cwd, env=env)
    if await process.wait():
        raise SystemExit(f"{words[0]} has failed")


@asynccontextmanager
async def serving(lab: str, place: Path, env: dict[str, str]) -> AsyncIterator[str]:
    """The address of a JupyterLab that shows this folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        lab, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=",
        cwd=place, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


# --- a web application, and the site ---------------------------------------------------------------------------------


async def app(camera: Camera) -> None:
    """The example application: its page while jobs run, and the page of an answer."""
    async with Emulator(duration=6.0, answer_chars=3000) as server, running("fastapi", server) as shown:
        await camera.open(shown.url)
        await camera.tab.until("document.querySelector('form input')")
        for question in QUESTIONS[:2]:
            ask = f"document.querySelector('input').value = {json.dumps(question)}; document.querySelector('button').click()"
            await camera.tab.run(ask)
            await asyncio.sleep(1.5)
        for dark in (False, True):
            await camera.take(f"app-progress{'-dark' * dark}", DESK, 800, dark=dark)
        await camera.take("app-progress-phone", PHONE, 800)
        await camera.tab.until("document.querySelectorAll('main a').length == 2")
        await camera.take("app-done-phone", PHONE, 800)
        await camera.tab.run("document.querySelector('main a').click()")
        await camera.tab.until("""document.querySelector('a[href^="https://"]')""")
        for dark in (False, True):
            await camera.take(f"app-answer{'-dark' * dark}", DESK, 1000, dark=dark)
        await camera.take("app-answer-phone", PHONE, 1000)


async def site(camera: Camera) -> None:
    """The pages of docs/ as a site."""
    with tempfile.TemporaryDirectory() as scratch:
        words = (sys.executable, "-m", "sphinx", "-q", ROOT / "docs", scratch)
        await done(*words, cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)))
        for page in ("index", "tables", "notebooks", "backends", "reference/aiopplx"):
            await camera.open(Path(scratch, f"{page}.html").as_uri())
            name = page.rpartition("/")[2]
            await camera.take(f"site-{name}-desk", DESK, 1300)
            await camera.take(f"site-{name}-phone", PHONE, 1300)
            await camera.take(f"site-{name}-dark", DESK, 1300, dark=True)


GROUPS: dict[str, Callable[[Camera], Awaitable[None]]] = {
    "report": report,
    "terminal": terminal,
    "notebook": notebook,
    "app": app,
    "site": site,
}


async def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("group", nargs="*", choices=[[], *GROUPS], help="what to make; all of it by default")
    words.add_argument("--to", type=Path, default=ROOT / "build" / "pictures", help="the folder for the pictures")
    words.add_argument("--publish", action="store_true", help="replace the pictures beside this file by the new ones")
    given = words.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    for name in given.group or GROUPS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            async with browser(Path(profile)) as tab:
                await tab.open("about:blank")
                await GROUPS[name](Camera(tab, given.to.resolve()))
    if given.publish:
        for old in sorted([*HERE.glob("*.png"), *HERE.glob("*.svg")]):
            if (new := given.to / old.name).exists():
                shutil.copy(new, old)
                print(f"{old} is the new one")


if __name__ == "__main__":
    asyncio.run(main())
