"""What each program of the control plane is told. Only names of files and ports here; nothing is started."""

import sys
from pathlib import Path

from testbed.kubernetes.files import Files
from testbed.kubernetes.pki import Pair
from testbed.paths import Layout
from testbed.ports import ADDRESS, Port

_SERVICE_CIDR = "10.96.0.0/16"
# The default 20 to 50 requests a second would be what a benchmark of the agent measures: 50 pods bound per second.
_UNTHROTTLED = ("--kube-api-qps=1000", "--kube-api-burst=2000")


def etcd(layout: Layout, files: Files) -> list[str]:
    """A single member that never syncs to disk: a testbed that loses power starts anew."""
    client, peer = (f"https://{layout.endpoint(port)}" for port in (Port.ETCD_CLIENT, Port.ETCD_PEER))
    return [
        "--name=slurmlet-testbed",
        f"--data-dir={files.etcd_data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=slurmlet-testbed={peer}",
        "--client-cert-auth",
        f"--trusted-ca-file={files.etcd_ca.pair.certificate}",
        *_served(files.etcd, "--cert-file", "--key-file"),
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={files.etcd_ca.pair.certificate}",
        *_served(files.etcd, "--peer-cert-file", "--peer-key-file"),
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(layout: Layout, files: Files) -> list[str]:
    """Authorization, admission and trust as kubeadm sets them, and the kubelet's serving certificate verified too."""
    return [
        f"--bind-address={ADDRESS}",
        f"--secure-port={layout.port(Port.API_SERVER)}",
        f"--advertise-address={ADDRESS}",
        "--endpoint-reconciler-type=none",  # no Endpoints object may hold a loopback address
        f"--service-cluster-ip-range={_SERVICE_CIDR}",
        f"--etcd-servers=https://{layout.endpoint(Port.ETCD_CLIENT)}",
        f"--etcd-cafile={files.etcd_ca.pair.certificate}",
        *_served(files.etcd_client, "--etcd-certfile", "--etcd-keyfile"),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={files.cluster_ca.pair.certificate}",
        *_served(files.api_server, "--tls-cert-file", "--tls-private-key-file"),
        *_served(files.kubelet_client, "--kubelet-client-certificate", "--kubelet-client-key"),
        f"--kubelet-certificate-authority={files.kubelet_serving_ca.pair.certificate}",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={files.service_account.certificate}",
        f"--service-account-signing-key-file={files.service_account.key}",
        f"--requestheader-client-ca-file={files.front_proxy_ca.pair.certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        *_served(files.front_proxy_client, "--proxy-client-cert-file", "--proxy-client-key-file"),
        "--profiling=false",
    ]


def controller_manager(layout: Layout, files: Files) -> list[str]:
    """One CA signs kubelets' serving certificates, the cluster's all clients'."""
    signers = {
        "kubelet-serving": files.kubelet_serving_ca,
        "kubelet-client": files.cluster_ca,
        "kube-apiserver-client": files.cluster_ca,
        "legacy-unknown": files.cluster_ca,
    }
    signing = [
        word
        for signer, authority in signers.items()
        for word in _served(
            authority.pair, f"--cluster-signing-{signer}-cert-file", f"--cluster-signing-{signer}-key-file"
        )
    ]
    return [
        *_controller(str(files.controller_manager_kubeconfig), layout.port(Port.CONTROLLER_MANAGER), files),
        "--use-service-account-credentials",
        "--horizontal-pod-autoscaler-sync-period=5s",  # of 15 s, lest tests wait
        f"--service-account-private-key-file={files.service_account.key}",
        f"--flex-volume-plugin-dir={files.directory / 'flexvolume'}",  # or it makes /usr/libexec/kubernetes
        f"--root-ca-file={files.cluster_ca.pair.certificate}",
        f"--service-cluster-ip-range={_SERVICE_CIDR}",
        *signing,
    ]


def scheduler(layout: Layout, files: Files) -> list[str]:
    """The default scheduler, unthrottled."""
    return _controller(str(files.scheduler_kubeconfig), layout.port(Port.SCHEDULER), files)


def approver(layout: Layout, authority: Path, client: Pair, *addresses: str) -> list[str]:
    """The whole command line of our CSR approver; `addresses` may be in requests, besides loopback ones."""
    paths = [str(path) for path in (authority, client.certificate, client.key)]
    port = str(layout.port(Port.API_SERVER))
    return [sys.executable, "-m", "testbed.kubernetes.approver", port, *paths, *addresses]


def _controller(kubeconfig: str, port: int, files: Files) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={ADDRESS}",
        f"--secure-port={port}",
        *_served(files.controllers_serving, "--tls-cert-file", "--tls-private-key-file"),
        "--leader-elect=false",
        "--profiling=false",
        *_UNTHROTTLED,
    ]


def _served(pair: Pair, certificate_flag: str, key_flag: str) -> list[str]:
    return [f"{certificate_flag}={pair.certificate}", f"{key_flag}={pair.key}"]
