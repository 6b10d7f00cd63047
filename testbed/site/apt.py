"""What this machine's own apt knows, asked from apt itself: its Debian mirror and how it reaches it.

The site's packages come from where the machine's packages come from, so that a proxy, a mirror or a relaxed check that
someone has already set up for the machine also serves the testbed. No host name is written here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable

from testbed.errors import TestbedError

MIRROR_VARIABLE = "SLURMLET_DEBIAN_MIRROR"

# Only what decides how packages are fetched: the rest (languages, hooks, index formats) is the machine's own taste.
_NETWORK_OPTIONS = ("acquire::http::", "acquire::https::", "acquire::check-", "acquire::retries", "acquire::forceipv")


def debian_mirror() -> str:
    """Return the URL of a Debian archive, without a final slash.

    `SLURMLET_DEBIAN_MIRROR` wins; else the archive of origin `Debian` among apt's own sources.

    Raises:
        TestbedError: the machine's apt has no Debian archive (it is another distribution) and none was given.
    """
    if given := os.environ.get(MIRROR_VARIABLE):
        return given.rstrip("/")
    mirror = parse_mirror(_targets())
    if mirror is None:  # apt knows an archive's origin only from its lists, and a new machine has none yet
        update()
        mirror = parse_mirror(_targets())
    if mirror is None:
        raise TestbedError(
            "No Debian archive among this machine's apt sources; the HPC site is built from "
            f"Debian packages. Set {MIRROR_VARIABLE} to the URL of a Debian mirror."
        )
    return mirror


def parse_mirror(targets: Iterable[str]) -> str | None:
    """Pick the main Debian archive from lines `URI|origin|label`; the security archive has another label."""
    for line in targets:
        uri, origin, label = line.split("|")
        if (origin, label) == ("Debian", "Debian"):
            return uri.rstrip("/")
    return None


def network_options() -> str:
    """Return the machine's apt settings for proxies, certificates and checks, as text for an apt.conf file."""
    return parse_network_options(_output("apt-config", "dump").splitlines())


def parse_network_options(dump: Iterable[str]) -> str:
    """Keep the lines of `apt-config dump` that say how to fetch; apt's option names ignore case."""
    kept = [line for line in dump if line.lower().startswith(_NETWORK_OPTIONS)]
    return "".join(f"{line}\n" for line in kept)


def install(*packages: str) -> None:
    """Install packages on the machine itself, for tools that must run before the site exists.

    Raises:
        TestbedError: apt refused; its own words follow.
    """
    update()
    _apt_get("install", "-y", "--no-install-recommends", *packages)


def update() -> None:
    """Fetch the machine's package lists."""
    _apt_get("update")


def _apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "-q", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestbedError(f"`apt-get {' '.join(arguments)}` failed: {done.stderr.strip()[-2000:]}")


def _targets() -> list[str]:
    form = "$(REPO_URI)|$(ORIGIN)|$(LABEL)"
    return _output("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines()


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise TestbedError(f"{argv[0]} not found: the HPC site is built from Debian packages and needs apt.") from error
    except subprocess.CalledProcessError as error:
        raise TestbedError(f"`{' '.join(argv)}` failed: {error.stderr.strip()}") from error
