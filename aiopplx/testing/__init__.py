"""For tests of programs that use aiopplx: clocks that let hours pass in no time.

Give one to `Session(clock=...)`, and the same one to `aiopplx.emulator.Emulator(clock=...)`. This folder knows nothing
of any test framework.
"""

from aiopplx._http.clock import Clock, Timer
from aiopplx.testing._jumping import JumpingClock

__all__ = ["Clock", "JumpingClock", "Timer"]
