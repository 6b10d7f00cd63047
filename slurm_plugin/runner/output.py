"""The job's own output, where the runner says what it can tell nobody else.

That lies on the same file system as everything else of the job. When this is full, or refuses for a while, words are
lost; a runner that ended for it would take the pod with it, and Python itself ends with code 120 if it can't flush.
"""

import contextlib
import io
import os
import sys


class JobOutput(io.TextIOBase):
    """Writes at once, or not at all."""

    def __init__(self, descriptor: int) -> None:
        io.TextIOBase.__init__(self)
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        """Write what there is room for."""
        with contextlib.suppress(OSError):  # there is nowhere to say it
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))
        return len(text)


def outlive_a_full_disk() -> None:
    """Let nothing that is said from now on be an error."""
    sys.stdout, sys.stderr = JobOutput(1), JobOutput(2)
