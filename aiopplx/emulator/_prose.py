"""The text of answers: long Markdown with `[n]` marks, and the pages that the marks refer to.

Deterministic for a seed. Paragraphs are made once per emulator and combined anew for each answer, so that 70,000
characters cost microseconds. This module knows nothing of HTTP or of jobs.
"""

from __future__ import annotations

import random
from typing import Any

_SUBJECTS = (
    "The surviving record", "Most of the recent literature", "The oldest account",
    "A comparison of the primary sources",
    "The first systematic survey", "The archive", "A later re-examination", "The majority view", "Field work",
    "The published data", "Contemporary reporting", "An independent audit", "The committee's own record",
    "Every dataset examined", "A small but careful study", "The standard textbook treatment",
)  # fmt: skip
_VERBS = (
    "agrees with", "is hard to square with", "was long taken to confirm", "only partly supports", "lends weight to",
    "stops short of", "was written with an eye on", "leaves little room for", "is the usual starting point for",
    "contradicts in three places", "depends heavily on",
)  # fmt: skip
_OBJECTS = (
    "the simpler explanation", "the figures quoted at the time", "a gradual change over several decades",
    "the hypothesis of a single cause", "the dates given by eyewitnesses", "an estimate of 12 ± 3 %",
    "the naïve reading of the numbers", "the account in the official report", "what a cautious reader would expect",
    "the idea that money was decisive", "a much later origin", "the role usually given to chance",
)  # fmt: skip
_TAILS = (
    "", ", though the margin is narrow", ", at least for the period before the reform",
    "; the reasons are discussed below",
    ", and no later finding has changed that", ", which the authors themselves concede", " — a point often missed",
    ", if the sample is taken at face value", ", with one notable exception", " (see the table)",
)  # fmt: skip
_HEADINGS = (
    "Background", "What the sources say", "Chronology", "Points of agreement", "Where accounts differ",
    "Numbers and scale",
    "Methods of the main studies", "Competing explanations", "Economic setting", "People involved", "Technical detail",
    "Consequences", "Later reception", "Limits of the evidence", "Open questions", "Practical implications",
)  # fmt: skip
_PUBLISHERS = (
    "journal.example.org", "archive.example.net", "www.example.com", "news.example.com", "data.example.org",
    "museum.example.org", "review.example.net", "encyclopedia.example.com",
)  # fmt: skip
_KINDS = (
    "A review",
    "Full report",
    "History",
    "Data and methods",
    "An interview",
    "Notes",
    "Timeline",
    "Frequently asked",
)

TOPIC = 120
_POOL = 48
_CITED_IN_POOL = 12


def _marks(rng: random.Random, sources: int) -> str:
    first = rng.randint(1, sources)
    return f"[{first}]" if rng.random() < 0.7 else f"[{first}][{rng.randint(1, sources)}]"


def _sentence(rng: random.Random, sources: int) -> str:
    return (
        f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)}{rng.choice(_TAILS)}."
        f"{_marks(rng, sources)}"
    )


def _paragraph(rng: random.Random, sources: int) -> str:
    return " ".join(_sentence(rng, sources) for _ in range(rng.randint(6, 11)))


class Library:
    """Paragraphs to choose from, one set for each number of cited pages."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pools: dict[int, list[str]] = {}

    def _pool(self, sources: int) -> list[str]:
        cited = min(sources, _CITED_IN_POOL)
        pool = self._pools.get(cited)
        if pool is None:
            # Not security-relevant, here and below: a text must be repeatable.
            rng = random.Random(f"{self._seed}/prose/{cited}")  # noqa: S311
            pool = self._pools[cited] = [_paragraph(rng, cited) for _ in range(_POOL)]
        return pool

    def report(self, rng: random.Random, *, topic: str, chars: int, sources: int) -> str:
        """A report in Markdown of at most, and nearly, `chars` characters; each page is cited if there is room."""
        parts = [f"# {topic}\n\n{rng.choice(self._pool(sources))}\n\n{_findings(rng, sources)}{_table(rng, sources)}"]
        length = len(parts[0])
        number = 0
        while length < chars:
            part = self._section(rng, number, sources)
            parts.append(part)
            length += len(part)
            number += 1
        return _cut("".join(parts), chars)

    def _section(self, rng: random.Random, number: int, sources: int) -> str:
        paragraphs = rng.choices(self._pool(sources), k=3)
        heading = _HEADINGS[number % len(_HEADINGS)]
        level = "##" if number % 3 == 0 else "###"
        # One more mark per section, so that pages beyond the pool's are cited in the text too.
        return f"{level} {heading}\n\n" + "\n\n".join(paragraphs) + f"{_marks(rng, sources)}\n\n"


def topic_of(question: str) -> str:
    """The subject of a question, on one line and without brackets, which would resemble citation marks."""
    line = " ".join(question.split())
    return (line[:TOPIC].rstrip("?!. ") or "An empty question").replace("[", "(").replace("]", ")")


def _findings(rng: random.Random, sources: int) -> str:
    rows = (
        f"- **Source {n}:** {rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)}.[{n}]"
        for n in range(1, sources + 1)
    )
    return "## Key findings\n\n" + "\n".join(rows) + "\n\n"


def _table(rng: random.Random, sources: int) -> str:
    rows = "".join(f"| {1600 + 40 * n} | {rng.randint(3, 900)} | {_marks(rng, sources)} |\n" for n in range(6))
    return f"| Year | Count | Source |\n|---|---:|---|\n{rows}\n"


def _cut(text: str, chars: int) -> str:
    """At most `chars` characters, without half a citation mark at the end."""
    if len(text) <= chars:
        return text
    kept = text[:chars]
    opened = kept.rfind("[")
    return kept[:opened] if opened > kept.rfind("]") else kept


def think(rng: random.Random, topic: str) -> str:
    """The `<think>` part with which some answers begin."""
    steps = " ".join(f"Next, {rng.choice(_OBJECTS)} has to be checked." for _ in range(rng.randint(3, 8)))
    return f"<think>\nThe question is about {topic}. {steps}\n</think>\n\n"


def pages(rng: random.Random, topic: str, count: int) -> list[dict[str, Any]]:
    """Search results, keys and nulls as captured; the n-th is the one that `[n]` refers to.

    All addresses are example domains.
    """
    stem = (
        "-".join(word for word in "".join(ch if ch.isalnum() else " " for ch in topic.lower()).split())[:48] or "topic"
    )
    found: list[dict[str, Any]] = []
    for n in range(1, count + 1):
        dated = rng.random() < 0.6
        date = f"{rng.randint(1998, 2026)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        found.append({
            "title": f"{rng.choice(_KINDS)}: {topic[:60]} ({n})",
            "url": f"https://{rng.choice(_PUBLISHERS)}/{stem}/{n}",
            "date": date if dated else None,
            "last_updated": date if dated and rng.random() < 0.5 else None,
            "snippet": f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)} ...",
            "source": "web",
            "place_metadata": None,
        })
    return found


def images(rng: random.Random, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Image results, without titles like the captured ones."""
    return [
        {
            "image_url": f"https://images.example.org/{rng.randint(1000, 9999)}.jpg",
            "origin_url": result["url"],
            "width": rng.choice((640, 1024, 1920)),
            "height": rng.choice((480, 768, 1080)),
        }
        for result in results[:5]
    ]


def related(topic: str) -> list[str]:
    """Suggested follow-up questions."""
    return [f"What came before: {topic}?", f"Who disagrees about: {topic}?", f"What is not known about: {topic}?"]
