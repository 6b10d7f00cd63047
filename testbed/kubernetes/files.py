"""Every certificate, key and kubeconfig of the control plane, by what it is for."""

from dataclasses import dataclass
from pathlib import Path

from testbed.kubernetes.pki import Authority, Pair, ensure_key_pair
from testbed.ports import ADDRESS

KUBERNETES_SERVICE_ADDRESS = "10.96.0.1"
"""Of the `kubernetes` Service: the first of the service range in arguments.py."""

ADMIN = "slurmlet-testbed-admin"
"""The user name of the testbed's administrator."""

_API_SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    ADDRESS,
    KUBERNETES_SERVICE_ADDRESS,
)


@dataclass(frozen=True, slots=True)
class Files:
    """The files in `directory`. A property that names a certificate makes it when it is missing."""

    directory: Path

    def ensure(self) -> None:
        """Make the authorities, from which everything else is issued when it is asked for."""
        for authority in (self.cluster_ca, self.kubelet_serving_ca, self.front_proxy_ca, self.etcd_ca):
            authority.ensure()

    @property
    def cluster_ca(self) -> Authority:
        """Signs the API server's certificate and every client's; kubelets verify the API server's client with it."""
        return self._authority("cluster-ca")

    @property
    def kubelet_serving_ca(self) -> Authority:
        """Signs kubelets' serving certificates, through kube-controller-manager, and nothing else."""
        return self._authority("kubelet-serving-ca")

    @property
    def front_proxy_ca(self) -> Authority:
        """Signs the API server's certificate towards aggregated API servers, which trust its X-Remote headers."""
        return self._authority("front-proxy-ca")

    @property
    def etcd_ca(self) -> Authority:
        """Signs for etcd and its one client: whoever may write to etcd is above all authorization."""
        return self._authority("etcd-ca")

    @property
    def service_account(self) -> Pair:
        """The key pair that service account tokens are signed and verified with."""
        return ensure_key_pair(self._pki, "service-account")

    @property
    def api_server(self) -> Pair:
        """What the API server shows its clients."""
        return self.cluster_ca.server("kube-apiserver", _API_SERVER_NAMES)

    @property
    def controllers_serving(self) -> Pair:
        """What scheduler and controller manager show on their own ports."""
        return self.cluster_ca.server("controllers-serving", ("localhost", ADDRESS))

    @property
    def kubelet_client(self) -> Pair:
        """What the API server shows kubelets; bound to system:kubelet-api-admin in bootstrap.yaml."""
        return self.cluster_ca.client("kube-apiserver-kubelet-client", "kube-apiserver-kubelet-client")

    @property
    def front_proxy_client(self) -> Pair:
        """What the API server shows aggregated API servers."""
        return self.front_proxy_ca.client("front-proxy-client", "front-proxy-client")

    @property
    def etcd(self) -> Pair:
        """What etcd shows its clients and itself as a peer."""
        return self.etcd_ca.server("etcd", ("localhost", ADDRESS), as_client=True)

    @property
    def etcd_client(self) -> Pair:
        """What the API server shows etcd."""
        return self.etcd_ca.client("etcd-client", "kube-apiserver-etcd-client")

    @property
    def admin(self) -> Pair:
        """The testbed's administrator."""
        return self.cluster_ca.client("admin", ADMIN, ["system:masters"])

    @property
    def approver(self) -> Pair:
        """The CSR approver; its rights are in bootstrap.yaml."""
        return self.cluster_ca.client("approver", "slurmlet-testbed-approver")

    def kubeconfigs(self) -> list[tuple[Path, str, Pair]]:
        """Each kubeconfig that carries a certificate: where it is, whose it is, and the certificate."""
        users = {
            self.controller_manager_kubeconfig: "system:kube-controller-manager",
            self.scheduler_kubeconfig: "system:kube-scheduler",
        }
        clients = [(path, user, self.cluster_ca.client(path.stem, user)) for path, user in users.items()]
        return [(self.admin_kubeconfig, ADMIN, self.admin), *clients]

    @property
    def admin_kubeconfig(self) -> Path:
        """KUBECONFIG of `python -m testbed env`."""
        return self.directory / "admin.kubeconfig"

    @property
    def controller_manager_kubeconfig(self) -> Path:
        """kube-controller-manager's."""
        return self.directory / "kube-controller-manager.kubeconfig"

    @property
    def scheduler_kubeconfig(self) -> Path:
        """kube-scheduler's."""
        return self.directory / "kube-scheduler.kubeconfig"

    @property
    def agent_kubeconfig(self) -> Path:
        """The agent's, with a ServiceAccount token."""
        return self.directory / "slurmlet.kubeconfig"

    def node_kubeconfig(self, name: str) -> Path:
        """That of the node `name`'s own identity."""
        return self.directory / f"node-{name}.kubeconfig"

    @property
    def etcd_data(self) -> Path:
        """etcd's data directory."""
        return self.directory / "etcd"

    @property
    def bootstrapped(self) -> Path:
        """Holds the digest of the manifests that were applied."""
        return self.directory / "bootstrapped"

    @property
    def _pki(self) -> Path:
        return self.directory / "pki"

    def _authority(self, name: str) -> Authority:
        return Authority(self._pki, name)
