"""The words of an error in a body, in whatever form it came.

The reason of a failure is documented as one text. It is sent as a text, an object, a list, an object within an object,
JSON within a text, or under another name. So no list of names is looked up here: a field is known by the last word of
its name (`errorMessage`, `faultstring`, `error_description`), and whatever is known by it is collected.

What is collected, in this order, and each thing said once:

1. the first text of an object that is a message, with the names of the error (`code`, `type`) in brackets;
2. its other messages, in the order in which they stand there;
3. the errors within it, and what other objects within it say.

Not collected: fields that may repeat a question or a secret (`input`, `prompt`, `headers`, ...), ids, moments and
addresses. The walk is bounded in depth, in the number of values and in what it collects, so that no body is too much.

This module knows nothing of jobs, of HTTP, or of which field of a body has an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeGuard

import msgspec

from aiopplx._text.names import words_in_name
from aiopplx._text.values import is_array, is_object

_FIRST = (
    "message",
    "errormessage",
    "msg",
    "detail",
    "details",
    "reason",
    "refusal",
    "errordescription",
    "description",
    "title",
    "text",
)
"""Names of a message, the most telling first. Others come after these, as they stand in the body."""
_MESSAGES = ("message", "messages", "msg", "detail", "details", "reason", "reasons", "description", "title")
_COMPOUNDS = ("faultstring", "errorstring", "statustext")
_MORE_MESSAGES = frozenset({
    *("text", "raw", "refusal", "hint", "note", "notes", "warning", "warnings", "explanation", "summary", "info"),
    *("advice", "comment", "diagnostic", "diagnostics", "suggestion", "remedy", "help", "why", "said", "stderr"),
    *("diagnosis", "notice", "notices", "remark", "remarks"),
})
_ALWAYS_ERRORS = frozenset({
    *("error", "errors", "err", "errs", "exception", "exceptions", "fault", "faults", "failure", "failures"),
    *(
        f"{of}{error}"
        for of in (
            *("last", "inner", "sub", "root", "job", "task", "run", "server", "system", "api", "http", "model", "tool"),
            *("request", "response", "internal", "upstream", "field", "validation"),
        )
        for error in ("error", "errors", "exception", "fault", "failure")
    ),
})
"""With compounds that are written as one word, but not every word with such an end: `default`, `terror`."""
_FINDINGS = frozenset({
    *("cause", "causes", "rootcause", "rootcauses", "problem", "problems", "violations", "issues"),
})
"""Names of errors that what a run has found may have, too."""
_ERRORS = _ALWAYS_ERRORS | _FINDINGS
_NAMES = ("code", "type", "status", "param", "field", "pointer", "path", "kind")
_ECHOES = frozenset({
    *("input", "inputs", "prompt", "prompts", "question", "questions", "query", "queries", "querystring", "request"),
    *("body", "payload", "content", "contents", "value", "values", "given", "received", "instance", "ctx", "context"),
    *("arguments", "parameters", "headers", "header", "cookie", "cookies", "authorization", "token", "tokens"),
    *("secret", "secrets", "password", "key", "keys", "apikey", "credentials", "stack", "stacktrace", "traceback"),
})
"""Last words of names whose values may repeat what was asked, or a secret."""
_ASKED = frozenset({"input", "prompt", "question", "query", "original", "request"})
_FACTS = frozenset({
    *("id", "ids", "uuid", "at", "time", "timestamp", "date", "url", "urls", "uri", "href", "link", "links"),
    *("documentation", "docs", "count", "version", "trace", "traceid", "requestid", "usage", "choices", "output"),
})
_NOTHING = frozenset({"none", "null", "nil", "undefined", "no error", "n/a"})
"""What servers write in the place of an error when there is none."""

_DEEPEST = 8
_MOST = 200
"""Values that are looked at."""
_ROWS = 20
"""Items of a list that are looked at."""
_ENOUGH = 2_000
"""Characters of a text; what follows a first message of that length is left out."""
_LABEL = 80
"""Characters of a name of an error."""
_HITS = 20
"""Places of a text in another that are looked at."""
_OPENING = ("{", "[", '"')
_JSON_KEPT = 64 * 1024
_CUT_KEPT = 8 * 1024
_CUT_FIELD = r'"([\w.-]{1,80})"\s*:\s*"((?:[^"\\]|\\.){0,4000})'
_FIELD = r'"([\w.-]{1,80})"\s*:'
_IS_JSON = r'[{,]\s*"[\w.-]{1,80}"\s*:'
_TITLE = r"(?is)<title[^>]{0,200}>(.{0,400}?)</title"
_TAG = r"<[^<>]{0,2000}>"
_LEAF = r"<(?:[\w.-]{1,80}:)?([\w.-]{1,80})(?:\s[^<>]{0,2000})?>([^<>]{1,4000})</"


def words_of(value: object) -> str:
    """The words of an error in any form: `message (code); what else it says`; `""` if there are none."""
    return joined(pieces_of(value))


def pieces_of(value: object) -> list[str]:
    """The same, each thing said by itself."""
    return [] if _is_nothing(value) else _Walk().said(value, is_error=True)


def message_of(value: dict[str, Any]) -> str:
    """The words of an error that is an object, without its name or code; `""` if it has no other words."""
    return joined(_Walk().of_object(value, is_error=True, is_named=False))


def kinds_of(value: dict[str, Any]) -> list[str]:
    """What the server calls an error that is an object: its type, and its code if that is a word."""
    named = {(words_in_name(name) or ("",))[-1]: said for name, said in value.items() if isinstance(said, str) and said}
    return [said for kind in ("type", "code") for last, said in named.items() if last.endswith(kind)]


def joined(pieces: Iterable[str]) -> str:
    """Several things said as one text, without what another of them says too."""
    kept: list[str] = []
    room = _ENOUGH
    for piece in pieces:
        if room <= 0:
            break
        if any(_is_in(piece, other) for other in kept):
            continue
        kept = [other for other in kept if not _is_in(other, piece)]
        kept.append(piece)
        room -= len(piece)
    return "; ".join(kept)


def _is_in(said: str, other: str) -> bool:
    """Whether a text says these words too: `e` is not in `overloaded`."""
    said, other = said.casefold(), other.casefold()
    at = other.find(said)
    for _ in range(_HITS):
        if at < 0:
            break
        end = at + len(said)
        if not (other[at - 1 : at].isalnum() and said[:1].isalnum()) and not other[end : end + 1].isalnum():
            return True
        at = other.find(said, at + 1)
    return False


def object_in(error: object) -> dict[str, Any]:
    """The object that says the most of an error: itself, or the first in a list; `{}` if there is none."""
    for value in error if is_array(error) else [error]:
        if is_object(value):
            return value
    return {}


def is_error_name(name: str) -> bool:
    """Whether only an error has a field of this name: `last_error`, `failure_reason`, `errorMessage`, `faultstring`."""
    words = words_in_name(name)
    if not words:
        return False
    if _is_error(words):
        return True
    is_of_error = any(word.startswith(("error", "failure", "failed", "fault", "exception")) for word in words)
    return is_of_error and (_is_message(words) or words[-1].endswith(("code", "type", "class", "kind", "name")))


def is_always_error_name(name: str) -> bool:
    """The same without names that may as well be those of a finding: `problem`, `cause`, `issues`."""
    return is_error_name(name) and words_in_name(name)[-1] not in _FINDINGS


def is_message_name(name: str) -> bool:
    """Whether a field of this name says something to a person."""
    words = words_in_name(name)
    return bool(words) and (_is_message(words) or _is_error(words))


class _Walk:
    """One walk through a value, with the number of values that it may still look at."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MOST

    def said(self, value: object, depth: int = 0, *, is_error: bool) -> list[str]:
        """What a value says.

        Args:
            value: the value.
            depth: how deep it stands.
            is_error: it stands where an error is, so that a name or a number alone is something said.
        """
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST or value is None or isinstance(value, bool):
            return []
        if isinstance(value, str):
            return self._of_text(value, depth, is_error=is_error)
        if isinstance(value, int | float):
            return [str(value)] if is_error and value and abs(value) < 1e15 else []
        if is_array(value):
            rows = (self.said(item, depth + 1, is_error=is_error) for item in value[:_ROWS])
            return [piece for row in rows for piece in row]
        return self.of_object(value, depth, is_error=is_error) if is_object(value) else []

    def _of_text(self, text: str, depth: int, *, is_error: bool) -> list[str]:
        text = text.strip()
        if not text:
            return []
        if text[0] in "{[":
            if inner := _json_in(text) or fields_before_the_cut(text):
                return self.said(inner, depth + 1, is_error=is_error)
            return [] if re.search(_IS_JSON, text[:_CUT_KEPT]) else [text[:_ENOUGH]]
        if text[0] == '"' and (inner := _text_in(text)):
            return self._of_text(inner, depth + 1, is_error=is_error)
        if text[0] == "<" and (said := text_of_markup(text)):
            return [said[:_ENOUGH]]
        return [text[:_ENOUGH]]

    def of_object(self, value: dict[str, Any], depth: int = 0, *, is_error: bool, is_named: bool = True) -> list[str]:
        """What an object says.

        Args:
            value: the object.
            depth: how deep it stands.
            is_error: it is an error, so that its name alone is something said.
            is_named: with its code or type.
        """
        if isinstance(value.get("role"), str):
            return []  # a message of a conversation
        texts, errors, others = _sorted(value)
        # A text is the message of an error; where there is none, it is whatever its first message consists of.
        texts.sort(key=lambda said: not isinstance(said, str))
        pieces: list[str] = []
        while texts and not pieces:
            pieces = self.said(texts.pop(0), depth + 1, is_error=True)
        labels: list[str] = []
        if pieces:
            # Beside a message a short text is the name of the error: "Bad Request".
            labels = [said.strip() for said in errors if _is_label(said)]
            errors = [said for said in errors if not _is_label(said)]
        while errors and not pieces:
            pieces = self.said(errors.pop(0), depth + 1, is_error=True)
        pieces = _placed(value, _titled(value, pieces))
        if is_named and not is_array(value.get("loc")):  # the type of a row of a validation says nothing more
            labels += _names_in(value)
        labels = [label for label in dict.fromkeys(labels) if not any(_is_in(label, piece) for piece in pieces)]
        if labels and pieces:
            pieces[-1] += f" ({', '.join(labels)})"
        elif labels and is_error:
            pieces = [", ".join(labels)]
        for said in (*texts, *errors):
            pieces += self.said(said, depth + 1, is_error=True)
        for said in others:
            pieces += self.said(said, depth + 1, is_error=False)
        return pieces or (_sorted_by_place(value, is_whole=not is_named) if is_error else [])


