"""A Kubernetes control plane on loopback, with the trust relations of a real one, kept running across commands.

Its shape is kubeadm's, where that is a matter of trust: Node and RBAC authorization, NodeRestriction, client
certificates from one CA, the aggregation layer's from another. Two things differ, to be stricter: kubelet-serving
certificates have a CA of their own, which the API server verifies (kubeadm verifies none), and etcd takes only the
API server's certificate. What each program is told is in arguments.py.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from testbed import processes
from testbed.kubernetes import arguments
from testbed.kubernetes.account import Kubectl, ensure_account
from testbed.kubernetes.api import Api
from testbed.kubernetes.binaries import Programs, find_programs
from testbed.kubernetes.files import Files
from testbed.kubernetes.kubeconfig import Cluster, render_kubeconfig, write_kubeconfig
from testbed.kubernetes.pki import Pair
from testbed.paths import PROJECT_ROOT, Layout
from testbed.ports import Port
from testbed.progress import step

_START_SECONDS = 60.0
_PROCESSES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "csr-approver")


class ControlPlane:
    """The testbed's Kubernetes component (see testbed.__main__ for the protocol)."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files = Files(layout.kubernetes)
        self._cluster = Cluster(f"https://{layout.endpoint(Port.API_SERVER)}", self._files.cluster_ca.pair.certificate)

    def ensure(self) -> None:
        """Install the programs, start what does not run, return when the cluster serves; idempotent."""
        programs = find_programs(self._layout)
        self._link(programs)
        with step("Starting Kubernetes"):
            self._files.ensure()
            self._publish_ca()
            self._start_api_server(programs)
            self._start_controllers(programs)
            kubectl = Kubectl(self._layout.bin / "kubectl", self._files.admin_kubeconfig)
            ensure_account(kubectl, self._cluster, self._files)
            self._start_approver()
            self._wait_for_service_accounts()

    def stop(self) -> None:
        """Stop the processes, those that depend on others first; idempotent."""
        for name in reversed(_PROCESSES):
            processes.stop(self._layout, name)

    def status(self) -> list[tuple[str, str]]:
        """Each process's name and state."""
        states = []
        for name in _PROCESSES:
            pid = processes.pid(self._layout, name)
            states.append((name, "stopped" if pid is None else f"running, pid {pid}"))
        return states

    def environment(self) -> dict[str, str]:
        """What a user's shell needs, besides PATH."""
        return {
            "KUBECONFIG": str(self._files.admin_kubeconfig),
            "SLURMLET_TESTBED_NODE_KUBECONFIG": str(self._files.agent_kubeconfig),
            "SLURMLET_TESTBED_KUBELET_CLIENT_CA": str(self._published_ca),
        }

    def node_kubeconfig(self, name: str) -> Path:
        """The kubeconfig of user `system:node:NAME`, group `system:nodes`, as a real kubelet has it; made only once."""
        path = self._files.node_kubeconfig(name)
        if not path.exists():
            user = f"system:node:{name}"
            pair = self._files.cluster_ca.client(f"node-{name}", user, ["system:nodes"])
            write_kubeconfig(path, render_kubeconfig(self._cluster, user, pair))
        return path

    def write_agent_kubeconfig(self, path: Path, *, uid: int, gid: int) -> None:
        """Copy the agent's ServiceAccount kubeconfig to `path`, readable by that user only; needs a ready cluster."""
        write_kubeconfig(path, self._files.agent_kubeconfig.read_text(), uid=uid, gid=gid)

    def _link(self, programs: Programs) -> None:
        link = self._layout.bin / "kubectl"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or link.readlink() != programs["kubectl"]:
            link.unlink(missing_ok=True)
            link.symlink_to(programs["kubectl"])

    @property
    def _published_ca(self) -> Path:
        return self._layout.share / "kubelet-client-ca.crt"

    def _publish_ca(self) -> None:
        """Kubelets on either side of the site's wall verify the API server with it."""
        self._published_ca.parent.mkdir(parents=True, exist_ok=True)
        self._published_ca.write_bytes(self._files.cluster_ca.pair.certificate.read_bytes())

    def _start_api_server(self, programs: Programs) -> None:
        layout, files = self._layout, self._files
        processes.start(layout, "etcd", [programs["etcd"], *arguments.etcd(layout, files)])
        processes.start(layout, "kube-apiserver", [programs["kube-apiserver"], *arguments.api_server(layout, files)])
        api = self._api(Port.API_SERVER, files.admin)
        self._wait_for("kube-apiserver", partial(api.is_healthy, "/readyz"), requires=("etcd", "kube-apiserver"))
        self._write_kubeconfigs()

    def _write_kubeconfigs(self) -> None:
        for path, user, pair in self._files.kubeconfigs():
            if not path.exists():
                write_kubeconfig(path, render_kubeconfig(self._cluster, user, pair))

    def _start_controllers(self, programs: Programs) -> None:
        layout, files = self._layout, self._files
        processes.start(
            layout,
            "kube-controller-manager",
            [programs["kube-controller-manager"], *arguments.controller_manager(layout, files)],
        )
        processes.start(layout, "kube-scheduler", [programs["kube-scheduler"], *arguments.scheduler(layout, files)])
        for name, port in (
            ("kube-controller-manager", Port.CONTROLLER_MANAGER),
            ("kube-scheduler", Port.SCHEDULER),
        ):
            api = self._api(port)
            self._wait_for(name, partial(api.is_healthy, "/healthz"), requires=(name,))

    def _start_approver(self) -> None:
        authority, client = self._files.cluster_ca.pair.certificate, self._files.approver
        argv = arguments.approver(self._layout, authority, client)
        processes.start(self._layout, "csr-approver", argv, cwd=PROJECT_ROOT)

    def _wait_for_service_accounts(self) -> None:
        """Pods are refused until their namespace has its default ServiceAccount."""
        api = self._api(Port.API_SERVER, self._files.admin)
        for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
            self._wait_for(
                "kube-controller-manager",
                partial(api.is_healthy, f"/api/v1/namespaces/default/{path}"),
                requires=("kube-controller-manager",),
            )

    def _api(self, port: Port, client: Pair | None = None) -> Api:
        return Api(self._layout.port(port), self._files.cluster_ca.pair.certificate, client)

    def _wait_for(self, name: str, check: Callable[[], bool], *, requires: tuple[str, ...]) -> None:
        def serves() -> bool:
            for process in requires:
                processes.require(self._layout, process)
            return check()

        processes.wait_until(f"{name} to serve", serves, timeout_seconds=_START_SECONDS, log=self._layout.log(name))
