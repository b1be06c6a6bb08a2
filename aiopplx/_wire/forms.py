"""Jobs and finished answers in forms that are not those of the API that was asked, as plain values.

A paid answer must not be lost because it came in a wrapper, as a stream that nobody asked for, or in the form of
another service. `answers_in` finds the objects of a body in which an answer may stand, and brings forms that no
registered API has into that of a chat completion, or of a response object. Which of these objects is an answer, its API
says (`API.recognise`). `jobs_in` finds the objects that may be the job itself.

The words of an answer are looked for by where they stand and by what they are: a text, a text within an object, the
parts of a message, the last message of a conversation, JSON within a text. What was asked, thought or sought is none of
it. A text alone (`"result": "..."`) is an answer only where the job says that it is completed: elsewhere it may be a
word about it. JSON within a text is opened only if it is in the form of a service: it may be the answer itself.

A list is never searched: it may hold other jobs. A stream that was cut short holds no answer.

This module knows nothing of jobs, or of any one API.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any

from aiopplx._job import JobStatus
from aiopplx._text.names import words_in_name
from aiopplx._text.thought import is_thought
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import is_message_name
from aiopplx._wire.decoding import loosely, loosely_within
from aiopplx._wire.roles import Part, answering, part_of
from aiopplx._wire.status import ends_of, is_answer, says_completed, status_of
from aiopplx._wire.thinking import Thinking

_TEXTS = ("output_text", "answer", "completion")
"""Where nothing but an answer stands, whatever the job says of its end."""
_TEXTS_OF_COMPLETED = (
    *("output", "outputs", "response", "result", "results", "final_answer", "final_report", "report", "generated_text"),
    *("response_text", "markdown", "text", "content", "data", "message", "messages", "body", "payload"),
)
_NEVER_ALONE = frozenset({"message", "messages", "body", "payload"})
"""Where a text is about the job, or what was asked."""
_WRAPPERS = ("response", "result", "data", "completion", "output", "answer", "body", "payload", "message", "content")
_JOB_WRAPPERS = frozenset({*_WRAPPERS, "job", "run", "task", "item", "record", "value", "object", "resource"})
_DEEPEST = 3
_MOST = 50
"""Objects that are looked at."""
_INNER = ("choices", "candidates", "message", "messages", "output_text", "text", "content", "parts", "value", "answer")
_INNER_OF_COMPLETED = ("output", "response", "result", "final_answer", "report", "markdown", "generated_text")
_BESIDE = (
    *("usage", "citations", "search_results", "model", "created", "stop_reason", "finish_reason"),
    *Thinking.__struct_fields__,
)
"""What stands beside a text, and belongs to it."""
_MARKS = ("channel", "phase", "recipient")
_ASSISTANT = frozenset({"assistant", "model", "ai", "bot"})
_SPOKEN = frozenset({"message", "text", "output_text", "markdown", "content", "answer", "completion", *_ASSISTANT})
_DONE = ("_call", "_results", "_result", "_output", "_use", "refusal", "error")
"""How the types of what a run did, and did not say, end."""
_OF_PAGES = frozenset({"url", "uri", "link", "href", "snippet", "source"})
"""What a page has that was found, and a part of a text has not."""
_STREAM = (b"data:", b"event:", b"id:", b":")


def answers_in(body: bytes) -> Iterator[dict[str, Any]]:
    """The objects in a body that may be a finished answer, the outermost first; last those with a text alone."""
    for value in _values(body):
        found = [*islice(_answers(value, False, 0), _MOST)]
        for each, _ in found:
            yield each
            if (run := _as_run(each)) is not None:
                yield run
        for each, is_over in found:
            if (completion := _as_completion(each, is_over)) is not None:
                yield completion


def jobs_in(body: bytes) -> Iterator[dict[str, Any]]:
    """The objects in a body that may be the job, with what is said about it outside of them; the outermost first."""
    for value in _values(body):
        left = [_MOST]
        yield from _jobs(value, {}, 0, left)


def _jobs(value: dict[str, Any], about: dict[str, Any], depth: int, left: list[int]) -> Iterator[dict[str, Any]]:
    left[0] -= 1
    yield {**about, **value}
    if depth >= _DEEPEST:
        return
    outside = {name: said for name, said in value.items() if is_message_name(name) and _is_said(said)}
    for name, said in value.items():
        inner = _only(loosely_within(said))
        if is_object(inner) and left[0] > 0 and (words_in_name(name) or ("",))[-1] in _JOB_WRAPPERS:
            kept = {each: text for each, text in (about | outside).items() if each != name and each not in inner}
            yield from _jobs(inner, kept, depth + 1, left)


def _is_said(said: Any) -> bool:
    return is_answer(said) or ((is_object(said) or is_array(said)) and bool(said))


def _only(value: Any) -> Any:
    return value[0] if is_array(value) and len(value) == 1 else value


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


def _answers(value: dict[str, Any], is_over: bool, depth: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """Each object with whether the job has ended by what it, or what it stands in, says."""
    is_over = is_over or says_completed(status_of(value)) or ends_of(value) == _COMPLETED
    yield _with_usage(_with_messages(value)), is_over
    if depth >= _DEEPEST or value.get("done") is False:
        return
    for name in _WRAPPERS:
        said = loosely_within(value.get(name))
        inner = _only(said)
        is_page = is_array(said) and is_object(inner) and not _OF_PAGES.isdisjoint(inner)
        if is_object(inner) and not is_page and not _is_of_others(inner):
            beside = {each: value[each] for each in _BESIDE if each in value}
            yield from _answers({**beside, **inner}, is_over, depth + 1)


_COMPLETED = frozenset({JobStatus.COMPLETED})


def _with_messages(value: dict[str, Any]) -> dict[str, Any]:
    """A completion whose choices have their texts in another form than a message, with messages in their place."""
    choices = loosely_within(value.get("choices"))
    if is_object(choices):
        choices = [choices]
    if not is_array(choices) or (choices is value["choices"] and all(map(_has_message, choices))):
        return value
    return {**value, "choices": [*map(_with_message, choices)]}


def _with_message(choice: Any) -> Any:
    if _has_message(choice) or not (content := _spoken(choice, 0)):
        return choice
    if not is_object(choice):
        return {"message": {"content": content}}
    marks = {name: choice[name] for name in _MARKS if name in choice}
    return {**choice, "message": {"content": content, **marks}}


def _has_message(choice: Any) -> bool:
    message = choice.get("message") if is_object(choice) else None
    content = message.get("content") if is_object(message) else None
    if is_array(content):
        return any(isinstance(part.get("text"), str) for part in content if is_object(part))
    return isinstance(content, str) or (content is None and is_object(message) and not is_object(choice.get("text")))


def _with_usage(value: dict[str, Any]) -> dict[str, Any]:
    """With the tokens of its usage under the names that a completion has for them, too."""
    usage = value.get("usage")
    if not is_object(usage) or "input_tokens" not in usage or "prompt_tokens" in usage:
        return value
    counted = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage.get("output_tokens")}
    return {**value, "usage": {**counted, **usage}}


def _as_run(value: dict[str, Any]) -> dict[str, Any] | None:
    """The response object whose output stands elsewhere than in `output`; None if there is none."""
    for name in (*_TEXTS, *_TEXTS_OF_COMPLETED):
        items = loosely_within(value.get(name))
        if name == "output" and items is value.get(name):
            continue
        if is_array(items) and any(is_object(item) and item.get("type") == "message" for item in items):
            kept = {each: said for each, said in value.items() if each != name}
            return {"status": "completed", **kept, "object": "response", "output": items}
    return None


def _as_completion(value: dict[str, Any], is_over: bool) -> dict[str, Any] | None:
    """The chat completion that an answer in the form of another service amounts to; None if it is not one."""
    if is_array(candidates := value.get("candidates")):
        return {**value, "choices": [_of_candidate(item) for item in candidates if is_object(item)]}
    if value.get("done") is False:
        return None  # a part, which says so
    said = _said_in(value, is_over)
    content = _spoken(said, 0)
    if not content:
        return None
    holder = _only(loosely_within(said))
    if is_object(holder) and (not isinstance(said, str) or _is_form(holder)):
        value = _with_usage({**value, **{name: holder[name] for name in _BESIDE if holder.get(name) is not None}})
    reason = value.get("stop_reason") or value.get("finish_reason") or value.get("done_reason")
    thoughts = {name: value[name] for name in Thinking.__struct_fields__ if name in value}
    speaker = holder if is_object(holder) else value
    marks = {name: speaker[name] for name in _MARKS if name in speaker}
    message = {"role": "assistant", "content": content, **thoughts, **marks}
    kept = {name: said for name, said in value.items() if name not in ("message", "content", "response", *_TEXTS)}
    return {**kept, "choices": [{"message": message, "finish_reason": reason}]}


def _said_in(value: dict[str, Any], is_over: bool) -> Any:
    """What has the text of the answer, in an object that may be the job; None if nothing has."""
    message = value.get("message")
    if is_object(message) and ("role" in message or is_over):
        return message
    role = value.get("role")
    if isinstance(role, str) and role.lower() in _ASSISTANT:
        return value
    for name in (*_TEXTS, *(_TEXTS_OF_COMPLETED if is_over else ())):
        said = value.get(name)
        if name in _NEVER_ALONE:
            said = loosely_within(said)
        if not (isinstance(said, str) and name in _NEVER_ALONE) and _spoken(said, 0):
            return said
    return None


# --- the words of an answer -------------------------------------------------------------------------------------------


def _spoken(said: Any, depth: int) -> Any:
    """The text of an answer, or its parts, in a value that stands where an answer should; None if there is none."""
    if isinstance(said, str):
        inner = loosely_within(said)
        if not isinstance(inner, str) and _is_form(inner):
            return _spoken(inner, depth + 1)
        return said if is_answer(said) else None
    if depth > 2 * _DEEPEST:
        return None
    if is_array(said):
        return _spoken_in_list(said, depth)
    if not is_object(said) or not _is_spoken(said):
        return None
    is_choice = "finish_reason" in said or "index" in said
    for name in (*_INNER, *_INNER_OF_COMPLETED):
        inner = said.get(name)
        if name == "message" and isinstance(inner, str) and not is_choice:
            continue  # about what it stands in
        if content := _spoken(inner, depth + 1):
            return content
    return None


def _spoken_in_list(rows: list[Any], depth: int) -> Any:
    if rows and all(isinstance(row, str) for row in rows):
        text = "".join(rows)
        return text if is_answer(text) else None
    objects = [row for row in rows if is_object(row)]
    if said := [row for row in objects if "role" in row]:  # a conversation: the last word is the answer, if it is one
        last = [*takewhile(lambda row: not _is_of_others(row), reversed(said))]
        return _spoken(answering((_kind(row), row) for row in last)[0], depth + 1) if last else None
    if any("message" in row or "delta" in row or "finish_reason" in row for row in objects):  # choices
        spoken = ((_kind(row), said) for row in objects if (said := _spoken({"index": 0, **row}, depth + 1)))
        return next(iter(answering(spoken)), None)
    parts = [_part(row, depth) for row in objects]
    kept = [part for part in parts if part is not None]
    return kept if any(not is_thought(part["type"]) for part in kept) else None


def _kind(row: dict[str, Any]) -> Part:
    """What a message is, or a choice that holds one, by what it says of itself."""
    message = row.get("message")
    row = {**message, **row} if is_object(message) else row
    return part_of(row.get("channel"), row.get("phase"), row.get("recipient"), row.get("status"))


def _part(row: dict[str, Any], depth: int) -> dict[str, Any] | None:
    """A part of a message with its text where a part has it; None if it has none."""
    if is_thought(row.get("type")):
        return row
    if row.get("thought") is True:
        return {**row, "type": "thought"}
    if not _OF_PAGES.isdisjoint(row):
        return None
    text = _spoken(row, depth + 1)
    if is_array(text):
        text = "".join(part.get("text", "") for part in text if not is_thought(part["type"]))
    return {**row, "type": "text", "text": text} if text else None


def _is_spoken(said: dict[str, Any]) -> bool:
    """Whether an object may be the model's words."""
    kind = said.get("type")
    is_typed = isinstance(kind, str) and kind.lower() not in _SPOKEN and "choices" not in said
    return not is_typed and not _is_of_others(said)


