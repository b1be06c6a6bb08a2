"""Sessions of one account share a gate."""

from __future__ import annotations

import asyncio
import gc

from aiopplx._http import account
from aiopplx._http.account import shared_gate

URL, KEY = "https://api.example", "a-key-of-some-length"


async def test_one_key_at_one_server_is_one_account():
    gate = shared_gate(URL, KEY, None)
    assert shared_gate(URL, KEY, None) is gate


async def test_other_key_or_server_is_another_account():
    gates = [shared_gate(URL, KEY, None), shared_gate(URL, "another-key", None), shared_gate(URL + ".org", KEY, None)]
    assert len({id(gate) for gate in gates}) == 3


async def test_slowest_rate_of_an_account_holds():
    gate = shared_gate(URL, KEY, 60.0)
    shared_gate(URL, KEY, 20.0)
    shared_gate(URL, KEY, 100.0)
    shared_gate(URL, KEY, None)
    assert gate.pace.interval == 3.0


def test_each_loop_has_its_own_gates():
    async def gate_here():
        return shared_gate(URL, KEY, None)

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(gate_here()) is not second.run(gate_here())


async def test_gate_lives_as_long_as_a_session_uses_it():
    gate = shared_gate(URL, KEY, 60.0)
    del gate
    gc.collect()
    assert shared_gate(URL, KEY, None).pace.interval == 0.0


async def test_account_does_not_keep_the_key():
    gate = shared_gate(URL, KEY, None)
    accounts = list(account._gates[asyncio.get_running_loop()])
    assert gate is not None
    assert not any(KEY in name for name in accounts)
