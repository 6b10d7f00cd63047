"""Waiting for something real to happen, with a deadline and the reason when it does not."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_until(what: str, check: Callable[[], Result], *, seconds: float = 60, every: float = 0.1) -> Result:
    """Return the first true result of `check`; fails after `seconds`, telling the last result."""
    deadline = time.monotonic() + seconds
    while True:
        if result := check():
            return result
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}; last seen: {result!r}"
        time.sleep(every)
