"""The server's words about a job without a result, in whatever form they came.

Which fields of a body have them is said here, by what their names say and not by a list of them; how they are read, in
`_text/words`. The other fields at the top of a body are those of a job: what its text, its output and its labels say is
not about its end.

This module knows nothing of jobs, of how they end, or of any one API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from itertools import islice
from typing import Any

import msgspec

from aiopplx._text.names import words_in_name
from aiopplx._text.safe import plain
from aiopplx._text.thought import is_thought
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import is_error_name, is_message_name, joined, pieces_of, words_of
from aiopplx._wire.decoding import loosely, loosely_within, strictly
from aiopplx._wire.status import is_answer

_FIRST = ("error_message", "error", "errors")
"""Read before all others, the documented one first."""
_WRAPPERS = ("response", "result", "data", "job", "run", "body", "task", "payload")
_DEEPEST = 3
_CHOICES = 5
_ROWS = 20
"""Rows of a list that are looked at, the last ones."""
_LONGEST_LOG = 500
"""Characters of a log that is one text. A longer one may repeat the question."""
# Names of what may be said about the job, or belong to the answer, or to the caller.
_MAYBE_ABOUT_IT = frozenset({"info", "comment", "explanation", "advice", "help", "said"})
_STATUS_TEXTS = frozenset({("status", "text"), ("state", "text"), ("status", "description"), ("status", "summary")})
_OF_THE_ANSWER = _MAYBE_ABOUT_IT | {
    *("finish", "stop", "native", "text", "texts", "messages", "title", "summary", "raw", "description"),
}
_OF_THE_CALLER = frozenset({"title", "messages", "raw"})
_CHOICES_NAMED = ("choices", "candidates")
_HOLDING = frozenset({*_WRAPPERS, "message"})
_IN_PLACE_OF_IT = ("response", "result", "output", "data", "content", "answer", "completion", "output_text")
"""Where a job that did not fail has its answer."""
_LOGS = frozenset({"log", "logs", "events", "trace"})
_KINDS = frozenset({"type", "level", "severity", "status", "kind", "outcome"})
_BAD = frozenset({"error", "errors", "failed", "failure", "fatal", "critical", "exception", "crashed", "aborted"}) | {
    *("cancelled", "canceled", "terminated", "rejected", "expired", "timeout", "killed", "blocked", "denied"),
}
_DOUBTFUL = _BAD | {"warning", "warnings", "warn", "notice"}
_ECHOED = frozenset({"input", "messages", "tools", "results", "contents", "sources"})
_ENDING = frozenset({"finish", "finished", "stop", "end", "done", "termination", "block", "native", "completion"})
_AS_IT_SHOULD = frozenset({"stop", "completed", "end_turn", "eos", "done", "end"})

_OF_AN_END = (
    *("cancel", "terminat", "expir", "abort", "reject", "block", "interrupt", "preempt", "evict", "kill", "denied"),
    *("denial", "suspen", "moderat", "violat", "guardrail", "flag", "refus", "withdraw", "revok", "delet", "skip"),
    *(
        "exceed",
        "reached",
        "because",
        "substatus",
        "stopped",
        "ended",
        "conclusion",
        "disposition",
        "shutdown",
        "failed",
    ),
)
"""How words begin that are about the end of a job."""
_NAMED_FOR_AN_END = frozenset({
    *(("sub", "status"), ("sub", "state"), ("reason", "code"), ("exit", "status"), ("exit", "code"), ("outcome",)),
    *(("content", "filter"), ("content", "filters"), ("content", "filter", "results"), ("content", "filter", "result")),
})
_MAYBE_OF_AN_END = frozenset({
    *(
        "timeout",
        "limit",
        "limits",
        "quota",
        "billing",
        "deadline",
        "stop",
        "exit",
        "safety",
        "policy",
        "filter",
        "end",
    ),
    *("expiry", "finish"),
})
"""A text in such a field may be what was asked for; an object has a message, or has none."""
_NO_REASON = frozenset({
    *("at", "on", "in", "time", "date", "timestamp", "id", "ids", "url", "uri", "domains", "domain", "words", "hosts"),
    *("sequences", "identifier", "count", "after", "before", "tokens", "seconds"),
})
"""Last words of names that say when, or which, and not why."""
_SETTINGS = frozenset({
    *("auto", "none", "null", "true", "false", "default", "enabled", "disabled", "on", "off", "low", "medium", "high"),
    *("failed", "failure", "cancelled", "canceled", "error", "completed", "success", "incomplete", "expired", "safe"),
})
_HITS = frozenset({"filtered", "detected", "triggered", "hit"})

_COUNTED = frozenset({"tokens", "calls", "cost", "costs"})
"""Words of fields that say what was used, such as `input_tokens_details`, which each answer of the Agent API has."""

_HEAD, _TAIL = 384, 512
"""Bytes at either end of a body in which the fields of a job stand that has a long answer between them. To look through
100 of them takes nearly a hundredth of what a job costs."""
_NAME = 100
"""Characters of a name that are kept. One of more than 80 is none."""

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EMPTY = msgspec.Raw(b"null")
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def words_about(body: Any, is_meant: Callable[[str], bool] | None = None) -> str:
    """Why a job has no result, from the plain values of its whole body; `""` if it does not say.

    Args:
        body: the plain values.
        is_meant: whether a field is read, by its name; None for all that say something about a job.
    """
    is_meant = is_meant or _says_something
    return joined(piece for value in _bodies(body) for piece in _pieces(value, is_meant))


def with_words(why: str, value: Any) -> str:
    """What is wrong with an answer, with what the server says in it: `value` is its plain values."""
    said = plain(words_about(value) if is_object(value) else words_of(value))
    return f"{why}: {said}" if said else why


def words_in(raw: bytes) -> str | None:
    """The same from the bytes of a body, with what ended it; None if it does not say."""
    value = _values(raw)
    return joined(filter(None, (words_about(value), *_named_for_an_end(value)))) or None


def error_in(raw: bytes) -> str | None:
    """The same, if it is said in a field that only errors have."""
    return words_about(_values(raw), is_error_name) or None


def words_of_end(raw: bytes) -> str | None:
    """The same of a job that has failed, where nothing else needs to be told apart from its reason.

    If it says nothing of itself, what its errors say among its steps: its output, its log or its events may have them;
    last, whatever else it says, and what stands where its answer should. None if it does not say.
    """
    value = _values(raw)
    said = words_about(value) or joined(_errors_among(value)) or joined(_said_otherwise(value))
    return joined(filter(None, (said, *_named_for_an_end(value)))) or None


def why_it_ended(raw: bytes) -> str:
    """Why there is no text in an answer, in a field that its API does not have (`finish_details`, `block_reason`)."""
    return joined(piece for body in _bodies(_values(raw)) for piece in _reasons_in(body))


def remarks_in(raw: bytes, *, is_sought: bool = False) -> str | None:
    """What a finished job says beside its answer: warnings, notices, errors of single steps; None if nothing.

    To look at every field of a long body would cost each job more than all else that is read of it, so that is done
    only if a field at either end of it has such a name, where those of the job stand.

    Args:
        raw: the body.
        is_sought: it is known that there may be some.
    """
    if not is_sought:
        named = _named().findall(raw, 0, _HEAD) + _named().findall(raw, max(_HEAD, len(raw) - _TAIL))
        if not _may_remark(tuple(named)):
            return None
    fields = strictly(_FIELDS, raw)
    if fields is None:
        value = _values(raw)
        fields = strictly(_FIELDS, msgspec.json.encode(value)) if is_object(value) else None
    return joined(_remarks(fields or {}, 0)) or None


# --- in plain values --------------------------------------------------------------------------------------------------


def _values(raw: bytes) -> Any:
    try:
        return loosely_within(loosely(raw))
    except (ValueError, RecursionError):
        return None


def _bodies(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The job, and what it is wrapped in, or wraps: the outermost first."""
    value = loosely_within(value)
    if is_array(value) and depth and len(value) == 1:
        value = value[0]
    if not is_object(value) or depth > _DEEPEST:
        return
    yield value
    for name in _WRAPPERS:
        yield from _bodies(value.get(name), depth + 1)


