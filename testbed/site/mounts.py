"""What the HPC site sees where: the mounts of its namespace, as commands. Pure; `holder` runs them.

The cached tree is the lower layer of an overlay and so stays as it was built. Home directories, scratch, /tmp and the
registry's blobs are plain directories of the state room instead, because container tools want a real file system below
them. /dev is the site's own: it has a usable /dev/fuse and devices that stand in for GPUs (Slurm sets
CUDA_VISIBLE_DEVICES only for devices that exist), while terminals are the machine's, so that a caller's tty is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from testbed.paths import PROJECT_ROOT, Layout

Command = tuple[str, ...]

GPU_DEVICE = "/dev/gpu"
"""Followed by a number. No driver is behind it: to open it is ENXIO, or EPERM where Slurm keeps a job from the device."""
_LOCAL_USE = 240
"""A major number that the kernel leaves to experiments: Documentation/admin-guide/devices.txt."""

IMAGES = "/opt/slurmlet/images"
"""The cached container images, for the registry to be filled from."""

PYSLURM = "/opt/slurmlet/pyslurm"
"""The cached builds of pyslurm, which a test asks for."""

RUNTIMES = "/opt/slurmlet/runtimes"
"""The cached builds of other container runtimes than the site has, which a test asks for."""

_DEVICES = {  # name: minor number of the kernel's memory devices (major 1), Documentation/admin-guide/devices.txt
    "null": 3,
    "zero": 5,
    "full": 7,
    "random": 8,
    "urandom": 9,
}
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def root(layout: Layout) -> Path:
    """Return where the overlay is mounted, inside the namespace only."""
    return layout.site / "root"


def writable(layout: Layout) -> dict[str, Path]:
    """Return the directories of the site that are plain directories of the state room, by their path in the site."""
    return {
        "/home": layout.site / "home",
        "/scratch": layout.site / "scratch",
        "/tmp": layout.site / "tmp",  # noqa: S108  the site's, not ours
        "/var/lib/docker-registry": layout.registry,
        str(layout.share): layout.share,
    }


def readable(layout: Layout) -> dict[str, Path]:
    """Return what the site can read but not change, by its path in the site; the project so that it can run there."""
    cached = {IMAGES: "images", PYSLURM: "pyslurm", RUNTIMES: "runtimes"}
    return {str(PROJECT_ROOT): PROJECT_ROOT} | {inside: layout.cache / name for inside, name in cached.items()}


def copy(layout: Layout) -> Path:
    """Return where the tree is copied to on a file system that overlays cannot write to, as in most containers."""
    return layout.site / "copy"


def overlay(layout: Layout, tree: Path) -> Command:
    """Return the command that lays the site's writable layer over the cached tree."""
    layers = f"lowerdir={tree},upperdir={layout.site / 'upper'},workdir={layout.site / 'work'}"
    return "mount", "-t", "overlay", "-o", layers, "slurmlet-site", str(root(layout))


def commands(layout: Layout, tree: Path, *, gpus: int, layered: bool = True) -> tuple[Command, ...]:
    """Return the commands that make the site's view of the world below `root(layout)`, in order.

    Unless it is `layered`, the copy of the tree stands in for the overlay.
    """
    top = root(layout)
    return (
        overlay(layout, tree) if layered else ("mount", "--bind", str(copy(layout)), str(top)),
        ("mount", "-t", "proc", "proc", f"{top}/proc"),
        ("mount", "--rbind", "/sys", f"{top}/sys"),
        ("mount", "-t", "tmpfs", "-o", "mode=0755", "run", f"{top}/run"),
        *_dev(top / "dev", range(gpus)),
        *(command for inside, outside in writable(layout).items() for command in _bind(outside, top, inside)),
        *(command for inside, outside in readable(layout).items() for command in _bind_read_only(outside, top, inside)),
        ("mkdir", "-p", f"{top}/.old"),
    )


def _bind(outside: Path, top: Path, inside: str) -> tuple[Command, ...]:
    return ("mkdir", "-p", f"{top}{inside}"), ("mount", "--bind", str(outside), f"{top}{inside}")


def _bind_read_only(outside: Path, top: Path, inside: str) -> tuple[Command, ...]:
    return *_bind(outside, top, inside), ("mount", "-o", "remount,bind,ro", f"{top}{inside}")


def _dev(dev: Path, gpus: Iterable[int]) -> Iterable[Command]:
    yield "mount", "-t", "tmpfs", "-o", "mode=0755", "dev", str(dev)
    yield "mkdir", f"{dev}/pts", f"{dev}/shm"
    yield "mount", "--bind", "/dev/pts", f"{dev}/pts"
    yield "mount", "-t", "tmpfs", "-o", "mode=1777", "shm", f"{dev}/shm"
    for name, minor in _DEVICES.items():
        yield _node(f"{dev}/{name}", 1, minor)
    yield _node(f"{dev}/tty", 5, 0)
    yield _node(f"{dev}/ptmx", 5, 2)
    yield _node(f"{dev}/fuse", 10, 229)
    for number in gpus:
        yield _node(f"{dev}/{Path(GPU_DEVICE).name}{number}", _LOCAL_USE, number)
    for name, target in _LINKS.items():
        yield "ln", "-s", target, f"{dev}/{name}"


def _node(path: str, major: int, minor: int) -> Command:
    return "mknod", "-m", "0666", path, "c", str(major), str(minor)
