"""Which APIs there are, by name.

This module knows nothing of what any of them does.
"""

from __future__ import annotations

from aiopplx._config import APIS
from aiopplx._wire.api import API

_BY_NAME = {api.name: api for api, _ in reversed(list(APIS.values()))}


def api_named(name: str) -> API:
    """The API of this name; the default one if there is none, as in a journal that another version wrote."""
    return _BY_NAME.get(name, APIS["auto"][0])
