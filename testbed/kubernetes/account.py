"""The agent's account in a new cluster, with the rights that examples/rbac.yaml gives it, and the account's kubeconfig."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import TestbedError
from testbed.kubernetes.files import Files
from testbed.kubernetes.kubeconfig import Cluster, render_kubeconfig, write_kubeconfig
from testbed.paths import PROJECT_ROOT

NAMESPACE = "slurmlet"
SERVICE_ACCOUNT = "slurmlet"

_EXAMPLES = PROJECT_ROOT / "examples"
_MANIFESTS = (Path(__file__).with_name("bootstrap.yaml"), _EXAMPLES / "rbac.yaml", _EXAMPLES / "tolerations.yaml")
_TOKEN_LIFETIME = "87600h"  # noqa: S105  ten years: a testbed's token ends with the testbed


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl as the cluster's administrator."""

    program: Path
    kubeconfig: Path
    seconds: float = 120.0
    """How long it may take: much, for a machine that has just started everything answers slowly."""

    def __call__(self, *words: str) -> str:
        """Run `kubectl WORDS` and return what it prints; raises TestbedError with its own words, or when it takes too long."""
        argv = [str(self.program), f"--kubeconfig={self.kubeconfig}", *words]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=self.seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise TestbedError(f"`kubectl {' '.join(words)}` did not end within {self.seconds:g} s.") from error
        if done.returncode:
            raise TestbedError(f"`kubectl {' '.join(words)}` exited with {done.returncode}: {done.stderr.strip()}")
        return done.stdout


def ensure_account(kubectl: Kubectl, cluster: Cluster, files: Files) -> None:
    """Apply our manifests and write the account's kubeconfig, once per version of the manifests.

    The cluster's data and the marker live and go together.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in _MANIFESTS)).hexdigest()
    marker = files.bootstrapped
    if marker.exists() and marker.read_text() == digest and files.agent_kubeconfig.exists():
        return
    kubectl("apply", "--server-side", "--force-conflicts", *(f"--filename={path}" for path in _MANIFESTS))
    token = kubectl("create", "token", SERVICE_ACCOUNT, f"--namespace={NAMESPACE}", f"--duration={_TOKEN_LIFETIME}")
    text = render_kubeconfig(cluster, SERVICE_ACCOUNT, token.strip(), namespace=NAMESPACE)
    write_kubeconfig(files.agent_kubeconfig, text)
    marker.write_text(digest)
