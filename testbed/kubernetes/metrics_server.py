"""metrics-server beside the control plane, behind the aggregation layer: `kubectl top` and autoscaling by CPU.

Started only when it is asked for (`up --only metrics-server`), because building it takes some minutes once. It reads
kubelets as it does everywhere: at the node's address and port, with its ServiceAccount's token, verifying the serving
certificate. What its own manifests do with a Deployment is a process here; its rights are the same.
"""

import base64
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from testbed import processes
from testbed.errors import TestbedError
from testbed.kubernetes.account import Kubectl
from testbed.kubernetes.api import Api
from testbed.kubernetes.files import Files
from testbed.kubernetes.gobuild import MODULES, build_program, find_go
from testbed.kubernetes.kubeconfig import Cluster, render_kubeconfig, write_kubeconfig
from testbed.kubernetes.pki import Pair
from testbed.kubernetes.versions import METRICS_SERVER_PACKAGE, METRICS_SERVER_VERSION
from testbed.locking import locked
from testbed.paths import Layout
from testbed.ports import ADDRESS, Port
from testbed.progress import step

NAME = "metrics-server"
_NAMESPACE = "kube-system"
_HOST = f"{NAME}.{_NAMESPACE}.svc"
_MANIFEST = Path(__file__).with_name("metrics-server.yaml")
_API = "/apis/metrics.k8s.io/v1beta1/nodes"
_SECONDS = 60.0
_TOKEN_LIFETIME = "87600h"  # noqa: S105  ten years: a testbed's token ends with the testbed


class MetricsServer:
    """A component of the testbed that runs only when it is asked for; needs the built control plane."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files = Files(layout.kubernetes)

    def ensure(self) -> None:
        """Build it if it is not cached, start it, return when `kubectl top` is answered; idempotent."""
        if not processes.alive(self._layout, "kube-apiserver"):
            raise TestbedError("metrics-server needs the built control plane; `python -m testbed up` first.")
        program = find_program(self._layout)
        with step("Starting metrics-server"):
            kubectl = Kubectl(self._layout.bin / "kubectl", self._files.admin_kubeconfig)
            kubectl("apply", "--server-side", "--force-conflicts", f"--filename={_MANIFEST}")
            self._write_kubeconfig(kubectl)
            processes.start(self._layout, NAME, [program, *self._arguments()])
            self._register(kubectl)
            api = Api(self._layout.port(Port.API_SERVER), self._files.cluster_ca.pair.certificate, self._files.admin)
            answers = partial(self._answers, api)
            processes.wait_until(
                f"{NAME} to serve", answers, timeout_seconds=_SECONDS, log=self._layout.log(NAME)
            )  # fmt: skip

    def stop(self) -> None:
        """Stop it; idempotent."""
        processes.stop(self._layout, NAME)

    def status(self) -> list[tuple[str, str]]:
        """Its state, nothing while nobody has asked for it."""
        pid = processes.pid(self._layout, NAME)
        return [] if pid is None else [(NAME, f"running, pid {pid}")]

    def environment(self) -> dict[str, str]:
        """Nothing: it is reached through the API server."""
        return {}

    @property
    def _kubeconfig(self) -> Path:
        return self._files.directory / f"{NAME}.kubeconfig"

    @property
    def _serving(self) -> Pair:
        return self._files.cluster_ca.server(NAME, (_HOST, "localhost", ADDRESS))

    def _write_kubeconfig(self, kubectl: Kubectl) -> None:
        if self._kubeconfig.exists():
            return
        cluster = Cluster(
            f"https://{self._layout.endpoint(Port.API_SERVER)}", self._files.cluster_ca.pair.certificate
        )  # fmt: skip
        token = kubectl("create", "token", NAME, f"--namespace={_NAMESPACE}", f"--duration={_TOKEN_LIFETIME}")
        write_kubeconfig(self._kubeconfig, render_kubeconfig(cluster, NAME, token.strip(), namespace=_NAMESPACE))

    def _arguments(self) -> list[str]:
        """What its own manifests say, with our places, and somewhat more often."""
        return [
            f"--kubeconfig={self._kubeconfig}",
            f"--authentication-kubeconfig={self._kubeconfig}",
            f"--authorization-kubeconfig={self._kubeconfig}",
            f"--bind-address={ADDRESS}",
            f"--secure-port={self._layout.port(Port.METRICS_SERVER)}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
            "--kubelet-use-node-status-port",
            f"--kubelet-certificate-authority={self._files.kubelet_serving_ca.pair.certificate}",
            "--metric-resolution=10s",
            "--kubelet-request-timeout=5s",
        ]

    def _register(self, kubectl: Kubectl) -> None:
        """Tell the API server where it is: an ExternalName, since no Endpoints object may hold a loopback address."""
        port = self._layout.port(Port.METRICS_SERVER)
        service: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": _NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        }
        authority = self._files.cluster_ca.pair.certificate.read_bytes()
        registration = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "service": {"name": NAME, "namespace": _NAMESPACE, "port": port},
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "caBundle": base64.b64encode(authority).decode(),
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        }
        objects = self._files.directory / f"{NAME}.json"
        objects.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, registration]}))
        kubectl("apply", f"--filename={objects}")

    def _answers(self, api: Api) -> bool:
        processes.require(self._layout, NAME)
        return api.is_healthy(_API)


def find_program(layout: Layout) -> Path:
    """The program, from the cache or built into it. Raises TestbedError with the compiler's words."""
    cached = layout.cache / f"{NAME}-{METRICS_SERVER_VERSION}"
    if not cached.is_dir():
        with locked(layout.cache / f"{NAME}.lock"):
            if not cached.is_dir():
                _build(cached)
    return cached / NAME


def _build(cached: Path) -> None:
    partial_build = cached.with_name(cached.name + ".partial")
    shutil.rmtree(partial_build, ignore_errors=True)
    partial_build.mkdir()
    go = find_go(cached.parent)
    build_program(go, MODULES / NAME, METRICS_SERVER_PACKAGE, partial_build / NAME, flags="-s -w")
    partial_build.rename(cached)
