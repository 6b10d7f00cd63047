"""Cgroups of the site's jobs (`CGROUPS=1`): whether this machine has what Slurm needs, whose they are, and removing them.

Slurm's plugin cgroup/v1 keeps a tree `/slurm_NODE` in each of the machine's hierarchies. What is in a mount namespace is
private, cgroups are not: so one testbed at a time has them, and they are all that must be removed when it has ended.
"""

from __future__ import annotations

import os
from pathlib import Path

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
    if missing := lacking(mounted):
        raise TestbedError(
            f"CGROUPS=1 needs hierarchies of cgroup v1 that can be written to, and {mounted} has none of "
            f"{', '.join(missing)}. Leave CGROUPS unset."
        )
    if (holder := _holder(layout)) is not None and holder.exists():
        raise TestbedError(f"The testbed in {holder} has CGROUPS=1, and only one can have them at a time.")
    _mark(layout).parent.mkdir(parents=True, exist_ok=True)
    _mark(layout).write_text(f"{layout.state}\n", encoding="utf-8")


def release(layout: Layout, mounted: Path = _MOUNTED) -> None:
    """Remove the cgroups of this testbed's site, whose processes must have ended; a no-op if it has none."""
    if _holder(layout) == layout.state:
        for controller in _CONTROLLERS:
            for node in configuration.NODES:
                remove(mounted / controller / f"slurm_{node.name}")
        _mark(layout).unlink()


def lacking(mounted: Path = _MOUNTED) -> list[str]:
    """Return the hierarchies that Slurm needs and that are not mounted there, or not to be written to."""
    return [name for name in _CONTROLLERS if not os.access(mounted / name / "tasks", os.W_OK)]


def remove(tree: Path) -> None:
    """Remove a cgroup and those in it, if it is there; their files go with them."""
    for directory, _, _ in os.walk(tree, topdown=False):
        os.rmdir(directory)


def _mark(layout: Layout) -> Path:
    return layout.cache / "locks" / "cgroups"


def _holder(layout: Layout) -> Path | None:
    """Return the state directory of the testbed that has, or had, the cgroups."""
    mark = _mark(layout)
    return Path(mark.read_text(encoding="utf-8").strip()) if mark.exists() else None
