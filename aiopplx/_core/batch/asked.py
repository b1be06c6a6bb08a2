"""What the batches of a session without a journal have asked, so that it can be said before it is paid for again.

A notebook's cell that is run twice, or a batch that is started again after it stopped, asks the same questions. With a
journal they are the same submissions; without one nothing is known of them but what this module keeps. It knows nothing
of batches, of sending, or of how a cost is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from aiopplx._submission import Submission

REMEMBERED = 10_000
"""Questions, those asked last: about a megabyte."""
COUNTED = 1_000
"""Items of a source that are looked at to say how many are asked again."""


class Asked:
    """Remembers questions by a hash of what is sent for them, with the batch that asked first.

    Args:
        most: questions, and batches, that are remembered: those that came last.
    """

    __slots__ = ("_by", "_costs", "_most")

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._by: dict[int, int] = {}
        self._costs: dict[int, tuple[int, float]] = {}

    def by(self, batch: int, sub: Submission) -> int:
        """The number of the batch that asked this first; the given one, which is remembered, if none has.

        Args:
            batch: the number of the batch that asks now. A question that stands twice in it is meant twice.
            sub: not sent yet. One under the caller's own key is not paid for twice, whoever sends it.
        """
        request = sub.request
        if request is None or request.idempotency_key:
            return batch
        # Two equal questions differ in their key, and in nothing else that is sent.
        question = hash((sub.tag, sub.body.replace(sub.key.encode(), b"", 1)))
        known = self._by
        first = known.setdefault(question, batch)
        if first == batch and len(known) > self._most:
            del known[next(iter(known))]
        return first

    def cost(self, batch: int, dollars: float) -> None:
        """A job of this batch has cost this; not told of every batch."""
        count, cost = self._costs.get(batch, (0, 0.0))
        self._costs[batch] = count + 1, cost + dollars
        if len(self._costs) > self._most:
            del self._costs[next(iter(self._costs))]

    def sentence(self, firsts: Sequence[int], total: int) -> str:
        """What there is to say of a batch that asks again.

        Args:
            firsts: for each question that is asked again, the batch that asked it first.
            total: questions of the batch; 0 if that is not known.
        """
        known = [self._costs.get(batch) for batch in firsts]
        dollars = sum(cost / count for count, cost in filter(None, known))
        paid = f" (${dollars:,.2f})" if total and all(known) else ""
        what = f"{len(firsts):,} of {total:,} questions" if total else "questions of this batch"
        return (
            f"{what} were asked in this session before{paid}. They are new submissions, and are paid for again;"
            " with Session(journal=...) they would not be"
        )


class Repeats:
    """The questions of one batch that an earlier batch of its session has asked.

    Args:
        asked: the session's memory.
        number: the batch's own.
        given: its source.
        freeze: makes a submission of an item.
        tell: told once, in a sentence, before the first of them is sent.
    """

    __slots__ = ("_asked", "_freeze", "_given", "_is_told", "_number", "_tell")

    def __init__(
        self,
        asked: Asked,
        number: int,
        given: object,
        freeze: Callable[..., Submission],
        tell: Callable[[str], object],
    ) -> None:
        self._asked = asked
        self._number = number
        self._given = given
        self._freeze = freeze
        self._tell = tell
        self._is_told = False

    def look(self, sub: Submission) -> None:
        """One more question, before it is sent."""
        first = self._asked.by(self._number, sub)
        if first != self._number and not self._is_told:
            self._is_told = True
            self._tell(self._sentence(first))

    def _sentence(self, first: int) -> str:
        given = self._given
        if not isinstance(given, (list, tuple)):
            return self._asked.sentence([first], 0)
        items = cast("Sequence[Any]", given)  # Any: what a caller gives
        if len(items) > COUNTED:
            return self._asked.sentence([first], 0)
        firsts = [by for item in items if (by := self._by(item)) != self._number]
        return self._asked.sentence(firsts, len(items))

    def _by(self, item: Any) -> int:
        try:
            sub = self._freeze(item, timeout=math.inf)
        except Exception:  # the batch refuses it, and it costs nothing
            return self._number
        return self._asked.by(self._number, sub)
