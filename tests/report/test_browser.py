"""A browser that shows a report asks for nothing and runs nothing: on a screen, in the dark, and on paper."""

from __future__ import annotations

import asyncio
import shutil
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from _hostile import HOSTILE

from aiopplx import Job, JobFailed, JobStatus
from aiopplx._job import Answer, Source, Usage
from aiopplx.report import html_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=2000"),
]
GROUND = {"light": (0xFC, 0xFB, 0xF8), "dark": (0x17, 0x18, 0x1A)}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")]


class Answered:
    def __init__(self, text: str, source: Source) -> None:
        self._answer = Answer(text=text, sources=[source], reasoning=text)

    def answer(self) -> Answer:
        return self._answer

    def consumed(self) -> Usage | None:
        return self._answer.usage

    def is_on_the_way(self) -> bool:
        return False


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server's address, and what it was asked."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        await server.wait_closed()


def bait(url: str) -> str:
    """What makes a browser ask for something, if it is taken for markup."""
    return (
        f'![a]({url}/1) <img src={url}/2> <img srcset="{url}/3 1x"> <script>fetch("{url}/4")</script>'
        f" <link rel=stylesheet href={url}/5> <style>@import '{url}/6';</style> <iframe src={url}/7></iframe>"
        f' <svg><image href="{url}/8"/></svg> <video poster={url}/9></video> <p style="background:url({url}/10)">a</p>'
        f' <meta http-equiv=refresh content="0;url={url}/11"> <object data={url}/12></object>'
    )


def report(url: str) -> str:
    text = bait(url)
    source = Source(url=f"{url}/source", title=text, date=text)
    jobs = [
        Job(id="i", status=JobStatus.COMPLETED, question=text, tag=text, meta={text: text}, model=text,
            response=Answered(text + "\n\n".join(HOSTILE) + " [1]", source)),
        Job(status=JobStatus.FAILED, question=text, error=JobFailed(text)),
    ]  # fmt: skip
    return "".join(html_report(jobs, title=text, day=text, source=text))


async def shown(html: str, tmp_path: Path, *options: str) -> bytes:
    """What the browser writes when it shows this page."""
    page = tmp_path / "report.html"
    page.write_text(html)
    process = await asyncio.create_subprocess_exec(
        BROWSER, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        written, _ = await process.communicate()
    finally:
        if process.returncode is None:  # the test was ended first
            process.kill()
    return written


def first_pixel(png: bytes) -> tuple[int, ...]:
    """The colour in the corner: whatever the filter of the first row, it stands there as it is."""
    at, packed = 8, b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        packed += png[at + 8 : at + 8 + size] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += size + 12
    return tuple(zlib.decompress(packed)[1:4])


@pytest.mark.parametrize("scheme", GROUND)
async def test_screen_is_light_or_dark_and_asks_nothing(scheme: str, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    colours = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    async with listening() as (url, asked):
        await shown(report(url), tmp_path, colours, f"--screenshot={picture}", "--window-size=800,600")
    assert first_pixel(picture.read_bytes()) == GROUND[scheme]
    assert asked == []


async def test_paper_asks_for_nothing(tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    async with listening() as (url, asked):
        await shown(report(url), tmp_path, f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
    assert asked == []


async def test_page_in_a_browser_is_as_written(tmp_path: Path) -> None:
    async with listening() as (url, asked):
        seen = await shown(report(url), tmp_path, "--dump-dom")
    assert seen.count(b"<article") == 2
    assert b"<script" not in seen
    assert b"<img" not in seen
    assert asked == []


async def test_browser_asks_for_what_an_unsafe_page_names(tmp_path: Path) -> None:
    """So the tests above can see a request."""
    async with listening() as (url, asked):
        await shown(f"<!doctype html><body>{bait(url)}", tmp_path, "--dump-dom")
    assert len(asked) >= 5
