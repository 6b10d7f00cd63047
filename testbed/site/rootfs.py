"""The HPC site's root file system: a small Debian with one Slurm version, built once into the cache.

A site is chosen by its Slurm version; each Debian suite carries exactly one. The tree is made by debootstrap and apt from the
machine's own mirror, holds everything a cluster needs (daemons, Apptainer, sshd, Python, users), and is never changed
afterwards: a running site lays an overlay over it (`namespace`). What differs from run to run (configuration, keys,
data) is not in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import shutil
import sys
import tomllib
from pathlib import Path

from testbed import progress
from testbed.errors import TestbedError
from testbed.paths import PROJECT_ROOT
from testbed.site import apt, cached, users
from testbed.site.debian import Debian

VENV = Path("/opt/slurmlet/venv")

_RECIPE = 3  # raise it when the steps below change, not only their data
_SLURM = (
    "slurmctld slurmd slurmdbd slurmrestd slurm-client slurm-wlm-basic-plugins slurm-wlm-jwt-plugin "
    "slurm-wlm-mysql-plugin munge mariadb-server mariadb-client libpmix2"
)
# What Apptainer only recommends but needs to run images without root, and the registry's side of it.
_CONTAINERS = (
    "squashfuse fuse2fs fuse-overlayfs fuse3 squashfs-tools uidmap crun ca-certificates docker-registry skopeo "
    "busybox-static"
)
_LOGIN_NODE = "openssh-server sudo python3 python3-venv procps iproute2 jq curl util-linux"
_PACKAGES = f"{_SLURM} {_CONTAINERS} {_LOGIN_NODE}".split()
_DPKG = """\
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/mariadb/mysql-test/*
force-unsafe-io
"""
# apt must start no daemon while it installs: they are ours to start. https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
_POLICY = "#!/bin/sh\nexit 101\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """A Slurm version and where its site comes from: Debian suites, mixed package by package where one has not all."""

    slurm: str
    suite: str
    apptainer_suite: str = "sid"
    slurm_suite: str = ""
    """Where Slurm comes from, when not from `suite`."""


RELEASES = {
    release.slurm: release
    for release in (
        Release("22.05", "trixie", slurm_suite="bookworm"),  # bookworm's C library is too old for Apptainer
        Release("24.11", "trixie"),
        Release("26.05", "sid"),
    )
}


def release(version: str) -> Release:
    """Return the release of a Slurm version.

    Raises:
        TestbedError: there is no Debian suite with that version; the message names those that are.
    """
    try:
        return RELEASES[version]
    except KeyError:
        raise TestbedError(f"No site with Slurm {version!r}: SLURM must be one of {', '.join(RELEASES)}.") from None


def requirements() -> tuple[str, ...]:
    """Return the project's runtime dependencies, as pyproject.toml names them."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return tuple(sorted(project["dependencies"]))


def key(chosen: Release) -> str:
    """Name a tree by all that decides its contents: the same recipe gives the same name."""
    recipe = (
        _RECIPE,
        tuple(part for part in dataclasses.astuple(chosen) if part),
        _PACKAGES,
        _DPKG,
        tuple((p.name, p.uid) for p in users.PEOPLE),
        requirements(),
        platform.machine(),
    )
    return f"{chosen.slurm}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"


def preferences(chosen: Release) -> str:
    """Return apt_preferences(5) that take from a release's other suites the one package, and what only they have of its needs."""
    pins: list[tuple[str, str, int]] = []
    if chosen.apptainer_suite != chosen.suite:
        pins += [("*", chosen.apptainer_suite, -1), ("apptainer", chosen.apptainer_suite, 990)]
    if chosen.slurm_suite:
        pins += [("*", chosen.slurm_suite, 100), ("/^slurm/", chosen.slurm_suite, 990)]
    return "\n".join(f"Package: {what}\nPin: release n={suite}\nPin-Priority: {rank}\n" for what, suite, rank in pins)


def ensure(cache: Path, version: str) -> Path:
    """Return the tree of a Slurm version below `cache`, building it (about two minutes) when it is not there.

    Idempotent, safe to call from several processes at once; an interrupted build leaves nothing that a later call trusts.

    Raises:
        TestbedError: a step failed; the message names the step and the log.
    """
    chosen = release(version)

    def make(root: Path, log: Path) -> None:
        _Build(chosen, Debian(root, log)).run()

    return cached.once(cache / key(chosen), make)


@dataclasses.dataclass(frozen=True, slots=True)
class _Build:
    release: Release
    debian: Debian

    def run(self) -> None:
        what = "Building the HPC site's root file system"
        with progress.step(f"{what}: Debian {self.release.suite}"):
            self.debian.bootstrap(self.release.suite)
        with progress.step(f"{what}: Slurm {self.release.slurm}, Apptainer, sshd"):
            self._configure_apt()
            self._install()
        with progress.step(f"{what}: Python packages"):
            self._make_venv()
        self._make_users()
        self._configure_apptainer()
        self._clean()

    def _configure_apt(self) -> None:
        mirror = apt.debian_mirror()
        suites = {self.release.suite, self.release.apptainer_suite, self.release.slurm_suite} - {""}
        self.debian.write("etc/apt/sources.list", "".join(f"deb {mirror} {suite} main\n" for suite in sorted(suites)))
        self.debian.write("etc/apt/preferences.d/slurmlet", preferences(self.release))
        self.debian.write("etc/apt/apt.conf.d/99machine", apt.network_options() + 'Acquire::Languages "none";\n')
        self.debian.write("etc/dpkg/dpkg.cfg.d/slurmlet", _DPKG)
        self.debian.write("usr/sbin/policy-rc.d", _POLICY, mode=0o755)
        shutil.copyfile("/etc/resolv.conf", self.debian.root / "etc/resolv.conf")

    def _install(self) -> None:
        self.debian.inside("apt-get", "-q", "update")
        self.debian.inside("apt-get", "-q", "install", "-y", "--no-install-recommends", *_PACKAGES, "apptainer")

    def _make_venv(self) -> None:
        """Fetch wheels with the machine's pip, as it is configured here; install them inside without any network."""
        python = (self.debian.root / "usr/bin/python3").readlink().name.removeprefix("python")
        machine = platform.machine()
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(36, 16, -1)] + [f"manylinux2014_{machine}"]
        wheels = VENV.with_name("wheels")
        self.debian.run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", f"{self.debian.root}{wheels}"),
            *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}"),
            *(f"--platform={name}" for name in platforms),
            *requirements(),
        )
        self.debian.inside("python3", "-m", "venv", str(VENV))
        self.debian.inside(
            *(f"{VENV}/bin/pip", "install", "--quiet", "--no-index", f"--find-links={wheels}", *requirements())
        )
        shutil.rmtree(f"{self.debian.root}{wheels}")

    def _make_users(self) -> None:
        for user in users.PEOPLE:
            # Password `*`: none fits, yet sshd does not hold the account for locked, as `!` would.
            self.debian.inside(
                *(
                    "useradd",
                    "--create-home",
                    "--shell",
                    "/bin/bash",
                    "--uid",
                    str(user.uid),
                    "--password",
                    "*",
                    user.name,
                )
            )
        self.debian.inside("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", users.SLURMREST)
        home = ("--create-home", "--home-dir", users.SERVICE_HOME)
        self.debian.inside("useradd", "--system", *home, "--shell", "/usr/sbin/nologin", users.SERVICE)
        people = ",".join(user.name for user in users.PEOPLE)
        self.debian.write("etc/sudoers.d/slurmlet", f"{users.SERVICE} ALL=({people}) NOPASSWD: ALL\n", mode=0o440)

    def _configure_apptainer(self) -> None:
        path = self.debian.root / "etc/apptainer/apptainer.conf"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("\nsystemd cgroups = yes\n", "\nsystemd cgroups = no\n"), encoding="utf-8")

    def _clean(self) -> None:
        """Remove what apt fetched, and the secrets that packages made: every testbed makes its own."""
        self.debian.inside("apt-get", "clean")
        self.debian.remove("var/lib/apt/lists", "etc/munge/munge.key", "etc/ssh/ssh_host_*")
