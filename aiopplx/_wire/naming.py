"""What may name a job in the answer to a submission that has no `id` where it belongs.

The server has accepted something, and a job is probably at work and billed: an id that was received must not be called
unknown. But it is not believed either. Under a wrong id a job would be polled that is not there, and be told as gone,
which ends the doubt: the question is asked anew under another key, and paid a second time. Or another's answer would be
handed out as this one's. In doubt, the same bytes are sent again under the same key, which is free where keys are
honoured, and elsewhere nothing is sent until the user has looked. So what is found here goes into the error, with where
it was found, and whoever reads it decides. Only an id that is asked for by name is believed under another name
(`is_named`): there the user, or the server itself, has said before that it is a job's.

No list of names is complete, so the rule is about words. A field holds an id if the last word of its name says so
(`id`, `uuid`, ...), or if it is an address that ends in one. Whose id it is says the word before that, or else the name
of what it stands in. From the most to the least likely:

1. that of a piece of work (`job_id`, `taskId`, `{"run": {"id": ..}}`);
2. one that does not say whose it is (`uuid`, `_id`, `{"data": {"id": ..}}`);
3. an address, in the headers that RFC 9110 has for what a request has made, or in a link of the body;
4. that of a piece of work in a header (`x-job-id`);
5. that of something unknown (`ticket_id`), or one in a sentence (`job 123e4567-... was accepted`);
6. that of the request, where nothing else is there.

An id of a person, of a conversation or of an exchange (`user_id`, `trace_id`) names no job, nor does one of another
piece of work (`parent_job_id`), or what stands in the content and the labels of an answer. Where two candidates differ
both are told, in this order.

This module knows nothing of any one API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiopplx._text.names import words_in_name
from aiopplx._text.safe import BODY_KEPT, plain
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import is_message_name
from aiopplx._wire.said import text_of, value_of

_ID = frozenset({"id", "uuid", "guid", "oid", "identifier", "handle", "ref", "reference"})
_WORK = frozenset({
    *("job", "task", "run", "response", "operation", "completion", "research", "execution", "process", "async"),
    *("prediction", "generation", "work", "workflow", "submission", "result", "query", "report", "api"),
})
_COMPOUNDS = {f"{work}id": work for work in (*_WORK, "request")} | {f"{work}uuid": work for work in _WORK}
_OTHERS = frozenset({
    *("user", "account", "org", "organization", "organisation", "project", "tenant", "customer", "client", "owner"),
    *("session", "trace", "span", "correlation", "conversation", "thread", "message"),
    *("model", "key", "idempotency", "workspace", "team", "node", "server", "host", "worker", "cluster", "region"),
    *("event", "error", "author", "member", "group", "device", "file", "source", "assistant", "agent", "preset"),
    *("vendor", "provider", "transaction", "connection", "ray", "instance", "deployment", "call", "batch"),
})
_ELSEWHERE = frozenset({"parent", "previous", "prev", "next", "root", "related", "original"})
_CONTENT = frozenset({
    *("metadata", "labels", "tags", "input", "output", "messages", "choices", "tools", "usage", "citations", "results"),
    *("reasoning", "text", "content", "images", "error", "errors", "headers", "files"),
})
_ADDRESSES = frozenset({"url", "uri", "href", "link", "self", "location", "get", "poll", "path"})
_COLLECTIONS = frozenset(
    {f"{work}s" for work in _WORK} | {"queries", "processes", "sonar", "agent", "async", "completions", "requests"}
)
_MADE = ("location", "content-location", "operation-location", "azure-asyncoperation")
_NOT_AN_ID = frozenset({*_COLLECTIONS, "v1", "chat", "api"})
_HOST = r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*"

_DEEPEST = 6
_MOST = 200
_LONGEST = 1_000
_SHOWN = 4

_OF_WORK, _BARE, _ADDRESS, _HEADER, _UNKNOWN, _OF_REQUEST = range(1, 7)


class Candidate(NamedTuple):
    """What may name a job.

    Attributes:
        rank: how likely, from 1 for the most.
        id: the id.
        where: the name that it was found under.
    """

    rank: int
    id: str
    where: str


def candidates(value: object, headers: Mapping[str, str], raw: bytes = b"") -> list[Candidate]:
    """Whatever may name a job in an answer, the likeliest first, each id once.

    Args:
        value: the body as plain values; None if it is not JSON.
        headers: those of the answer.
        raw: the body itself, which is searched where it is not JSON.
    """
    found = [*_in_value(value, "", 0, [_MOST]), *_in_headers(headers)]
    if value is None:
        found += _in_text(raw)
    exchange = headers.get("x-request-id")
    found = [each for each in found if each.rank < _OF_REQUEST or each.id != exchange]
    found.sort(key=lambda candidate: candidate.rank)
    best = {candidate.id: candidate for candidate in reversed(found)}
    kept = [candidate for candidate in found if best[candidate.id] is candidate]
    # The id of an exchange says something only where nothing else does.
    named = [candidate for candidate in kept if candidate.rank < _OF_REQUEST]
    return named or kept


def is_named(value: dict[str, Any], job_id: str) -> bool:
    """Whether a body without an `id` says by another name that it is the job with this id."""
    if value.get("id") not in (None, ""):
        return False
    named = candidates(value, {})
    return bool(named) and named[0].id == job_id


def names_a_job(value: dict[str, Any]) -> bool:
    """Whether a body says of something that it is a job, whatever else it says."""
    return any(each.rank <= _ADDRESS for each in candidates(value, {}))


def told(found: list[Candidate]) -> str:
    """Where the ids were found, for a person: `task_id says 'a', x-job-id says 'b'`."""
    return ", ".join(f"{plain(each.where, 40)} says {plain(each.id, 80)!r}" for each in found[:_SHOWN])


# --- in values --------------------------------------------------------------------------------------------------------


def _in_value(value: object, name: str, depth: int, left: list[int]) -> Iterator[Candidate]:
    """Those in a value that stands under `name`, the outer ones first. `left`: how many values may still be seen."""
    left[0] -= 1
    if left[0] < 0 or depth > _DEEPEST:
        return
    if is_array(value):
        if len(value) == 1:  # a longer one may hold other jobs
            yield from _in_value(value[0], name, depth + 1, left)
        return
    if not is_object(value):
        if (named := _as_id(value)) and (name or _is_token(named)):
            yield from _of_field(name, "", named)
        return
    inner: list[tuple[str, object]] = []
    for field, given in value.items():
        said = _opened(given)
        if is_object(said) or is_array(said):
            inner.append((field, said))
        elif named := _as_id(said):
            yield from _of_field(field, name, named)
            if _is_token(named) and words_in_name(field)[-1:] in _ALONE:
                yield Candidate(_UNKNOWN, named, field)
            if is_message_name(field):
                yield from _in_sentence(named, field)
    for field, said in inner:
        words = words_in_name(field)
        if _kind_of(words) is not None:
            if named := _only_value(said):
                yield from _of_field(field, name, named)
        elif not (words and words[-1] in (_OTHERS | _CONTENT)):
            if words[-1:] in _ALONE and _is_token(named := _only_value(said)):
                yield Candidate(_UNKNOWN, named, field)
            yield from _in_value(said, field if words and words[-1] not in _WRAPPERS else name, depth + 1, left)


def _opened(given: object) -> object:
    """JSON within a text: a body within the body is as good as an object."""
    if not isinstance(given, str) or given[:1] not in ("{", "[", '"') or (given[0] != "{" and len(given) > _LONGEST):
        return given
    if given[0] == "{":
        return value_of(given.encode("utf-8", "replace"))
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return given


_ALONE = frozenset({(work,) for work in ("job", "task", "run", "operation", "execution", "prediction", "submission")})
"""Where a text that looks like an id may be one, although nothing says so: `{"job": "a1b2c3d4"}`."""
_WRAPPERS = frozenset({"data", "body", "payload", "item", "value", "links", "urls", "meta", "attributes"})


def _of_field(field: str, inside: str, said: str) -> Iterator[Candidate]:
    words = words_in_name(field)
    kind = _kind_of(words)
    if kind is not None:
        rank = _rank(kind, words_in_name(inside) if not kind else ())
        if rank:
            yield Candidate(rank, said, f"{inside}.{field}" if inside and not kind else field)
        return
    if not words:
        yield Candidate(_BARE, said, "the body")
    elif (words[-1] in _ADDRESSES and (named := _after_a_collection(said))) or (
        words == ("name",) and "://" not in said and (named := _after_a_collection(f"/{said}"))
    ):
        yield Candidate(_ADDRESS, named, field)


def _kind_of(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """The words that say whose id a field of this name holds; None if it holds none."""
    if not words:
        return None
    if words[-1] in _COMPOUNDS:
        return (*words[:-1], _COMPOUNDS[words[-1]])
    return words[:-1] if words[-1] in _ID else None


def _rank(kind: tuple[str, ...], inside: tuple[str, ...]) -> int:
    """How likely such an id is a job's; 0 if it is not."""
    words = kind or inside
    last = words[-1] if words else ""
    if last in _OTHERS or not _ELSEWHERE.isdisjoint(words):
        return 0
    if last in _WORK:
        return _OF_WORK
    if last == "request":
        return _OF_REQUEST
    return _UNKNOWN if kind else _BARE


