"""Cgroups of the site's jobs (`CGROUPS=1`): whether this machine has what Slurm needs, whose they are, and removing them.

Slurm's plugin cgroup/v1 keeps a tree `/slurm_NODE` in each of the machine's hierarchies. What is in a mount namespace is
private, cgroups are not: so one testbed at a time has them, and they are all that must be removed when it has ended.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from testbed import processes
from testbed.errors import TestbedError
from testbed.paths import Layout
from testbed.site import configuration

_MOUNTED = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpuacct", "cpuset", "devices", "freezer", "memory")


def claim(layout: Layout, *, wanted: bool, made: bool, mounted: Path = _MOUNTED) -> None:
    """Have the cgroups for this testbed's site if they are ``wanted``; idempotent. ``made``: there is a site already.

    Raises:
        TestbedError: the site that is there is of the other kind, another testbed has them, or the machine has none.
    """
    held = _holder(layout) == layout.state
    if made and held != wanted:
        raise TestbedError(
            f"The site in {layout.state} was made {'with' if held else 'without'} cgroups. `python -m testbed down` first, "
            f"or {'set CGROUPS=1' if held else 'leave CGROUPS unset'}."
        )
    if not wanted or held:
        return
    if why := obstacle(layout, mounted):
        raise TestbedError(f"No site with cgroups: {why}. Leave CGROUPS unset.")
    _mark(layout).parent.mkdir(parents=True, exist_ok=True)
    _mark(layout).write_text(f"{layout.state}\n", encoding="utf-8")


def release(layout: Layout, mounted: Path = _MOUNTED) -> None:
    """Remove the cgroups of this testbed's site, whose processes must have ended; a no-op if it has none.

    Raises:
        TestbedError: one is still in use after a while.
    """
    if _holder(layout) == layout.state:
        trees = [
            mounted / controller / f"slurm_{node.name}" for controller in _CONTROLLERS for node in configuration.NODES
        ]
        # The kernel lets go of who has ended a moment later.
        processes.wait_until(
            "The cgroups of the site's jobs can be removed", lambda: removed(trees), timeout_seconds=10
        )
        _mark(layout).unlink()


def obstacle(layout: Layout, mounted: Path = _MOUNTED) -> str:
    """Return why this testbed can't have cgroups, "" if it can."""
    if missing := [name for name in _CONTROLLERS if not os.access(mounted / name / "tasks", os.W_OK)]:
        return f"{mounted} has no hierarchies of cgroup v1 that can be written to for {', '.join(missing)}"
    holder = _holder(layout)
    if holder is not None and holder != layout.state and holder.exists():
        return f"the testbed in {holder} has them, and only one can at a time"
    return ""


def removed(trees: Iterable[Path]) -> bool:
    """Remove cgroups and those in them, as far as they are there and nobody is in them; whether that was all."""
    busy = False
    for tree in trees:
        for directory, _, _ in os.walk(tree, topdown=False):
            try:
                os.rmdir(directory)  # their files go with them
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                busy = True
    return not busy


def _mark(layout: Layout) -> Path:
    return layout.cache / "locks" / "cgroups"


def _holder(layout: Layout) -> Path | None:
    """Return the state directory of the testbed that has, or had, the cgroups."""
    mark = _mark(layout)
    return Path(mark.read_text(encoding="utf-8").strip()) if mark.exists() else None
