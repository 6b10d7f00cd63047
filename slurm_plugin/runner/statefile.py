"""How ``state.json`` is written: whole, under another name, then renamed; soon after every change.

Changes of one turn of the loop make one write. A file system that refuses (full, stale) is tried again: the pod goes on.
"""

import json
import os
import sys
import time
from typing import Callable

from .loop import Loop
from .state import RunnerState, state_to_json

_RETRY_SECONDS = 2.0
_LAST_ATTEMPTS = 30


def write_state(path: str, state: RunnerState) -> None:
    """Replace the state file atomically. OSError if the file system refuses."""
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(state_to_json(state), stream, separators=(",", ":"))
    os.rename(temporary, path)


class StateFile:
    """Writes what ``current`` returns, at the end of the turn in which ``changed`` was called."""

    def __init__(self, loop: Loop, path: str, current: Callable[[int], RunnerState]) -> None:
        self._loop = loop
        self._path = path
        self._current = current
        self._version = 0
        self._due = False

    def changed(self) -> None:
        """Have the state written soon."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        try:
            self._write_now()
        except OSError as error:
            sys.stderr.write("slurmlet: can't write the state, trying again: %s\n" % error)
            self._loop.call_later(_RETRY_SECONDS, self._write)
        else:
            self._due = False

    def _write_now(self) -> None:
        self._version += 1
        write_state(self._path, self._current(self._version))

    def write_last(self) -> None:
        """Write before the runner exits: nothing else is left to do, so it waits for the file system."""
        for attempt in range(_LAST_ATTEMPTS):
            try:
                self._write_now()
            except OSError as error:
                sys.stderr.write("slurmlet: can't write the final state (attempt %d): %s\n" % (attempt + 1, error))
                time.sleep(_RETRY_SECONDS)
            else:
                return
