"""The server's words about a job without a result, in whatever form they came.

Which fields of a body have them is said here, by what their names say and not by a list of them; how they are read, in
`_text/words`. The other fields at the top of a body are those of a job: what its text, its output and its labels say is
not about its end.

This module knows nothing of jobs, of how they end, or of any one API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aiopplx._text.names import words_in_name
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import is_error_name, is_message_name, joined, pieces_of
from aiopplx._wire.decoding import loosely

_FIRST = ("error_message", "error", "errors")
"""Read before all others, the documented one first."""
_WRAPPERS = ("response", "result", "data", "job", "run", "body")
_DEEPEST = 3
_CHOICES = 5
# Why a text ends is known by itself, and a text of the answer is not about the job.
_OF_THE_ANSWER = frozenset({
    *("finish", "stop", "native", "text", "texts", "messages", "title", "summary", "raw", "info", "description"),
    *("help", "said", "comment", "explanation", "advice"),
})


def words_about(body: Any, is_meant: Callable[[str], bool] | None = None) -> str:
    """Why a job has no result, from the plain values of its whole body; `""` if it does not say.

    Args:
        body: the plain values.
        is_meant: whether a field is read, by its name; None for all that say something about a job.
    """
    return joined(_words_about(body, is_meant or _says_something, 0))


def words_in(raw: bytes) -> str | None:
    """The same from the bytes of a body; None if it does not say."""
    return _read(raw, _says_something)


def words_of_end(raw: bytes) -> str | None:
    """The same of a job that has failed: if it says nothing of itself, what its errors say among its steps.

    Its output, its log or its events may have them; last, the text that stands where its answer should. None if it does
    not say.
    """
    try:
        value = loosely(raw)
    except (ValueError, RecursionError):
        return None
    return words_about(value) or joined(_errors_among(value)) or joined(_texts_alone(value)) or None


def remarks(*said: object) -> str | None:
    """What is said about a job beside its answer; None if nothing is."""
    found = [piece for value in said if value for piece in pieces_of(value)]
    return joined(found) or None if found else None


def error_in(raw: bytes) -> str | None:
    """The same, if it is said in a field that only errors have."""
    return _read(raw, is_error_name)


def _words_about(body: Any, is_meant: Callable[[str], bool], depth: int) -> Iterator[str]:
    if not is_object(body) or depth > _DEEPEST:
        return
    named = [name for name in body if name not in _FIRST and is_meant(name)]
    named.sort(key=lambda name: not is_error_name(name))
    for name in (*_FIRST, *named):
        yield from pieces_of(body.get(name))
    for choice in _choices(body):
        yield from _words_about(choice, is_error_name, _DEEPEST)
        yield from _words_about(choice.get("message"), is_error_name, _DEEPEST)
    for name in _WRAPPERS:
        inner = body.get(name)
        if is_array(inner) and len(inner) == 1:
            inner = inner[0]
        yield from _words_about(inner, is_meant, depth + 1)


def _errors_among(body: Any) -> Iterator[str]:
    """What the rows say that are errors, in any list of a job: of its output, its log, its events."""
    for value in _within(body):
        for name, rows in value.items():
            if is_array(rows) and not _ECHOED.intersection(words_in_name(name)):
                for row in rows[-_ROWS:]:
                    if is_object(row) and _is_error_row(row):
                        yield from pieces_of(row)


def _is_error_row(row: dict[str, Any]) -> bool:
    for name, said in row.items():
        if said and is_error_name(name):
            return True
        is_kind = (words_in_name(name) or ("",))[-1] in ("type", "level", "severity", "status", "kind", "outcome")
        if is_kind and isinstance(said, str) and not _BAD.isdisjoint(words_in_name(said)):
            return True
    return False


def _texts_alone(body: Any) -> Iterator[str]:
    """The texts where a job that did not fail has its answer."""
    for value in _within(body):
        for name in ("response", "result", "output", "data"):
            if isinstance(text := value.get(name), str):
                yield from pieces_of(text)


def _within(body: Any) -> Iterator[dict[str, Any]]:
    """The job and what it is wrapped in, or wraps, the outermost first."""
    for _ in range(_DEEPEST):
        if not is_object(body):
            return
        yield body
        body = next(filter(is_object, map(body.get, _WRAPPERS)), None)


_ROWS = 20
_BAD = frozenset({"error", "errors", "failed", "failure", "fatal", "critical", "exception", "crashed", "aborted"})
_ECHOED = frozenset({"input", "messages", "tools", "results", "contents", "sources"})


def why_it_ended(raw: bytes) -> str:
    """Why there is no text in an answer, in a field that its API does not have (`finish_details`, `block_reason`)."""
    try:
        value = loosely(raw)
    except (ValueError, RecursionError):
        return ""
    found = [piece for body in _within(value) for piece in _reasons_in(body)]
    return joined(piece for piece in found if piece.lower() not in _AS_IT_SHOULD)


def _reasons_in(body: dict[str, Any]) -> Iterator[str]:
    inner = [said for name, said in body.items() if is_object(said) and words_in_name(name)[-1:] == ("feedback",)]
    for item in (body, *_choices(body), *inner):
        for name, said in item.items():
            words = words_in_name(name)
            if words and words[0] in _ENDING and words[-1] in ("reason", "details", "detail", "cause"):
                yield from pieces_of(said)


_ENDING = frozenset({"finish", "finished", "stop", "end", "done", "termination", "block", "native", "completion"})
_AS_IT_SHOULD = frozenset({"stop", "completed", "end_turn", "eos", "done", "end"})


def _choices(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices, or candidates, of an answer."""
    for name in ("choices", "candidates"):
        if is_array(found := body.get(name)):
            return [item for item in found[:_CHOICES] if is_object(item)]
    return []


def _says_something(name: str) -> bool:
    if is_error_name(name):
        return True
    return is_message_name(name) and not _OF_THE_ANSWER.intersection(words_in_name(name))


def _read(raw: bytes, is_meant: Callable[[str], bool]) -> str | None:
    try:
        value = loosely(raw)
    except (ValueError, RecursionError):
        return None
    return words_about(value, is_meant) or None
