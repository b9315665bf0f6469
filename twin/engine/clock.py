"""SimPy as the clock: things happen later by calling a function, not by a process each.

Processes cost 3.5-7 times as much as callbacks and can be neither saved nor forked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import simpy


def after(env: simpy.Environment, delay_s: float, call: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401
    """Call `call(*args)` in `delay_s` simulated seconds."""
    timeout = env.timeout(delay_s)
    assert timeout.callbacks is not None  # a new event always has them
    timeout.callbacks.append(lambda _event: call(*args))