def _pieces(body: dict[str, Any], is_meant: Callable[[str], bool]) -> Iterator[str]:
    named = [name for name in body if name not in _FIRST and is_meant(name)]
    named.sort(key=lambda name: not is_error_name(name))
    for name in (*_FIRST, *named):
        yield from pieces_of(body.get(name))
    for choice in _choices(body):
        for value in (choice, choice.get("message")):
            for name, said in value.items() if is_object(value) else ():
                if is_error_name(name):
                    yield from pieces_of(said)


def _errors_among(body: Any) -> Iterator[str]:
    """What the rows say that are errors, in any list of a job: of its output, its log, its events."""
    for value in _bodies(body):
        for name, rows in value.items():
            if is_array(rows) and not _ECHOED.intersection(words_in_name(name)):
                for row in rows[-_ROWS:]:
                    if is_object(row) and _is_error_row(row, _BAD):
                        yield from pieces_of(row)


def _is_error_row(row: dict[str, Any], bad: frozenset[str]) -> bool:
    for name, said in row.items():
        if said and is_error_name(name):
            return True
        is_kind = (words_in_name(name) or ("",))[-1] in _KINDS
        if is_kind and isinstance(said, str) and not bad.isdisjoint(words_in_name(said)):
            return True
    return False


def _said_otherwise(body: Any) -> Iterator[str]:
    """What a job without a result says under names that a result has too."""
    for value in _bodies(body):
        yield from _reasons_in(value)
        for name, said in value.items():
            words = words_in_name(name)
            if name in _IN_PLACE_OF_IT or words[-1:] == ("text",):
                yield from _in_its_place(said)
            elif is_message_name(name) and _OF_THE_CALLER.isdisjoint(words) and not is_thought(name):
                yield from pieces_of(said)
            elif not _LOGS.isdisjoint(words[-1:]):
                yield from _last_of_log(said)


