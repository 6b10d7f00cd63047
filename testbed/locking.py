"""One testbed command at a time: locks on files, dropped by the kernel however their holder ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.progress import say


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` (made, and left, if missing); wait for another holder, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  … waiting for another testbed command, which holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
