"""Kubernetes as a kind cluster (https://kind.sigs.k8s.io), for machines with Docker: no control plane has to be built.

The API server is on the testbed's own port on loopback. It runs in a container, so an agent on this machine is reached
by the address of Docker's bridge and not by loopback: SLURMLET_TESTBED_AGENT_ADDRESS. Unlike the built control plane it
verifies no kubelet's serving certificate.
"""

import base64
import ipaddress
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from testbed import processes
from testbed.errors import TestbedError
from testbed.kubernetes import arguments
from testbed.kubernetes.account import Kubectl, ensure_account
from testbed.kubernetes.api import Api
from testbed.kubernetes.files import Files
from testbed.kubernetes.kubeconfig import Cluster
from testbed.kubernetes.pki import Pair
from testbed.paths import PROJECT_ROOT, Layout
from testbed.ports import ADDRESS, Port
from testbed.progress import step

_APPROVER = "csr-approver"
_NETWORK = "kind"  # of Docker's; kind makes it
_CREATE_SECONDS = 600
_SECONDS = 60
# kind's own agents tolerate every taint; on a virtual node they could only be refused.
_DAEMON_SETS = ("kube-proxy", "kindnet")
_KEPT_OFF = {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]}


class Kind:
    """A kind cluster of one node; a component of the testbed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files = Files(layout.kubernetes)
        self._cluster = Cluster(f"https://{layout.endpoint(Port.API_SERVER)}", self._credential("ca.crt"))

    @property
    def name(self) -> str:
        """The cluster's name in kind, and its container's before `-control-plane`."""
        return f"slurmlet-{self._layout.port_base}"

    @property
    def is_there(self) -> bool:
        """Whether this testbed has made a kind cluster, or was about to."""
        return self._marker.exists()

    def ensure(self) -> None:
        """Make or start the cluster, put the agent's account into it, return when it serves; idempotent.

        Raises TestbedError when Docker or kind is missing, or says no.
        """
        _run("docker", "version", "--format={{.Server.Version}}")
        with step("Starting Kubernetes in kind"):
            self._marker.parent.mkdir(parents=True, exist_ok=True)
            self._marker.write_text(self.name)
            self._start()
            self._write_credentials()
            processes.wait_until(
                "kind's API server to serve", partial(self._api.is_healthy, "/readyz"), timeout_seconds=_SECONDS
            )
            kubectl = self._kubectl()
            for daemon_set in _DAEMON_SETS:
                kubectl(*keep_off(daemon_set))
            ensure_account(kubectl, self._cluster, self._files)
            address = self._agent_address()
            argv = arguments.approver(self._layout, self._cluster.certificate_authority, self._admin, address)
            processes.start(self._layout, _APPROVER, argv, cwd=PROJECT_ROOT)
            self._address.write_text(address)

    def stop(self) -> None:
        """Delete the cluster if it was made here; idempotent."""
        processes.stop(self._layout, _APPROVER)
        if self.is_there:
            _run("kind", "delete", "cluster", "--name", self.name, timeout_seconds=_CREATE_SECONDS)
            self._marker.unlink()

    def status(self) -> list[tuple[str, str]]:
        """Whether the cluster serves, and whether its approver runs."""
        serves = self.is_there and self._admin.key.exists() and self._api.is_healthy("/readyz")
        pid = processes.pid(self._layout, _APPROVER)
        return [
            (f"kind {self.name}", f"running, {self._cluster.server}" if serves else "stopped"),
            (_APPROVER, "stopped" if pid is None else f"running, pid {pid}"),
        ]

    def environment(self) -> dict[str, str]:
        """What a user's shell needs, besides PATH; the agent's address once the cluster is there."""
        return {
            "KUBECONFIG": str(self._files.admin_kubeconfig),
            "SLURMLET_TESTBED_NODE_KUBECONFIG": str(self._files.agent_kubeconfig),
            "SLURMLET_TESTBED_KUBELET_CLIENT_CA": str(self._cluster.certificate_authority),
            **({"SLURMLET_TESTBED_AGENT_ADDRESS": self._address.read_text()} if self._address.exists() else {}),
        }

    def _start(self) -> None:
        """Create the cluster, or start its container if it was stopped."""
        kubeconfig = ("--kubeconfig", str(self._files.admin_kubeconfig))
        if self.name not in _run("kind", "get", "clusters").split():
            create = ("kind", "create", "cluster", "--name", self.name, *kubeconfig, "--config=-", "--wait=120s")
            _run(*create, text=configuration(self._layout.port(Port.API_SERVER)), timeout_seconds=_CREATE_SECONDS)
            return
        _run("docker", "start", self._container)
        _run("kind", "export", "kubeconfig", "--name", self.name, *kubeconfig)

    def _kubectl(self) -> Kubectl:
        """kubectl of the cluster's own version, out of its node."""
        program = self._layout.bin / "kubectl"
        program.parent.mkdir(parents=True, exist_ok=True)
        if program.is_symlink() or not program.exists():
            program.unlink(missing_ok=True)
            _run("docker", "cp", f"{self._container}:/usr/bin/kubectl", str(program))
        return Kubectl(program, self._files.admin_kubeconfig)

    def _write_credentials(self) -> None:
        """Take the CA and the administrator's certificate out of the kubeconfig that kind has written."""
        for name, data in credentials(self._files.admin_kubeconfig.read_text()).items():
            path = self._credential(name)
            path.touch(mode=0o600)
            path.write_bytes(data)

    def _agent_address(self) -> str:
        return gateway(json.loads(_run("docker", "network", "inspect", _NETWORK)))

    def _credential(self, name: str) -> Path:
        return self._files.directory / f"kind-{name}"

    @property
    def _admin(self) -> Pair:
        return Pair(self._credential("admin.crt"), self._credential("admin.key"))

    @property
    def _api(self) -> Api:
        return Api(self._layout.port(Port.API_SERVER), self._cluster.certificate_authority, self._admin)

    @property
    def _container(self) -> str:
        return f"{self.name}-control-plane"

    @property
    def _marker(self) -> Path:
        return self._credential("cluster")

    @property
    def _address(self) -> Path:
        return self._credential("agent-address")


