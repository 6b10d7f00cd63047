"""The HPC site: a Debian of its own with a real Slurm cluster, Apptainer, sshd and people, in a private mount namespace.

| room | holds |
|---|---|
| `rootfs`, `debian`, `apt`, `cached` | the root file system, how Debian trees are made, where packages come from, made once |
| `pyslurm`, `singularity` | pyslurm for one of the Slurms, SingularityCE: built when a test asks for it |
| `mounts`, `holder`, `namespace` | what the site sees, the process that keeps it, entering and ending it |
| `configuration`, `slurm`, `cgroups` | Slurm's files and daemons; the kernel's limits of its jobs |
| `sshd`, `wrappers`, `users` | the ways in: SSH, and Slurm's commands as alice |
"""

from __future__ import annotations

import socket
from pathlib import Path

from testbed import progress
from testbed.paths import PROJECT_ROOT, Layout
from testbed.ports import ADDRESS
from testbed.site import cgroups, configuration, rootfs, users, wrappers
from testbed.site.namespace import HOLDER, Namespace
from testbed.site.slurm import Slurm
from testbed.site.sshd import Sshd

DEFAULT_VERSION = "24.11"


class Site:
    """The site with one Slurm version, with or without cgroups; a component of the testbed."""

    def __init__(self, layout: Layout, version: str = DEFAULT_VERSION, *, constrained: bool = False) -> None:
        self._layout = layout
        self._version = version
        self._constrained = constrained
        self._namespace = Namespace(layout)
        self._slurm = Slurm(layout, self._namespace, version, cgroups=constrained)
        self._sshd = Sshd(layout, self._namespace)

    def ensure(self) -> None:
        """Build, start and repair the site; returns when jobs can be submitted and alice can log in. Idempotent.

        Raises:
            TestbedError: something does not come up, or a site of another kind is up.
        """
        cgroups.claim(self._layout, wanted=self._constrained, made=self._namespace.tree is not None)
        ensure_namespace(self._layout, self._version)
        with progress.step(f"Starting Slurm {self._version} and sshd"):
            self._sshd.ensure()
            self._slurm.ensure()
        wrappers.write(self._namespace, self._layout.bin)

    def stop(self) -> None:
        """End everything in the site, jobs included; what it wrote stays in the state directory. Idempotent."""
        self._slurm.stop()
        self._sshd.stop()
        self._namespace.release()
        cgroups.release(self._layout)

    def status(self) -> list[tuple[str, str]]:
        """Return what runs and what does not, without waiting for anything."""
        pid = self._namespace.pid
        tree = self._namespace.tree
        place = [(HOLDER, "not running" if pid is None or tree is None else f"running, pid {pid}, {tree.name}")]
        return place + self._slurm.status() + self._sshd.status()

    def environment(self) -> dict[str, str]:
        """Return the variables that lead to the site; SLURMLET_TESTBED_SITE_PID only while it is up."""
        pid = self._namespace.pid
        return {
            "SLURM_CONF": configuration.SLURM_CONF,
            "SLURMLET_TESTBED_SLURMRESTD": self._slurm.slurmrestd_url,
            **({} if pid is None else {"SLURMLET_TESTBED_SITE_PID": str(pid)}),
            **self._sshd.environment(),
        }


def ensure_namespace(layout: Layout, version: str | None = None) -> Namespace:
    """Build the root file system where needed and bring up the namespace over it; for the site and the registry.

    Without a version it is the one that is there, or the default. Idempotent.
    """
    namespace = Namespace(layout)
    tree = None if version else namespace.tree
    if tree is None:
        tree = rootfs.ensure(layout.cache / "site", version or DEFAULT_VERSION)
    namespace.ensure(tree, gpus=configuration.GPUS)
    _introduce(namespace)
    return namespace


def _introduce(namespace: Namespace) -> None:
    """Tell the site who it is: names, name service, and where the project lies."""
    names = " ".join(("localhost", socket.gethostname(), *(node.name for node in configuration.NODES)))
    namespace.write("/etc/hosts", f"{ADDRESS} {names}\n::1 localhost\n")
    namespace.write("/etc/resolv.conf", Path("/etc/resolv.conf").read_bytes())
    packages = next(Path(f"{namespace.root}{rootfs.VENV}/lib").glob("python3*")) / "site-packages"
    (packages / "slurmlet-project.pth").write_text(f"{PROJECT_ROOT}\n", encoding="utf-8")
    for person in users.PEOPLE:
        namespace.directory(f"/scratch/{person.name}", owner=person.name)
