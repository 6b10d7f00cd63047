"""pyslurm for the site's Slurm 26.05, built once into the cache.

PyPI has it for 25.11, a Slurm that no Debian suite has. Its source is compiled against 26.05 with what `pyslurm.h` says of the
differences, and without its old interface (`pyslurm.deprecated`), where there are more of them. Only a test asks for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from testbed import progress
from testbed.errors import TestbedError
from testbed.site import apt, cached, mounts
from testbed.site.debian import Debian
from testbed.site.rootfs import RELEASES

SLURM = "26.05"
"""The one version of the site's Slurm that it is built for."""

_VERSION = "25.11.2"
_SHIM = Path(__file__).with_name("pyslurm.h")
_PACKAGES = (
    "libslurm-dev", "slurm-wlm-basic-plugins", "gcc", "libc6-dev", "python3-dev", "cython3", "python3-setuptools",
    "python3-packaging",
)  # fmt: skip
_BUILD = """\
cd /build
export SLURM_INCLUDE_DIR=/usr/include SLURM_LIB_DIR=$(dirname $(find /usr/lib -name libslurmfull.so))
export CFLAGS='-O0 -w -include /build/pyslurm.h' PYSLURM_BUILD_JOBS=2
python3 setup.py build --parallel 2 --build-lib /built
cd / && PYSLURM_DISABLE_AUTO_INIT=1 PYTHONPATH=/built python3 -c 'import pyslurm'
"""
# What pip needs to see of a Slurm before it hands out the source: it asks setup.py, and that asks for these.
_SEEN = {
    "include/slurm/slurm.h": "",
    "include/slurm/slurm_version.h": "#define SLURM_VERSION_NUMBER 0x190b00\n",
    "lib/libslurmfull.so": "",
}


def ensure(cache: Path) -> str:
    """Return the path in the site of a Python that has pyslurm, which is built (some minutes) when it is not there. Idempotent.

    Raises:
        TestbedError: a step failed; the message names the log.
    """
    recipe = f"{_VERSION} {_PACKAGES} {_BUILD} {_SHIM.read_text(encoding='utf-8')}"
    name = f"{SLURM}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    cached.once(cache / "pyslurm" / name, _make)
    return f"{mounts.PYSLURM}/{name}/python3"


def _make(target: Path, log: Path) -> None:
    debian = Debian(target / "tree", log)
    with progress.step(f"Building pyslurm {_VERSION} for Slurm {SLURM}"):
        suite = RELEASES[SLURM].suite
        debian.bootstrap(suite)
        debian.write("etc/apt/apt.conf.d/99machine", apt.network_options() + 'Acquire::Languages "none";\n')
        shutil.copyfile("/etc/resolv.conf", debian.root / "etc/resolv.conf")
        debian.inside("apt-get", "-q", "update")
        debian.inside("apt-get", "-q", "install", "-y", "--no-install-recommends", *_PACKAGES)
        source = _fetch(target / "source")
        adapt(source)
        shutil.copyfile(_SHIM, source / _SHIM.name)
        source.rename(debian.root / "build")
        debian.inside("sh", "-ec", _BUILD)
        (debian.root / "built/pyslurm").rename(target / "pyslurm")
    shutil.rmtree(debian.root)
    shutil.rmtree(target / "source")
    python = target / "python3"
    python.write_text('#!/bin/sh\nPYTHONPATH="${0%/*}" exec /usr/bin/python3 "$@"\n', encoding="utf-8")
    python.chmod(0o755)


def _fetch(room: Path) -> Path:
    """Fetch the source with the machine's pip, as it is configured here, and unpack it."""
    for name, text in _SEEN.items():
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_text(text, encoding="utf-8")
    seen = {"SLURM_INCLUDE_DIR": str(room / "include"), "SLURM_LIB_DIR": str(room / "lib")}
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=pyslurm", f"--dest={room}"]
    done = subprocess.run(
        [*pip, f"pyslurm=={_VERSION}"], env=os.environ | seen, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TestbedError(f"pip could not fetch pyslurm {_VERSION}: {done.stderr.strip()[-2000:]}")
    with tarfile.open(room / f"pyslurm-{_VERSION}.tar.gz") as archive:
        archive.extractall(room, filter="data")
    return room / f"pyslurm-{_VERSION}"


def adapt(source: Path) -> None:
    """Make it a pyslurm of the site's Slurm, without its old interface.

    Raises:
        TestbedError: it is not as this release's source is.
    """
    major, minor = (int(number) for number in SLURM.split("."))
    package = source / "pyslurm"
    _replace(package / "version.py", f'"{_VERSION}"', f'"{major}.{minor}.0"')
    _replace(package / "__init__.py", "from pyslurm.deprecated import *", "")
    (package / "deprecated.pyx").unlink()


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise TestbedError(f"{path} has no {old!r}: this is not pyslurm {_VERSION}.")
    path.write_text(text.replace(old, new), encoding="utf-8")
