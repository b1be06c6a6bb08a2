"""Which limit a request of an account meets: a usage tier's, or those that were given.

Pure: `now` is passed in. This module knows nothing of HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import msgspec

from aiopplx.emulator._settings import number
from aiopplx.emulator.limits import AtWork, Bucket, FixedWindow, InFlight, Leaky, Limit, Room, SlidingWindow

TIERS = (5, 10, 20, 40, 60, 100)
AGENT_TIERS = (50, 150, 500, 1000, 2000, 2000)
GET_RPM = 6000.0
LIST_RPM = 3000.0
KINDS = ("submit", "get", "list", "cancel")
_SORTS = (Bucket, Leaky, FixedWindow, SlidingWindow, InFlight)


class Limits:
    """The limits of all accounts.

    Args:
        of_kind: by kind of request (and by `agent` for all of the Agent API's): the name of the limit that it meets,
            and the limit. A kind that it lacks has none.
    """

    def __init__(self, of_kind: Mapping[str, tuple[str, Limit]]) -> None:
        self._of_kind = of_kind
        self._at_work: dict[tuple[str, str], AtWork] = {}

    def take(self, account: str, kinds: tuple[str, ...], now: float) -> Room | None:
        """Counts one request under the first of these kinds that has a limit; None if none has."""
        for kind in kinds:
            found = self._of_kind.get(kind)
            if found is not None:
                name, limit = found
                at_work = self._at_work.get((account, name))
                if at_work is None:
                    at_work = self._at_work[account, name] = limit.begin(now)
                return at_work(now)
        return None


def chosen(
    tier: int | None, rpm: float | None, given: Limit | Mapping[str, Limit] | None
) -> dict[str, tuple[str, Limit]]:
    """The limits of a usage tier, or as given; `rpm` replaces the tier's own number.

    For sonar `rpm` is submissions a minute; for the Agent API, which has one limit for everything, requests a minute.

    Raises:
        ValueError: a number, a kind or a limit cannot be used.
    """
    if given is not None:
        if tier is not None or rpm is not None:
            raise ValueError("limits take the place of tier and rpm: give one of them")
        return _given(given)
    if tier is not None and not 0 <= tier < len(TIERS):
        raise ValueError(f"tier must be 0 to {len(TIERS) - 1}")
    if rpm is not None and not rpm > 0:
        raise ValueError("rpm must be more than 0: submissions a minute")
    found: dict[str, float] = {}
    if tier is not None:
        found = {"submit": float(TIERS[tier]), "get": GET_RPM, "list": LIST_RPM, "agent": float(AGENT_TIERS[tier])}
    if rpm is not None:
        found["submit"] = found["agent"] = float(rpm)
    return {kind: (kind, Bucket(rate)) for kind, rate in found.items()}


def _given(given: Limit | Mapping[str, Limit]) -> dict[str, tuple[str, Limit]]:
    named = given if isinstance(given, Mapping) else {"*": given}
    found: dict[str, tuple[str, Limit]] = {}
    for name, limit in named.items():
        if not isinstance(cast("object", limit), _SORTS):
            raise ValueError(f"limits must be of aiopplx.emulator.limits, not {limit!r}")
        for field, value in msgspec.structs.asdict(limit).items():
            if not isinstance(value, bool):
                high = 1.0 if field == "full" else math.inf
                number(
                    f"limits[{name!r}].{field}",
                    value,
                    0,
                    high=high,
                    unit="see aiopplx.emulator.limits",
                    above=field not in ("burst", "full"),
                )
        for kind in KINDS if name == "*" else name.split(","):
            if kind not in KINDS:
                raise ValueError(f"limits names {kind!r}, which is no kind of request; those are: {', '.join(KINDS)}")
            if name != "*" or kind not in found:
                found[kind] = (name, limit)
    return found
