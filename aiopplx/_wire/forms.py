"""Finished answers in forms that are not those of the API that was asked: what a gateway may send, as plain values.

A paid answer must not be lost because it came in a wrapper, as a stream that nobody asked for, or in the form of
another service. `answers_in` finds the objects of a body in which an answer may stand, and brings forms that no
registered API has into that of a chat completion. Which of these objects is an answer, its API says
(`API.recognise`).

A list is never searched: it may hold other jobs. A stream that was cut short holds no answer. A text alone
(`"result": "..."`) is an answer only where the job says that it is completed: elsewhere it may be a word about it.

This module knows nothing of jobs, or of any one API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiopplx._text.values import is_array, is_object
from aiopplx._wire.decoding import loosely, loosely_within
from aiopplx._wire.status import is_answer, says_completed

_WRAPPERS = ("response", "result", "data", "completion", "body")
_DEEPEST = 3
_TEXTS = ("output_text", "answer", "completion")
_TEXTS_OF_COMPLETED = ("output", "response", "result", "text", "content", "data")
_STREAM = (b"data:", b"event:", b"id:", b":")


def answers_in(body: bytes) -> Iterator[dict[str, Any]]:
    """The objects in a body that may be a finished answer, the outermost first."""
    for value in _values(body):
        for _ in range(_DEEPEST):
            yield _with_messages(value)
            if (completion := _as_completion(value)) is not None:
                yield completion
            inner = next(filter(is_object, map(loosely_within, map(value.get, _WRAPPERS))), None)
            if inner is None:
                break
            value = inner


def _values(body: bytes) -> Iterator[dict[str, Any]]:
    try:
        value = loosely_within(loosely(body))
    except RecursionError:
        return
    except ValueError:
        yield from _streamed(body)
        return
    if is_object(value):
        yield value


def _with_messages(value: dict[str, Any]) -> dict[str, Any]:
    """A completion whose choices have a text of their own, as those of an older API, with messages in their place."""
    choices = value.get("choices")
    if not is_array(choices) or not any(map(_is_text_alone, choices)):
        return value
    told = [{**choice, "message": {"content": choice["text"]}} for choice in choices if _is_text_alone(choice)]
    return {**value, "choices": told}


def _as_completion(value: dict[str, Any]) -> dict[str, Any] | None:
    """The chat completion that an answer in the form of another service amounts to; None if it is not one."""
    if is_array(candidates := value.get("candidates")):
        return {**value, "choices": [_of_candidate(item) for item in candidates if is_object(item)]}
    message = value.get("message")
    if not is_object(message) and value.get("role") == "assistant":
        message = {"role": "assistant", "content": value.get("content")}
    if not is_object(message):
        text = text_alone(value)
        message = {"role": "assistant", "content": text} if text else None
    if message is None or message.get("role", "assistant") != "assistant" or not message.get("content"):
        return None
    if value.get("done") is False:
        return None  # a part, which says so
    reason = value.get("stop_reason") or value.get("finish_reason") or value.get("done_reason")
    kept = {name: said for name, said in value.items() if name not in ("message", "content", "response", *_TEXTS)}
    return {**kept, "choices": [{"message": message, "finish_reason": reason}]}


def text_alone(value: dict[str, Any]) -> str:
    """The answer in a body that has it as a text, in no structure; `""` if there is none."""
    for name in _TEXTS:
        if isinstance(text := value.get(name), str):
            return text
    word = value.get("status")
    if not isinstance(word, str) or not says_completed(word):
        return ""
    return next(filter(is_answer, map(value.get, _TEXTS_OF_COMPLETED)), "")


def _of_candidate(item: dict[str, Any]) -> dict[str, Any]:
    """A candidate of a service that calls its choices so, and has their texts in parts."""
    content = item.get("content")
    parts = content.get("parts") if is_object(content) else None
    return {"message": {"role": "assistant", "content": parts}, "finish_reason": item.get("finishReason")}


def _is_text_alone(choice: Any) -> bool:
    return is_object(choice) and isinstance(choice.get("text"), str) and "message" not in choice


# --- streams ----------------------------------------------------------------------------------------------------------


def _streamed(body: bytes) -> Iterator[dict[str, Any]]:
    """What the events of a stream amount to: the joined parts of a text, else each, the last first.

    Each is a line of JSON, or an event with one.
    """
    start = body.lstrip()
    is_lines = start.startswith(b"{")
    if not is_lines and not start.startswith(_STREAM):
        return
    events: list[dict[str, Any]] = []
    is_whole = False
    for line in body.splitlines():
        said = line.removeprefix(b"data:").strip()
        if said == b"[DONE]":
            is_whole = True
        elif said.startswith(b"{") and (event := _event(said)) is not None:
            events.append(event)
    chunks = [event for event in events if is_array(event.get("choices"))]
    if not chunks and (parts := [event for event in events if is_object(event.get("message"))]):
        if parts[-1].get("done") is True:
            text = "".join(_content(part["message"]) for part in parts)
            yield {**parts[-1], "message": {"role": "assistant", "content": text}}
        return
    if is_lines and not _are_parts(chunks):
        return  # several whole answers: one of them may be another job's
    if not chunks:
        yield from reversed(events)
        return
    joined = _joined(chunks)
    if is_whole or joined["choices"][0]["finish_reason"] is not None:
        yield joined


def _are_parts(chunks: list[dict[str, Any]]) -> bool:
    """Whether these are the parts of one answer."""
    firsts = [next(iter(chunk["choices"]), None) for chunk in chunks]
    is_one = len({str(chunk.get("id")) for chunk in chunks}) == 1
    return is_one and all(is_object(first) and "delta" in first and "message" not in first for first in firsts)


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        value = loosely(line)
    except (ValueError, RecursionError):
        return None
    return value if is_object(value) else None


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat completion that a stream of its parts amounts to. Each part may repeat the text so far as a message."""
    whole: dict[str, Any] = {}
    text, so_far, reason = "", "", None
    for chunk in chunks:
        whole.update({name: said for name, said in chunk.items() if said is not None})
        choice = next(iter(chunk["choices"]), None)
        if is_object(choice):
            text += _content(choice.get("delta"))
            so_far = max(_content(choice.get("message")), so_far, key=len)
            reason = choice.get("finish_reason") or reason
    message = {"role": "assistant", "content": max(so_far, text, key=len)}
    return {**whole, "choices": [{"index": 0, "finish_reason": reason, "message": message}]}


def _content(message: Any) -> str:
    said = message.get("content") if is_object(message) else None
    return said if isinstance(said, str) else ""
