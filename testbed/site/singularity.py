"""SingularityCE for the site, built once into the cache: no Debian suite has it. Only a test asks for it.

Its Go module is fetched with the machine's Go, with all that it needs, and built in a Debian tree of the site's suite, without
the setuid half and without what the tests have no use for (network, seccomp, its image builder).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from testbed import progress
from testbed.errors import TestbedError
from testbed.kubernetes.gobuild import find_go
from testbed.site import apt, cached, mounts
from testbed.site.debian import Debian
from testbed.site.rootfs import RELEASES

VERSION = "4.3.3"

_MODULE = f"github.com/sylabs/singularity/v4@v{VERSION}"
_SITE = "24.11"
"""The Slurm version of the site that it is built for; what matters is its Debian."""
_PACKAGES = ("golang-go", "gcc", "libc6-dev", "make")
_OPTIONS = "--without-suid --without-libsubid --without-network --without-seccomp --without-squashfuse"
_CONFIGURATION = (
    "singularity.conf", "remote.yaml", "capability.json", "ecl.toml", "seccomp-profiles/default.json", "nvliblist.conf",
    "rocmliblist.conf", "global-pgp-public",
)  # fmt: skip
_BUILD = """\
cd /build
echo {version} > VERSION  # it asks git, and a module has none
./mconfig -V {version} --prefix={prefix} {options}
touch builddir/.clean-starter  # or it would throw away Go's cache in the middle, and compile everything twice
make -C builddir {files}
"""


def ensure(cache: Path) -> str:
    """Return the path in the site of the program, which is built (some minutes) when it is not there. Idempotent.

    Raises:
        TestbedError: a step failed; the message names the log.
    """
    recipe = f"{_MODULE} {RELEASES[_SITE].suite} {_PACKAGES} {_OPTIONS} {_CONFIGURATION} {_BUILD}"
    name = f"singularity-{VERSION}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    prefix = f"{mounts.RUNTIMES}/{name}"

    def make(target: Path, log: Path) -> None:
        _make(target, log, prefix, find_go(cache))

    cached.once(cache / "runtimes" / name, make)
    return f"{prefix}/bin/singularity"


def build_script(prefix: str) -> str:
    """Return what the Debian tree runs; only what the tests use is built."""
    files = [f"{prefix}/bin/singularity", f"{prefix}/libexec/singularity/bin/starter"]
    files += [f"{prefix}/etc/singularity/{name}" for name in _CONFIGURATION] + [f"{prefix}/var/singularity/mnt/session"]
    return _BUILD.format(version=VERSION, prefix=prefix, options=_OPTIONS, files=" ".join(files))


def _make(target: Path, log: Path, prefix: str, go: Path) -> None:
    debian = Debian(target / "tree", log)
    with progress.step(f"Building SingularityCE {VERSION}"):
        debian.bootstrap(RELEASES[_SITE].suite)
        debian.write("etc/apt/apt.conf.d/99machine", apt.network_options() + 'Acquire::Languages "none";\n')
        shutil.copyfile("/etc/resolv.conf", debian.root / "etc/resolv.conf")
        debian.inside("apt-get", "-q", "update")
        debian.inside("apt-get", "-q", "install", "-y", "--no-install-recommends", *_PACKAGES)
        _fetch(debian.root / "build", go)
        debian.inside("bash", "-ec", build_script(prefix))
        for room in Path(f"{debian.root}{prefix}").iterdir():
            room.rename(target / room.name)
    shutil.rmtree(debian.root)


def _fetch(source: Path, go: Path) -> None:
    """Fetch the module and all that it imports, and make a source of it that builds without a network."""
    told = json.loads(_go(go, "mod", "download", "-json", _MODULE, where=source.parent))
    shutil.copytree(told["Dir"], source)
    for path in (source, *source.rglob("*")):  # in the module cache nothing can be written, and nothing executed
        path.chmod(0o755)
    _go(go, "mod", "vendor", where=source)


def _go(go: Path, *words: str, where: Path) -> str:
    environment = os.environ | {"GOWORK": "off", "GOTOOLCHAIN": "local"}
    done = subprocess.run([go, *words], cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestbedError(f"`go {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
