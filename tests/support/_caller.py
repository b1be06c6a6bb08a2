"""A plain HTTP client for the tests of the emulator, which judges nothing and hides nothing."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

import aiohttp

OLD = "/async/chat/completions"
NEW = "/v1/async/sonar"


def asking(question: str = "Why did the Vasa sink?", key: str | None = None, **fields: Any) -> dict[str, Any]:
    """A body that the service takes."""
    messages = [{"role": "user", "content": question}]
    body: dict[str, Any] = {"request": {"model": "sonar-deep-research", "messages": messages, **fields}}
    return body if key is None else {**body, "idempotency_key": key}


class Answer:
    """One answer, read whole."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """Calls one server; each request on a connection of its own unless `keep` is set."""

    def __init__(self, url: str, key: str = "anything", *, base: str = OLD, keep: bool = False) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self.base = base
        self._keep = keep

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(force_close=not self._keep)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        async with self._session.request(
            method, self._url + path, data=data, allow_redirects=False, **options
        ) as response:
            return Answer(response, await response.read())

    async def submit(self, body: Any = None, **options: Any) -> Answer:
        return await self.call("POST", self.base, asking() if body is None else body, **options)

    async def get(self, id: str, **options: Any) -> Answer:
        return await self.call("GET", f"{self.base}/{id}", **options)

    async def list(self, query: str = "", **options: Any) -> Answer:
        return await self.call("GET", self.base + query, **options)

    async def job(self, body: Any = None) -> str:
        """Submits; the id."""
        answer = await self.submit(body)
        assert answer.status == 200, answer.body
        return str(answer.json["id"])