def _is_nothing(said: object) -> bool:
    """Whether the text of an error says that there is none. As a message it would be one."""
    return isinstance(said, str) and said.strip().casefold() in _NOTHING


def _is_label(said: object) -> TypeGuard[str]:
    return isinstance(said, str) and 0 < len(said.strip()) <= _LABEL and said.strip()[0] not in "{[<"


def _placed(value: dict[str, Any], pieces: list[str]) -> list[str]:
    """With the place that a row of a validation speaks of before its message."""
    place = value.get("loc")
    if not (pieces and is_array(place) and place):
        return pieces
    parts = [str(part)[:_LABEL] for part in place[:9] if isinstance(part, str | int)]
    return [f"{'.'.join(parts)}: {pieces[0]}", *pieces[1:]] if parts else pieces


def _sorted_by_place(value: dict[str, Any], *, is_whole: bool) -> list[str]:
    """Of errors that are sorted by what they speak of: `{"model": ["is unknown"]}`.

    In what `is_whole` body single texts may be anything, and only lists of texts are errors.
    """
    pieces: list[str] = []
    for name, said in islice(value.items(), _ROWS):
        if not _is_echo_name(name):
            rows = said if is_array(said) else [] if is_whole else [said]
            pieces += [
                f"{name}: {row.strip()}"[:_ENOUGH] for row in rows[:_ROWS] if isinstance(row, str) and row.strip()
            ]
    return pieces