def _as_id(value: object) -> str:
    """A value as an id; `""` if it cannot be one."""
    if isinstance(value, str):
        return value if value.strip() and len(value) <= _LONGEST else ""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**40 else ""


def _only_value(value: object, depth: int = 0) -> str:
    """The one value in an object or a list of one: `{"value": ..}`, `{"$oid": ..}`, `[..]`; `""` if there are more."""
    if is_object(value):
        named = [said for field, said in value.items() if (words_in_name(field) or ("",))[-1] in (*_ID, "value")]
        value = named or [*value.values()]
    if is_array(value) and len(value) == 1:
        return _as_id(value[0]) or (_only_value(value[0], depth + 1) if depth < _DEEPEST else "")
    return ""


# --- in addresses and headers -----------------------------------------------------------------------------------------


def _segments(address: str) -> list[str]:
    path = re.sub(_HOST, "", address[: 4 * _LONGEST].strip()).split("?")[0].split("#")[0]
    return [unquote(part) for part in path.split("/") if part] if "/" in path else []


def _after_a_collection(address: str) -> str:
    """The id that follows the name of a collection of jobs: `/v1/jobs/<id>/status`."""
    parts = _segments(address)
    places = [at for at, part in enumerate(parts[:-1]) if part.lower() in _COLLECTIONS]
    named = parts[places[-1] + 1] if places else ""
    return "" if named.lower() in _NOT_AN_ID else named


