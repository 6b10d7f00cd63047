"""The part of the configuration file that speaks of Kubernetes: the API server, the node, the kubelet's own port.

Validated by pydantic; an unknown key or a bad value is an error that names its path. Nothing here reads a file.
"""

import platform
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from slurm_plugin.config import Settings

NodeName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}


class KubernetesSettings(Settings):
    """The API server: a kubeconfig and a context in it, else KUBECONFIG or the service account of the agent's own pod."""

    kubeconfig: Path | None = None
    context: str | None = None


class Taint(Settings):
    """A taint of the node."""

    key: str = Field(min_length=1)
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class CapacitySettings(Settings):
    """What the node offers to the scheduler.

    ``queueable``: ``allocatable`` is ``multiple`` times what usable nodes have, for a batch system queues.
    ``physical``: exactly what usable nodes have. ``pods`` is how many pods may be bound at once.
    """

    mode: Literal["queueable", "physical"] = "queueable"
    multiple: float = Field(default=10, ge=1, le=1000)
    pods: int = Field(default=5000, ge=1)
    refresh_seconds: float = Field(default=30, ge=1)


class NodeSettings(Settings):
    """The virtual node. ``address`` is where the API server reaches the agent; None is found by the route to it."""

    name: NodeName = "slurm"
    address: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    taints: tuple[Taint, ...] = (Taint(key="virtual-kubelet.io/provider", value="slurm", effect="NoSchedule"),)
    architecture: str = Field(default_factory=lambda: _ARCHITECTURES.get(platform.machine(), platform.machine()))
    capacity: CapacitySettings = CapacitySettings()

    @field_validator("address")
    @classmethod
    def _address_is_an_ip(cls, value: str | None) -> str | None:
        return None if value is None else str(ip_address(value))


class CertificateFiles(Settings):
    """A serving certificate that somebody else renews; read again when the files change."""

    certificate_file: Path
    key_file: Path


class ApiSettings(Settings):
    """The kubelet's HTTPS port.

    ``certificate`` None asks the cluster for a serving certificate (``kubernetes.io/kubelet-serving``; somebody must
    approve it) and keeps it in ``certificate_directory``. ``client_ca_file`` None takes the cluster's own client CA.
    ``websockets`` False: the node does not declare that the API server may hand WebSockets through.
    """

    listen: str = "0.0.0.0"  # noqa: S104  the API server has to reach it; every request is authenticated
    port: int = Field(default=10250, ge=1, le=65535)
    certificate: CertificateFiles | None = None
    certificate_directory: Path = Path("/var/lib/slurmlet/pki")
    client_ca_file: Path | None = None
    websockets: bool = True

    @model_validator(mode="after")
    def _listen_is_an_ip(self) -> "ApiSettings":
        ip_address(self.listen)
        return self


class HaSettings(Settings):
    """Several agents of which one works: the one that holds the Lease ``name`` in ``namespace``.

    ``kubeconfig`` and ``context``: a credential for that Lease alone, for a node's own identity may not have any but the
    node's; None takes the one under ``kubernetes``.
    """

    namespace: str = Field(min_length=1)
    name: str = Field(default="slurmlet", min_length=1)
    lease_seconds: int = Field(default=15, ge=1, le=600)
    kubeconfig: Path | None = None
    context: str | None = None


class AgentSettings(Settings):
    """Everything that ``vkubelet`` is told. ``workers``: how many pods are worked on at once."""

    kubernetes: KubernetesSettings = KubernetesSettings()
    node: NodeSettings = NodeSettings()
    api: ApiSettings = ApiSettings()
    workers: int = Field(default=32, ge=1, le=512)
    ha: HaSettings | None = None
