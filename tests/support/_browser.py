"""A real browser without a screen, driven over its own protocol."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)
STARTS_WITHIN = 60.0
"""Seconds after which a browser that should have started is taken for stuck."""


class Tab:
    """One page that is open."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params, **self._session})
        while True:
            told = await self._socket.receive_json()
            if told.get("id") == number:
                if "context" in told.get("error", {}).get("message", ""):
                    raise PageLeft
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result

    async def open(self, url: str) -> None:
        target = await self.call("Target.createTarget", url=url)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    async def run(self, script: str) -> Any:
        """What this JavaScript gives; a promise is waited for."""
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until this JavaScript gives something true, on whatever page is shown by then."""
        while True:
            with suppress(PageLeft):
                if await self.run(f"Boolean({condition})"):
                    return
            await asyncio.sleep(0.05)


class PageLeft(Exception):
    """Another page is being shown: what was asked of the one before has no answer."""


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Tab]:
    """A tab of a browser of its own."""
    process = await asyncio.create_subprocess_exec(
        BROWSER,
        *OPTIONS,
        f"--user-data-dir={profile}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        with anyio.fail_after(STARTS_WITHIN):
            while True:
                line = (await process.stderr.readline()).decode()
                assert line, "the browser has ended"
                if found := re.search(r"ws://\S+", line):
                    break
        async with aiohttp.ClientSession() as client, client.ws_connect(found[0], max_msg_size=0) as socket:
            yield Tab(socket)
    finally:
        process.kill()
        await process.communicate()