def _is_of_others(said: dict[str, Any]) -> bool:
    """Whether an object is the caller's words, a thought, or what a tool did."""
    role, kind = said.get("role"), said.get("type")
    if isinstance(role, str) and role.lower() not in _ASSISTANT:
        return True
    return isinstance(kind, str) and (is_thought(kind) or kind.lower().endswith(_DONE))


def _is_form(value: Any) -> bool:
    """Whether JSON within a text is an answer in the form of a service, and not an answer that is JSON."""
    if is_array(value):
        return bool(value) and all(is_object(row) and _is_form(row) for row in value)
    if not is_object(value):
        return False
    kind, message = value.get("type"), value.get("message")
    if isinstance(kind, str) and (
        is_thought(kind) or (kind.lower() in _SPOKEN and ("text" in value or "content" in value))
    ):
        return True
    holds = any(is_array(value.get(name)) or is_object(value.get(name)) for name in ("choices", "candidates", "output"))
    return holds or "output_text" in value or "role" in value or (is_object(message) and _is_form(message))


def _of_candidate(item: dict[str, Any]) -> dict[str, Any]:
    """A candidate of a service that calls its choices so, and has their texts in parts."""
    content = item.get("content")
    parts = content.get("parts") if is_object(content) else None
    if is_array(parts):
        parts = [_part(part, 0) or part for part in parts if is_object(part)]
    return {"message": {"role": "assistant", "content": parts}, "finish_reason": item.get("finishReason")}


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
