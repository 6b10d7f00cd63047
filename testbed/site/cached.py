"""Things that are dear to make are made once, into the cache, and either complete or not there at all."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def once(target: Path, make: Callable[[Path, Path], None]) -> Path:
    """Return the directory `target`, having it made by `make(directory, log)` when it is not there.

    Made under another name and renamed at the end, so what an interrupted call left is never trusted and made anew. Of
    several processes that call at once, one makes it and the others wait. The log stays beside the result.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            making = target.with_name(f"{target.name}.partial")
            if making.exists():
                shutil.rmtree(making)
            make(making, target.with_name(f"{target.name}.log"))
            making.rename(target)
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