def configuration(port: int) -> str:
    """Return kind's configuration: one node, the API server on this port of loopback. Pure."""
    return yaml.safe_dump({
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kind": "Cluster",
        "networking": {"apiServerAddress": ADDRESS, "apiServerPort": port},
        "nodes": [{"role": "control-plane"}],
    })  # fmt: skip


def keep_off(daemon_set: str) -> tuple[str, ...]:
    """Return kubectl's words that keep a DaemonSet of kind's off virtual nodes. Pure."""
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_KEPT_OFF]}}
    patch = {"spec": {"template": {"spec": {"affinity": {"nodeAffinity": required}}}}}
    return ("patch", f"daemonset/{daemon_set}", "--namespace=kube-system", f"--patch={json.dumps(patch)}")


def credentials(kubeconfig: str) -> dict[str, bytes]:
    """Return the CA, and the only user's certificate and key, as files by name. Pure."""
    config = yaml.safe_load(kubeconfig)
    user = config["users"][0]["user"]
    encoded = {
        "ca.crt": config["clusters"][0]["cluster"]["certificate-authority-data"],
        "admin.crt": user["client-certificate-data"],
        "admin.key": user["client-key-data"],
    }
    return {name: base64.b64decode(data) for name, data in encoded.items()}


def gateway(networks: list[dict[str, Any]]) -> str:
    """Return this machine's IPv4 address in a network, from `docker network inspect`. Pure; raises TestbedError."""
    for part in networks[0]["IPAM"]["Config"]:
        address = part.get("Gateway", "").partition("/")[0]
        if address and ipaddress.ip_address(address).version == 4:
            return str(address)
    raise TestbedError(f"Docker's network {_NETWORK} has no IPv4 gateway, so no agent could be reached from kind.")


def _run(*argv: str, text: str | None = None, timeout_seconds: float = _SECONDS) -> str:
    """Run docker or kind and return what it prints; raises TestbedError with its own words."""
    if shutil.which(argv[0]) is None:
        raise TestbedError(f"KUBE=kind needs {argv[0]} in PATH: https://kind.sigs.k8s.io/docs/user/quick-start/")
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"`{' '.join(argv)}` did not end within {timeout_seconds:.0f} s") from error
    if done.returncode:
        raise TestbedError(f"`{' '.join(argv)}` exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
