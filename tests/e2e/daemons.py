"""The testbed's daemons, each of which may be away for a while, as on a day of maintenance."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed import processes
from testbed.paths import Layout
from testbed.site.namespace import Namespace
from testbed.site.sshd import DAEMON as SSHD

from .testbed import run_testbed

AWAY_SECONDS = float(os.environ.get("SLURMLET_AWAY_SECONDS", "15"))
"""How long: a maintenance takes minutes, and what matters shows within seconds."""


@contextmanager
def stopped(*names: str) -> Iterator[None]:
    """Stop daemons in order; what is done meanwhile takes ``AWAY_SECONDS`` at least. Afterwards all serve again."""
    layout = Layout.from_environment()
    sessions = _sessions(layout) if SSHD in names else []
    began = time.monotonic()
    try:
        for name in names:
            assert processes.alive(layout, name), f"{name} does not run"
            processes.stop(layout, name)
        for session in sessions:
            with suppress(ProcessLookupError):  # it ended with its listener
                os.kill(session, signal.SIGKILL)
        yield
        time.sleep(max(0.0, began + AWAY_SECONDS - time.monotonic()))
    finally:
        run_testbed("up")


_MADE_SETUID = """\
set -e
installed=$(dirname "$(find /usr/lib*/ -path '*/apptainer/bin/starter')")
made=$(mktemp -d /run/setuid-apptainer.XXXXXX)
cp -a "$installed/." "$made"
cp "$made/starter" "$made/starter-suid"
chmod 0755 "$made"
chmod 4755 "$made/starter-suid"
mount --bind "$made" "$installed"
exec slurmd -D -N "$0"
"""


@contextmanager
def setuid_apptainer(node: str) -> Iterator[None]:
    """Have a node on which Apptainer is installed setuid root, as its jobs see it and nobody else.

    The setuid half of Apptainer is the other once more, with that permission and under another name; the path where it
    is looked for is compiled in.
    """
    layout, daemon = Layout.from_environment(), f"slurmd-{node}"
    processes.stop(layout, daemon)
    try:
        private = ("unshare", "--mount", "--propagation=private", "--")
        Namespace(layout).start(daemon, (*private, "sh", "-c", _MADE_SETUID, node))
        run_testbed("up")  # returns when every node can take jobs
        yield
    finally:
        processes.stop(layout, daemon)
        run_testbed("up")


def _sessions(layout: Layout) -> list[int]:
    """The processes that serve the logins there are, and what they run: they would outlive sshd itself."""
    pid = processes.pid(layout, SSHD)
    assert pid is not None, "sshd does not run"
    return _descendants(pid)


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []  # it ended while we looked
    return [*children, *(each for child in children for each in _descendants(child))]
