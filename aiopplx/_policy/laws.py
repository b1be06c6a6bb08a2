"""The learnt laws of a session, one for each kind of job; and the form in which a journal keeps them.

A kind starts from what is published about it. One of which nothing is published starts from what the other kinds of its
API have shown in this session or an earlier one, since an API's jobs resemble each other more than a guess.

This module knows nothing of single jobs, of journals, or of how a law is learned (`durations`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from aiopplx._policy.durations import PRICE, Law, Shape, guess, pooled
from aiopplx._wire.kinds import NOTHING, Kind, Published

MOST = 64
"""Kinds whose laws are held at once; the one that was needed longest ago gives way."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(dict[str, bytes])


class Laws:
    """The laws by kind.

    Args:
        published: what is published about a kind. Default: nothing about any.
        price: seconds of a result's delay that one poll is worth.
    """

    __slots__ = ("_laws", "_price", "_published")

    def __init__(self, published: Callable[[Kind], Published] = lambda kind: NOTHING, price: float = PRICE) -> None:
        self._published = published
        self._price = price
        self._laws: dict[Kind, Law] = {}

    def of(self, kind: Kind) -> Law:
        """The law of a kind, the same object as long as it is needed."""
        laws = self._laws
        law = laws.pop(kind, None)
        if law is None:
            law = Law(self._start(kind), self._price)
            if len(laws) >= MOST:
                del laws[next(iter(laws))]
        laws[kind] = law
        return law

    @property
    def finished(self) -> int:
        """Jobs whose end was seen, over all kinds: it has changed if anything was learned."""
        return sum(law.finished for law in self._laws.values())

    @property
    def latest(self) -> Law | None:
        """The law that was needed last; None if none ever was."""
        return next(reversed(self._laws.values()), None)

    def _start(self, kind: Kind) -> Shape:
        known = self._published(kind)
        start = guess(known.seconds, known.sigma)
        if known != NOTHING:
            return start
        others = [law for other, law in self._laws.items() if other.api == kind.api and law.finished]
        return pooled(others, start) if others else start

    def export(self) -> bytes:
        """What was learned of all kinds, two kilobytes each; `b""` if nothing was."""
        known = {str(kind): law.export() for kind, law in self._laws.items() if law.finished}
        return _ENCODER.encode(known) if known else b""

    def restore(self, kept: bytes) -> None:
        """Go on from an `export` of an earlier session. What cannot be read is as if it had not been learned."""
        try:
            known = _DECODER.decode(kept)
        except (msgspec.DecodeError, ValueError):
            return
        for label, learned in list(known.items())[-MOST:]:
            kind = Kind.of(label)
            self._laws[kind] = Law.restored(learned, self._start(kind), self._price)
