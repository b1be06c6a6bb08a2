"""Reads HTML that was made from hostile text, and says what is in it that should not be.

Two readers that know nothing of each other: Python's parser with a list of what may be there, and nh3, which parses as
a browser does. What one of them overlooks, the other one finds.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import urlsplit

import nh3

_BARE = "p em strong s code pre ul li blockquote hr br div table thead tbody tr th td sup span h1 h2 h3 h4 h5 h6"
ANSWER: dict[str, set[str]] = {
    **{tag: set[str]() for tag in _BARE.split()},
    "ol": {"start"},
    "a": {"href", "rel", "id"},
    "th": {"style"},
    "td": {"style"},
}
"""What an answer may be made of: elements, each with its attributes. Classes stand in `CLASSES`."""
CLASSES = {"div": {"wide"}, "sup": {"marks"}, "span": {"lost"}, "pre": {"plain"}}
_STYLE = re.compile(r"text-align:(?:left|right|center)")


class Reader(HTMLParser):
    """Collects what is not on a list.

    Args:
        allowed: elements, each with its attributes.
        classes: elements, each with its classes; None allows any class.
        anchor: what an address within the page looks like.
        style: what a `style` looks like.
    """

    def __init__(
        self,
        allowed: dict[str, set[str]],
        *,
        classes: dict[str, set[str]] | None,
        anchor: re.Pattern[str],
        style: re.Pattern[str] = _STYLE,
    ) -> None:
        super().__init__()
        self._allowed, self._classes, self._anchor, self._style = allowed, classes, anchor, style
        self.wrong: list[str] = []
        self.text = ""
        self.elements: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        if tag not in self._allowed:
            self.wrong.append(tag)
        self.wrong += [f"{tag} {name}={value!r}" for name, value in attrs if not self._may_have(tag, name, value or "")]

    def _may_have(self, tag: str, name: str, value: str) -> bool:
        if name == "class" and self._classes is not None:
            return value in self._classes.get(tag, set())
        if name == "style" and not self._style.fullmatch(value):
            return False
        if name in ("href", "src", "srcset", "action", "content") and tag != "meta":
            parts = urlsplit(value)
            is_web = parts.scheme in ("http", "https") and bool(parts.netloc)
            return name in self._allowed.get(tag, set()) and (is_web or bool(self._anchor.fullmatch(value)))
        return name in self._allowed.get(tag, set())

    def handle_data(self, data: str) -> None:
        self.text += data

    handle_startendtag = handle_starttag

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"comment {data!r}")

    def handle_decl(self, decl: str) -> None:
        if decl != "doctype html":
            self.wrong.append(f"declaration {decl!r}")

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"instruction {data!r}")


def read(
    html: str,
    allowed: dict[str, set[str]] = ANSWER,
    *,
    classes: dict[str, set[str]] | None = CLASSES,
    anchor: str = r"#q1-s\d+",
    style: str = _STYLE.pattern,
) -> Reader:
    """What there is in it; `wrong` is empty if all of it is allowed."""
    reader = Reader(allowed, classes=classes, anchor=re.compile(anchor), style=re.compile(style))
    reader.feed(html)
    reader.close()
    return reader


def cleaned(html: str, allowed: dict[str, set[str]] = ANSWER) -> str:
    """The same through a second sanitizer, which leaves out what is not allowed."""
    return nh3.clean(
        html,
        tags=set(allowed),
        clean_content_tags=set(),
        attributes={tag: names | {"class"} for tag, names in allowed.items()},
        generic_attribute_prefixes=set(),
        link_rel=None,
        url_schemes={"http", "https"},
    )


def differs(html: str, allowed: dict[str, set[str]] = ANSWER) -> list[str]:
    """What the second sanitizer would change: elements, attributes or text."""
    again = cleaned(html, allowed)
    found = []
    for what in (_elements, _attributes, _text):
        before, after = what(html), what(again)
        if before != after:
            found.append(
                f"{what.__name__}: {list((before - after).items())[:5]} became {list((after - before).items())[:5]}"
            )
    return found


class _All(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[tuple[str, str, str | None]] = Counter()
        self.words: Counter[str] = Counter()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes.update((tag, name, value) for name, value in attrs)

    def handle_data(self, data: str) -> None:
        self.words.update(data.split())


def _elements(html: str) -> Counter[str]:
    return _All(html).elements


def _attributes(html: str) -> Counter[tuple[str, str, str | None]]:
    return _All(html).attributes


def _text(html: str) -> Counter[str]:
    return _All(html).words
