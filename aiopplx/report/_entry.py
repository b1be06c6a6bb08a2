"""What a report shows of one question: plain values, made safe to show, and in the report's own words.

This module knows nothing of HTML, of Markdown, or of where jobs come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from aiopplx._job import Job, JobStatus, Source
from aiopplx._text.amounts import many
from aiopplx._text.marks import cited, unresolved
from aiopplx._text.safe import visible

NAMED = 5
"""Citations without a source that are named."""
Concern = Literal["failed", "in doubt", "still running", "not sent", "cut", "no sources", "citations"]
"""Why a question needs a look, the gravest first."""
Status = Literal["done", "failed", "in doubt", "still running", "not sent"]
"""What came of a question."""

_HEADING = re.compile(r"\s*#{1,6}[ \t]+([^\n]{1,300}?)[ \t#]*(?:\n|$)")
_WORDS: dict[JobStatus, Status] = {
    JobStatus.COMPLETED: "done",
    JobStatus.IN_DOUBT: "in doubt",
    JobStatus.TIMED_OUT: "still running",
    JobStatus.IN_PROGRESS: "still running",
    JobStatus.CREATED: "still running",
    JobStatus.STOPPED: "not sent",
}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One question and what came of it.

    Attributes:
        number: its place in the report, from 1.
        question: what was asked.
        tag: the caller's own name for it; "" if there is none.
        status: what came of it.
        is_ok: there is an answer.
        error: why there is none.
        cost: US dollars; None if unknown.
        seconds: from acceptance to result; None if unknown.
        model: who answered.
        columns: the caller's own columns, as text.
        text: the answer, in Markdown.
        reasoning: the model's own notes; "" if there are none.
        sources: what the answer cites.
        facts: further facts by name, for the details.
        cited: how many different sources marks name.
        unresolved: the different marks that name none: `[9]`, `[web:12]`.
        is_cut: the answer ends where its length was used up.
    """

    number: int
    question: str
    tag: str = ""
    status: Status = "done"
    is_ok: bool = True
    error: str = ""
    cost: float | None = None
    seconds: float | None = None
    model: str = ""
    columns: dict[str, str] = {}
    text: str = ""
    reasoning: str = ""
    sources: list[Source] = []
    facts: dict[str, str] = {}
    cited: int = 0
    unresolved: list[str] = []
    is_cut: bool = False

    @property
    def concerns(self) -> list[tuple[Concern, str]]:
        """Why it needs a look, each with a sentence."""
        concerns: list[tuple[Concern, str]] = []
        if self.status == "in doubt":
            concerns.append((
                "in doubt",
                self.error or "sent, and no usable answer came: a job may exist and be billed",
            ))
        elif self.status in ("still running", "not sent"):
            concerns.append((self.status, self.error or "there is no answer yet"))
        elif not self.is_ok:
            concerns.append(("failed", self.error or "no reason was given"))
        if self.is_ok and self.is_cut:
            concerns.append(("cut", "the answer ends where its length was used up"))
        if self.is_ok and not self.sources:
            concerns.append(("no sources", "nothing in this answer can be checked"))
        elif self.is_ok and self.unresolved:
            count, named = len(self.unresolved), ", ".join(self.unresolved[:NAMED])
            more = f" and {count - NAMED:,} more" if count > NAMED else ""
            concerns.append(("citations", f"{many(count, 'citation')} without a source in the list: {named}{more}"))
        return concerns


def short_and_whole(jobs: Sequence[Job]) -> tuple[list[Entry], Iterator[Entry]]:
    """What the contents of a report need of these jobs, and then each of them as a whole, in their order.

    Jobs are taken one at a time, and twice: thousands of answers are not in memory at once if they are on a disk.
    """
    short = [shortened(entry_of(number, job)) for number, job in enumerate(jobs, 1)]
    return short, (entry_of(known.number, job, known) for known, job in zip(short, jobs, strict=True))


def shortened(entry: Entry) -> Entry:
    """What the contents of a report need of it: thousands of these are in memory at once, and their answers are not."""
    return msgspec.structs.replace(
        entry, text="", reasoning="", columns={}, facts={}, sources=entry.sources[:1] * len(entry.sources)
    )


def entry_of(number: int, job: Job, known: Entry | None = None) -> Entry:
    """What a report shows of a job; what is already `known` of its citations is not looked for again."""
    text, sources = visible(job.text), [_visible(source) for source in job.sources]
    tag = visible(str(job.tag)) if job.tag is not None else ""
    facts = {
        "job": job.id,
        "key": job.idempotency_key,
        "API": job.api,
        "status at the server": job.server_status,
        "polls": str(job.polls) if job.polls else "",
    }
    return Entry(
        number=number,
        question=visible(job.question) or tag or _heading(text) or f"question {number}",
        tag=tag,
        status=_WORDS.get(job.status, "failed"),
        is_ok=job.ok,
        error=visible(job.error.message) if job.error is not None else "",
        cost=job.cost,
        seconds=job.seconds,
        model=visible(job.model),
        columns={
            visible(name): visible(_as_text(value))
            for name, value in job.meta.items()
            if value not in ("", None) and not _is_said(value, job.question)
        },
        text=text,
        reasoning=visible(job.reasoning or ""),
        sources=sources,
        facts={name: visible(value) for name, value in facts.items() if value},
        cited=known.cited if known else len({source.url for source in cited(text, sources).values()}),
        unresolved=known.unresolved if known else unresolved(text, sources),
        is_cut=job.finish_reason == "length",
    )


def _visible(source: Source) -> Source:
    return msgspec.structs.replace(
        source,
        url=visible(source.url),
        title=visible(source.title or ""),
        date=visible(source.date or source.last_updated or "")[:10],
    )


def _heading(text: str) -> str:
    """The heading with which an answer begins; "" without one. What was asked is not known of a job by its id alone."""
    found = _HEADING.match(text)
    return found[1].strip() if found is not None else ""


def _is_said(value: object, question: str) -> bool:
    """Whether a column is the question, which stands above it."""
    return isinstance(value, str) and bool(question) and value.strip() == question


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
