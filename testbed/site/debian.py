"""A Debian tree in the making: debootstrap, and commands run inside it. What is installed and why is its callers' part."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

from testbed import progress
from testbed.errors import TestbedError
from testbed.site import apt

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE")


@dataclasses.dataclass(frozen=True, slots=True)
class Debian:
    """A tree at `root`; what its commands say goes to `log`."""

    root: Path
    log: Path

    def bootstrap(self, suite: str, *packages: str) -> None:
        """Make the smallest system of a suite, and these packages, from the machine's own mirror.

        Raises:
            TestbedError: as `run`; or the machine has no Debian mirror.
        """
        if shutil.which("debootstrap") is None:
            with progress.step("Installing debootstrap"):
                apt.install("debootstrap", "debian-archive-keyring")
        mirror = apt.debian_mirror()
        include = (f"--include={','.join(packages)}",) if packages else ()
        self.log.unlink(missing_ok=True)
        self.run("debootstrap", "--variant=minbase", *include, suite, str(self.root), mirror)

    def run(self, *argv: str) -> None:
        """Run a command of the machine, at low priority and with no more of its environment than the network needs.

        Raises:
            TestbedError: it failed; the message names the log.
        """
        home = os.environ.get("HOME", "/root")  # pip has its configuration there
        environment = _network_environment() | {
            "PATH": _PATH,
            "HOME": home,
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        with self.log.open("ab") as log:
            done = subprocess.run(
                ["nice", *argv], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        if done.returncode:
            shown = " ".join(argv[:8])
            raise TestbedError(
                f"Building {self.root.name} failed: `{shown} …` ended with {done.returncode}; see {self.log}."
            )

    def inside(self, *argv: str) -> None:
        """Run a command with the tree as its root, in a PID namespace of its own: nothing it starts can stay behind."""
        proc = f"--mount-proc={self.root}/proc"
        self.run("unshare", "--mount", "--pid", "--fork", "--kill-child", proc, "--", "chroot", str(self.root), *argv)

    def write(self, name: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file, named from the tree's root without a leading slash; directories that are missing are made."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def remove(self, *names: str) -> None:
        """Remove files and directories, named as for `write` (patterns allowed), where they exist."""
        for name in names:
            for path in self.root.glob(name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _network_environment() -> dict[str, str]:
    """Of the caller's environment keep what says how to reach the network; the rest would leak into maintainer scripts."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_NETWORK) or name.lower().endswith("_proxy")
    }