def _sorted(value: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """(messages, errors, other objects) of an object."""
    messages: list[tuple[int, Any]] = []
    errors: list[Any] = []
    others: list[Any] = []
    for name, said in islice(value.items(), _MOST):
        words = words_in_name(name)
        if not words or not said or said is True or _is_echo(words):
            continue
        compound = "".join(words)
        if _is_message(words):
            messages.append((_FIRST.index(compound) if compound in _FIRST else len(_FIRST), said))
        elif _is_error(words):
            errors += [] if _is_nothing(said) else [said]
        elif isinstance(said, str) and said[0] in "{[":
            others.append(_json_in(said))
        elif is_object(said):
            others.append(said)
        elif is_array(said):
            others += [item for item in said[:_ROWS] if is_object(item)]
    messages.sort(key=lambda message: message[0])
    return [said for _, said in messages], errors, others


def _is_message(words: tuple[str, ...]) -> bool:
    if words[-1].endswith(_MESSAGES) or words[-1] in _MORE_MESSAGES:
        return True
    return "".join(words[-2:]).endswith(_COMPOUNDS)


def _is_error(words: tuple[str, ...]) -> bool:
    return words[-1] in _ERRORS


def _is_echo(words: tuple[str, ...]) -> bool:
    return words[-1] in _FACTS or _may_repeat(words)


def _may_repeat(words: tuple[str, ...]) -> bool:
    """Whether a field of these words may repeat what was asked, or a secret."""
    if words[-1] in _ECHOES:
        return True
    is_asked = len(words) == 2 and words[0] in _ASKED  # `prompt_text`
    return is_asked and words[-1] not in _FACTS and not _is_error(words)


def _is_echo_name(name: str) -> bool:
    """Whether a field of this name may repeat what was asked, or is a fact that says nothing to a person."""
    words = words_in_name(name)
    return not words or _is_echo(words)


def _names_in(value: dict[str, Any]) -> list[str]:
    """The names of an error: its code and its type, or whichever other there is."""
    found: dict[str, str] = {}
    for name, said in islice(value.items(), _MOST):
        last = (words_in_name(name) or ("",))[-1]
        kind = next((kind for kind in _NAMES if last.endswith(kind)), "")
        if not kind or kind in found or isinstance(said, bool) or (isinstance(said, int) and not said):
            continue
        if (isinstance(said, str) and said.strip()) or isinstance(said, int):
            found[kind] = str(said).strip()[:_LABEL] if isinstance(said, str) or abs(said) < 1e15 else ""
    main = [found[kind] for kind in ("code", "type") if found.get(kind)]
    return main or [found[kind] for kind in _NAMES if found.get(kind)][:1]


def _titled(value: dict[str, Any], pieces: list[str]) -> list[str]:
    """With the title of an error in the form of RFC 9457 before its detail."""
    title, detail = value.get("title"), value.get("detail")
    if not (isinstance(title, str) and isinstance(detail, str) and pieces):
        return pieces
    title = title.strip().rstrip(".")[:_ENOUGH]
    return pieces if not title or _is_in(title, pieces[0]) else [f"{title}: {pieces[0]}", *pieces[1:]]


def _json_in(text: str) -> Any:
    """The JSON in a text; None if it is none."""
    try:
        return msgspec.json.decode(text) if len(text) <= _JSON_KEPT else None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _text_in(text: str) -> str:
    """The text that a text in quotation marks is if that is an object, or a list, which was encoded once more."""
    inner = _json_in(text)
    return inner.strip() if isinstance(inner, str) and inner.lstrip()[:1] in _OPENING else ""


def fields_before_the_cut(text: str) -> dict[str, str]:
    """The fields of JSON that is cut short or malformed which are texts, at whatever depth.

    Where a field may repeat what was asked the reading ends, since nothing says where that field ends.
    """
    found: dict[str, str] = {}
    for name, said in re.findall(_CUT_FIELD, _before_echoes(text[:_CUT_KEPT])):
        if name in ("role", "text"):
            continue  # of a conversation, as far as is known
        try:
            found.setdefault(name, msgspec.json.decode(f'"{said}"', type=str))
        except (msgspec.DecodeError, UnicodeEncodeError):
            found.setdefault(name, said)
    return found


def _before_echoes(text: str) -> str:
    """JSON up to its first field that may repeat what was asked."""
    for field in re.finditer(_FIELD, text):
        words = words_in_name(field[1])
        if words and (words[-1] == "messages" or _may_repeat(words)):
            return text[: field.start()]
    return text


def text_of_markup(text: str) -> str:
    """The words of markup: the title of a page; of XML its fields that say something, else all of its text."""
    import html  # all names of characters; few servers answer with markup

    if title := re.search(_TITLE, text[:_JSON_KEPT]):
        return " ".join(html.unescape(title[1]).split())  # the rest of a page may repeat what was asked
    leaves: dict[str, Any] = {}
    for name, said in re.findall(_LEAF, text[:_JSON_KEPT])[:_ROWS]:
        leaves.setdefault(name, html.unescape(said).strip())
    return joined(_Walk().of_object(leaves, is_error=False)) or " ".join(html.unescape(re.sub(_TAG, " ", text)).split())
