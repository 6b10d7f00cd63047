"""Waiting for something real to happen, with a deadline and the reason when it does not."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_until(what: str, check: Callable[[], Result], *, seconds: float = 60, every: float | None = None) -> Result:
    """Return the first true result of `check`; fails after `seconds`, telling the last result.

    Looks every `every` seconds; else again after a tenth of what was waited so far, at most half a second: a look at the
    API server costs 5 ms of CPU in all, and what is waited for needs that too.
    """
    begun = time.monotonic()
    while True:
        if result := check():
            return result
        waited = time.monotonic() - begun
        assert waited < seconds, f"waited {seconds:.0f} s for {what}; last seen: {result!r}"
        time.sleep(every or min(0.5, max(0.05, waited / 10)))