def _in_its_place(said: Any) -> Iterator[str]:
    """What stands in the place of an answer, and is none: neither an answer in parts nor what a run did."""
    said = loosely_within(said)
    for item in said[-_ROWS:] if is_array(said) else [said]:
        if not is_object(item):
            yield from pieces_of(item)
        elif "role" not in item and "type" not in item:
            for name, inner in item.items():
                if is_message_name(name) and not is_thought(name):
                    yield from pieces_of(inner)


def _last_of_log(said: Any) -> Iterator[str]:
    said = loosely_within(said)
    last = said[-1] if is_array(said) and said else said
    if not isinstance(last, str) or len(last) <= _LONGEST_LOG:
        yield from pieces_of(last)


def _named_for_an_end(value: Any) -> Iterator[str]:
    """What fields say whose names say why a job ends, though they are no message: who did it, and by which rule."""
    for body in _bodies(value):
        for name, said in body.items():
            words = words_in_name(name)
            if not words or is_message_name(name) or is_error_name(name) or words[-1] in _NO_REASON:
                continue
            if words[-1] == "by":
                is_why = len(words) > 1 and _is_of_an_end(words[0])
                yield from (f"{' '.join(words)} {piece}" for piece in pieces_of(said) if is_why)
            elif any(map(_is_of_an_end, words)) or words in _NAMED_FOR_AN_END:
                yield from filter(_is_reason, pieces_of(said))
                yield from _rules_in(said)
            elif is_object(said) and not _MAYBE_OF_AN_END.isdisjoint(words):
                yield from filter(_is_reason, pieces_of(said))


@lru_cache(maxsize=256)
def _is_of_an_end(word: str) -> bool:
    return word.startswith(_OF_AN_END)


def _is_reason(piece: str) -> bool:
    """Whether it says more than that something is so: neither a moment, nor a number, nor a setting."""
    return piece.lower() not in _SETTINGS and re.search("[^\\W\\d_]{2}", piece) is not None and not piece[:4].isdigit()


def _rules_in(said: Any, deepest: int = 3) -> Iterator[str]:
    """The names of what was found, where each has a yes or no: the categories of a moderation."""
    for name, found in islice(said.items(), _ROWS) if is_object(said) and deepest else ():
        is_hit = is_object(found) and any(each is True and _is_a_hit(of) for of, each in found.items())
        if is_hit or (found is True and not _is_a_hit(name)):
            yield name[:_NAME]
        else:
            yield from _rules_in(found, deepest - 1)


