"""An image's tree with two MPI libraries, Open MPI and MPICH, and one program compiled with each.

Debian's packages, of the suite that the site's Slurm comes from, so that both sides speak the same PMIx. The compilers
do their work here and are removed again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from testbed.site import apt
from testbed.site.debian import Debian

SUITE = "trixie"
SOURCE = Path(__file__).with_name("mpi.c")
_LIBRARIES = ("openmpi", "mpich")
_COMPILERS = ("gcc", "libc6-dev", "libopenmpi-dev", "libmpich-dev")
_RUNTIMES = ("libopenmpi40", "libmpich12")
# What only modules for GPUs need, which are loaded where there are any: two thirds of the tree.
_SPARED = tuple(f"usr/lib/*/{name}" for name in ("libLLVM*", "libamd*", "libhsa*", "libz3*", "libperl*", "ucx/*rocm*"))
_EXCLUDED = "".join(f"path-exclude=/usr/share/{name}/*\n" for name in ("doc", "man", "info", "locale"))


def make_tree(tree: Path, log: Path) -> None:
    """Make the tree: `mpi-check-openmpi` and `mpi-check-mpich` in /usr/local/bin, and what they need."""
    debian = Debian(tree, log)
    debian.bootstrap(SUITE)
    debian.write("etc/dpkg/dpkg.cfg.d/slurmlet", f"{_EXCLUDED}force-unsafe-io\n")
    debian.write("etc/apt/apt.conf.d/99machine", apt.network_options() + 'Acquire::Languages "none";\n')
    shutil.copyfile("/etc/resolv.conf", tree / "etc/resolv.conf")
    install = ("apt-get", "-q", "install", "-y", "--no-install-recommends")
    debian.inside("apt-get", "-q", "update")
    debian.inside(*install, *_RUNTIMES)
    debian.inside(*install, *_COMPILERS)
    shutil.copyfile(SOURCE, tree / "root/mpi.c")
    for library in _LIBRARIES:
        program = f"/usr/local/bin/mpi-check-{library}"
        debian.inside(f"mpicc.{library}", "-O1", "-Wall", "-Werror", "-o", program, "/root/mpi.c")
    debian.inside("apt-get", "-q", "purge", "-y", "--auto-remove", *_COMPILERS)
    debian.inside("apt-get", "clean")
    debian.remove("root/mpi.c", "var/lib/apt/lists/*", "var/cache/*", "var/log/*", "etc/apt/apt.conf.d/99machine")
    debian.remove("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", *_SPARED)
    for library in _LIBRARIES:
        debian.inside("sh", "-c", f"! ldd /usr/local/bin/mpi-check-{library} | grep 'not found'")
