"""A plain HTTP client for the emulated Agent API; every error that it sees has to fit the service's document."""

from __future__ import annotations

from typing import Any

from _caller import Answer, Caller
from _captured import Document

fits = Document("agent-background").fits
BASES = ["/v1/responses", "/v1/agent"]
QUESTION = "Why did the Vasa sink?"


def run(question: Any = QUESTION, **fields: Any) -> dict[str, Any]:
    """A body that the service takes."""
    return {"preset": "medium", "background": True, "input": question, **fields}


class AgentCaller(Caller):
    def __init__(self, url: str, key: str = "anything", *, base: str = BASES[0], keep: bool = False) -> None:
        super().__init__(url, key, base=base, keep=keep)

    async def submit(self, body: Any = None, **options: Any) -> Answer:
        return await self.call("POST", self.base, run() if body is None else body, **options)

    async def cancel(self, id: str) -> Answer:
        return await self.call("POST", f"{self.base}/{id}/cancel")

    async def seen(self, id: str) -> dict[str, Any]:
        """One poll; the run."""
        answer = await self.get(id)
        assert answer.status == 200, answer.body
        return dict(answer.json)

    async def refused(self, body: Any) -> dict[str, Any]:
        """The error of a create that is a 400."""
        answer = await self.submit(body)
        assert answer.status == 400, answer.body
        assert fits("ApiError", answer.json)
        error: dict[str, Any] = answer.json["error"]
        assert error.pop("code") == 400
        return error
