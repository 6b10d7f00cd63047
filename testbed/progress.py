"""Progress on standard error, with or without a terminal: what happens now, and that it still does.

Standard output stays free for what a shell evaluates (`python -m testbed env`). Steps may run in parallel threads.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_ANNOUNCE_SECONDS = 1.0  # a shorter step prints one line only, when it is done
_HEARTBEAT_SECONDS = 15.0
_lock = threading.Lock()


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Print one whole line, never interleaved with that of another thread."""
    with _lock:
        print(text, file=stream or sys.stderr, flush=True)


@contextmanager
def step(what: str, *, stream: TextIO | None = None, heartbeat_seconds: float = _HEARTBEAT_SECONDS) -> Iterator[None]:
    """Report the body as a step named `what`: one line at its end, one at its start and a heartbeat when it is long."""
    started = time.monotonic()
    ended = threading.Event()

    def elapsed() -> str:
        return f"{time.monotonic() - started:.1f} s"

    def announce() -> None:
        if ended.wait(_ANNOUNCE_SECONDS):
            return
        say(f"  … {what}", stream=stream)
        while not ended.wait(heartbeat_seconds):
            say(f"  … {what}: still at it after {elapsed()}", stream=stream)

    heart = threading.Thread(target=announce, name=f"progress of {what}", daemon=True)
    heart.start()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        ended.set()
        heart.join()
        say(
            f"  {'✓' if outcome == 'done' else '✗'} {what} ({'' if outcome == 'done' else 'failed, '}{elapsed()})",
            stream=stream,
        )
