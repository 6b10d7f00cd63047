"""Where the testbed keeps things: a cache that survives, and a state directory that `down` removes.

`Layout` names the rooms; a component with more names of its own (control plane, site) derives them from its room.
Nothing here touches the file system.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import TestbedError
from testbed.ports import ADDRESS, Port, base_from

STATE_VARIABLE = "SLURMLET_TESTBED"
PROJECT_ROOT = Path(__file__).resolve().parent.parent

_DEFAULT_STATE = "/var/tmp/slurmlet-testbed"  # noqa: S108  not a file anyone could have put there first: made 0755 by root
_LONGEST_STATE = 60  # AF_UNIX paths end at 107 bytes, and the deepest socket in the state directory needs some 40
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, slots=True)
class Layout:
    """One testbed's directories and ports. Two testbeds with different state and port base do not meet."""

    cache: Path
    """Programs, root file systems, images: dear to make, the same for every testbed, never changed once complete."""
    state: Path
    """All that a running testbed writes; removed by `down`."""
    port_base: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Layout":
        """The layout that XDG_CACHE_HOME, SLURMLET_TESTBED and SLURMLET_TESTBED_PORT_BASE describe."""
        cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slurmlet"
        state = Path(environment.get(STATE_VARIABLE) or _DEFAULT_STATE)
        if not state.is_absolute() or len(os.fsencode(state)) > _LONGEST_STATE:
            raise TestbedError(
                f"{STATE_VARIABLE} is {str(state)!r}; it must be an absolute path of at most {_LONGEST_STATE} bytes, "
                "because Unix sockets live below it."
            )
        return cls(cache=cache, state=state, port_base=base_from(environment))

    def port(self, port: Port, index: int = 0) -> int:
        """The number of `port`, or of the one `index` above it in a range."""
        return self.port_base + port + index

    def endpoint(self, port: Port) -> str:
        """`127.0.0.1:NUMBER`."""
        return f"{ADDRESS}:{self.port(port)}"

    @property
    def lock(self) -> Path:
        """Held while a command changes the testbed; in the cache because `down` removes the state directory."""
        return self.cache / "locks" / (str(self.state).strip("/").replace("/", "-") + ".lock")

    @property
    def bin(self) -> Path:
        """First in PATH of whoever uses the testbed: kubectl and the wrappers of Slurm's commands."""
        return self.state / "bin"

    @property
    def share(self) -> Path:
        """Bound at the same path inside the site, for files that both sides read."""
        return self.state / "share"

    @property
    def kubernetes(self) -> Path:
        """The control plane's certificates, kubeconfigs and data."""
        return self.state / "kubernetes"

    @property
    def site(self) -> Path:
        """The HPC site's writable layer, mount point and keys."""
        return self.state / "site"

    @property
    def registry(self) -> Path:
        """The OCI registry's configuration and blobs."""
        return self.state / "registry"

    def log(self, name: str) -> Path:
        """What the process `name` wrote to standard output and error."""
        return self.state / "log" / f"{_checked(name)}.log"

    def process(self, name: str) -> Path:
        """The record of the process `name` (see testbed.processes)."""
        return self.state / "run" / f"{_checked(name)}.json"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no process name: lower-case letters, digits, '.' and '-' only")
    return name