def _is_a_hit(name: str) -> bool:
    return _is_of_an_end(name) or name in _HITS


def _reasons_in(body: dict[str, Any]) -> Iterator[str]:
    inner = [said for name, said in body.items() if is_object(said) and words_in_name(name)[-1:] == ("feedback",)]
    for item in (body, *_choices(body), *inner):
        for name, said in item.items():
            words = words_in_name(name)
            if words and words[0] in _ENDING and words[-1] in ("reason", "details", "detail", "cause"):
                yield from (piece for piece in pieces_of(said) if piece.lower() not in _AS_IT_SHOULD)


def _choices(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices, or candidates, of an answer."""
    for name in _CHOICES_NAMED:
        if is_array(found := body.get(name)):
            return [item for item in found[:_CHOICES] if is_object(item)]
    return []


def _says_something(name: str) -> bool:
    if is_error_name(name):
        return True
    return is_message_name(name) and not _OF_THE_ANSWER.intersection(words_in_name(name))


# --- beside an answer, in bytes ---------------------------------------------------------------------------------------


def _remarks(fields: dict[str, msgspec.Raw], depth: int) -> Iterator[str]:
    if depth > _DEEPEST + 1:
        return
    for name, said in fields.items():
        start = bytes(memoryview(said)[:2])
        if start[:1] == b"{" and name in _HOLDING:
            inner = strictly(_FIELDS, bytes(said)) or {}
            is_error = name == "message" and not ("role" in inner or "content" in inner)
            yield from pieces_of(_decoded(said)) if is_error else _remarks(inner, depth + 1)
        elif start == b'"{' and name in _WRAPPERS:
            yield from _remarks(strictly(_FIELDS, str(_decoded(said)).encode("utf-8", "replace")) or {}, depth + 1)
        elif _is_remark(name[:_NAME]):
            yield from filter(is_answer, pieces_of(_decoded(said)))
        elif start[:1] == b"[" and _ECHOED.isdisjoint(words_in_name(name)):
            yield from _remarks_among(name, said, depth)


def _remarks_among(name: str, rows: msgspec.Raw, depth: int) -> Iterator[str]:
    """What the rows of a list say that are errors or warnings; of an answer, what stands beside its texts."""
    for row in (strictly(_LIST, bytes(rows)) or [])[-_ROWS:]:
        fields = strictly(_FIELDS, bytes(row)) if bytes(memoryview(row)[:1]) == b"{" else None
        if not fields:
            continue
        kinds = {each: _decoded(fields[each]) for each in fields if each in _KINDS or is_error_name(each)}
        if is_thought(kinds.get("type")):
            continue
        if name in _CHOICES_NAMED and isinstance(_decoded(fields.get("message", _EMPTY)), str):
            del fields["message"]  # the answer itself
        if name in _CHOICES_NAMED or "content" in fields:
            yield from _remarks(fields, depth + 1)
        elif _is_error_row(kinds, _DOUBTFUL):
            yield from pieces_of(_decoded(row))


@cache
def _named() -> re.Pattern[bytes]:
    """The name of a field that is neither empty nor the message that an answer is.

    In JSON within a text the quotation marks are escaped.
    """
    return re.compile(rb'"([\w-]{3,40}+)\\?"\s?:\s?\\?(?=["\[{])(?!\{\s?\\?"(?:role|content)\\?")')


@lru_cache(maxsize=64)
def _may_remark(names: tuple[bytes, ...]) -> bool:
    """Whether any of these may say something about the job. Nearly all bodies of one server have the same names."""
    return any(_is_remark(name.decode()) for name in names)


@lru_cache(maxsize=1024)
def _is_remark(name: str) -> bool:
    """Whether a field beside an answer, by its name, says something about the job."""
    words = words_in_name(name)
    is_about_it = _says_something(name) or not _MAYBE_ABOUT_IT.isdisjoint(words) or words in _STATUS_TEXTS
    return is_about_it and _COUNTED.isdisjoint(words) and not is_thought(name)


def _decoded(value: msgspec.Raw) -> Any:
    return strictly(_ANY, bytes(value))