def _in_headers(headers: Mapping[str, str]) -> Iterator[Candidate]:
    for place in _MADE:
        parts = _segments(headers.get(place) or "")
        named = _after_a_collection(headers.get(place) or "") or (parts[-1] if parts else "")
        if named and named.lower() not in _NOT_AN_ID:
            yield Candidate(_ADDRESS, named, place)
    for name, said in headers.items():
        kind = _kind_of(words_in_name(name))
        if kind and (named := _as_id(said.strip())) and _rank(kind, ()) == _OF_WORK:
            yield Candidate(_HEADER, named, name.lower())


# --- in what is not JSON ----------------------------------------------------------------------------------------------

_ONE_WORD = r"(?a)[\w.:-]*[0-9][\w.:-]*"
_FIELD = r"""<?"?([\w.-]{1,80})"?\s*(?:>|:|=)\s*"?([^\s"'<>&,;{}\[\]]{1,1000})(?=["'<&,;\s}]|\Z)"""
_UUID = r"(?i)\b(?:[a-z]{1,16}_)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_WHOLE = r'"([\w.-]{1,80})"\s*:\s*("(?:[^"\\]|\\.){1,4000}"|[0-9]{1,40})(?=\s*[,}])'


def _is_token(text: str) -> bool:
    """Whether a text on its own looks like an id: one word with a digit, of some length."""
    return len(text) >= 8 and re.fullmatch(_ONE_WORD, text) is not None


def _in_sentence(text: str, where: str) -> Iterator[Candidate]:
    """Those in words for people, of the form that nearly all ids have, and that nothing else has."""
    for named in re.findall(_UUID, text[:_LONGEST])[:_SHOWN]:
        yield Candidate(_UNKNOWN, named, where)


def _in_text(raw: bytes) -> Iterator[Candidate]:
    """Those in JSON that was cut short, in XML, a form, or a text that is nothing but an id."""
    text = text_of(raw[:BODY_KEPT]).strip()
    if _is_token(text):
        yield Candidate(_BARE, text, "the body")
    elif text.startswith("{"):
        for name, said in re.findall(_WHOLE, text):
            yield from _of_field(name, "", str(json.loads(said, strict=False)) if said[0] == '"' else said)
    elif not re.match(r"(?i)<(!doctype html|html|head|body)\b", text):
        yield from _in_sentence(text, "the body")
        for name, said in re.findall(_FIELD, text):
            if _kind_of(words_in_name(name)) is not None:
                yield from _of_field(name, "", unquote(said))
