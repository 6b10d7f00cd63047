"""The configuration file: one YAML document, each section defined where it is used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from sidecar.config import (
    ClientSettings,
    DialSettings,
    InterLinkServerSettings,
    ServerSettings,
    SwitchboardSettings,
)
from sidecar.interlink.config import InterLinkSettings
from slurm_plugin.config import Name, PodSettings, PolicyRule, Settings, SiteSettings, SlurmSettings
from slurm_plugin.errors import ConfigurationError
from vkubelet.config import AgentSettings, NodeName, NodeSettings

from .documents import explain, read_documents


class ClusterSettings(Settings):
    """Another Slurm cluster. ``pods`` and ``policy`` None: as at the top of the file."""

    slurm: SlurmSettings
    pods: PodSettings | None = None
    policy: tuple[PolicyRule, ...] | None = None


class NodeEntry(NodeSettings):
    """One of several virtual nodes. What it does not say is as under ``node``.

    ``partitions`` are those that it stands for, empty for all. ``port`` None: ``api.port`` and as many more as there are
    nodes before it. ``cluster`` None: the one under ``slurm``. ``sidecar``: its cluster is behind one. ``kubeconfig``: a
    credential of its own.
    """

    name: NodeName
    partitions: tuple[Name, ...] = ()
    port: int | None = Field(default=None, ge=1, le=65535)
    cluster: str | None = None
    sidecar: ClientSettings | None = None
    kubeconfig: Path | None = None

    @model_validator(mode="after")
    def _is_in_one_place(self) -> "NodeEntry":
        if self.sidecar is not None and (self.cluster is not None or self.partitions):
            raise ValueError("cluster, partitions: not beside sidecar, which has its own")
        return self


class Configuration(AgentSettings, SiteSettings):
    """The whole file: ``kubernetes``, ``node`` or ``nodes``, ``api``, ``workers``, ``ha``, ``slurm``, ``pods``, ``policy``."""

    sidecar: ClientSettings | None = None
    switchboard: SwitchboardSettings | None = None
    interlink: InterLinkSettings | None = None
    nodes: tuple[NodeEntry, ...] = ()
    clusters: dict[Name, ClusterSettings] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _slurm_is_elsewhere(cls, data: Any) -> Any:
        for other in ("sidecar", "interlink"):
            if isinstance(data, dict) and data.get(other) is not None:
                taken = ("slurm", "nodes", "clusters", "policy", "interlink" if other == "sidecar" else "sidecar")
                if present := [key for key in taken if data.get(key) is not None]:
                    raise ValueError(f"{', '.join(present)}: not beside {other}, which is one node's and has its own")
                return {**data, "slurm": {"host": {"kind": "local"}}}
        nodes = data.get("nodes") if isinstance(data, dict) else None
        if isinstance(nodes, list) and nodes and all(isinstance(node, dict) and node.get("sidecar") for node in nodes):
            if present := [key for key in ("slurm", "clusters", "policy") if data.get(key) is not None]:
                raise ValueError(f"{', '.join(present)}: every node is behind a sidecar, which has its own")
            return {**data, "slurm": {"host": {"kind": "local"}, "root": "{home}/.slurmlet/{node}"}}
        return data

    @model_validator(mode="after")
    def _callers_have_a_switchboard(self) -> "Configuration":
        callers = [part.sidecar.name for part in self.parts() if part.sidecar is not None and part.sidecar.name]
        if (self.switchboard is None) == bool(callers):
            raise ValueError("switchboard: needed where a sidecar has a name instead of a url, and only there")
        if twice := sorted({name for name in callers if callers.count(name) > 1}):
            raise ValueError(f"sidecar.name: {', '.join(twice)}: one node each; the sidecar has one node")
        return self

    @model_validator(mode="after")
    def _nodes_do_not_meet(self) -> "Configuration":
        parts = self.parts()
        names = [part.agent.node.name for part in parts]
        ports = [str(part.agent.api.port) for part in parts]
        for what, values in (("name", names), ("port", ports)):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"nodes: two nodes have the {what} {', '.join(twice)}")
        for slurm in (self.slurm, *(cluster.slurm for cluster in self.clusters.values())):
            if len(parts) > 1 and "{node}" not in slurm.root:
                raise ValueError(
                    "slurm.root: must have {node} in it where there are several nodes: each has its own root"
                )
        return self

    def parts(self) -> tuple["NodePart", ...]:
        """Return what each virtual node is told: one for ``node``, or one for each of ``nodes``."""
        if not self.nodes:
            return (NodePart("", self, self, self.sidecar),)
        return tuple(self._part(index, entry) for index, entry in enumerate(self.nodes))

    def _part(self, index: int, entry: NodeEntry) -> "NodePart":
        if entry.cluster is not None and entry.cluster not in self.clusters:
            known = ", ".join(self.clusters) or "none"
            raise ValueError(f"nodes[{index}].cluster: no cluster {entry.cluster!r}; those under clusters are: {known}")
        cluster = self.clusters[entry.cluster] if entry.cluster is not None else ClusterSettings(slurm=self.slurm)
        said = {name: getattr(entry, name) for name in entry.model_fields_set & set(NodeSettings.model_fields)}
        port = self.api.port + index if entry.port is None else entry.port
        if port > 65535:
            raise ValueError(f"nodes[{index}].port: {port} is no port; say which")
        directory = self.api.certificate_directory / entry.name
        agent = AgentSettings(
            kubernetes=self.kubernetes.model_copy(update={"kubeconfig": entry.kubeconfig} if entry.kubeconfig else {}),
            node=self.node.model_copy(update=said),
            api=self.api.model_copy(update={"port": port, "certificate_directory": directory}),
            workers=self.workers,
        )
        partitions = entry.partitions or cluster.slurm.partitions
        site = SiteSettings(
            slurm=cluster.slurm.model_copy(update={"partitions": partitions}),
            pods=cluster.pods or self.pods,
            policy=self.policy if cluster.policy is None else cluster.policy,
        )
        # Nodes of one cluster share its capacity; one behind a sidecar has a cluster to itself.
        name = entry.cluster or "" if entry.sidecar is None else f"behind {entry.sidecar.words}"
        return NodePart(name, agent, site, entry.sidecar)


@dataclass(frozen=True, slots=True)
class NodePart:
    """What one virtual node is told. ``cluster`` is its name under ``clusters``, "" for the one under ``slurm``.

    ``sidecar``: behind which its cluster is, if it is behind one; ``site`` says nothing then but for ``pods``.
    """

    cluster: str
    agent: AgentSettings
    site: SiteSettings
    sidecar: ClientSettings | None = None


class SidecarNode(Settings):
    """The virtual node that a sidecar serves."""

    name: NodeName = "slurm"


class SidecarConfiguration(SiteSettings):
    """A sidecar's whole file: ``serve`` and ``dial``, or ``interlink``; ``node``, ``slurm``, ``pods``, ``policy``."""

    serve: ServerSettings | None = None
    dial: DialSettings | None = None
    interlink: InterLinkServerSettings | None = None
    node: SidecarNode = SidecarNode()

    @model_validator(mode="after")
    def _serves_somebody(self) -> "SidecarConfiguration":
        if (self.serve is None and self.dial is None) == (self.interlink is None):
            raise ValueError(
                "needs serve, dial or interlink; interlink alone: an agent ends pods that it does not know"
            )
        return self


T = TypeVar("T", bound=BaseModel)


def load(path: Path) -> Configuration:
    """Read the agent's configuration file. Raises ConfigurationError naming the file, the key and what was expected."""
    return _load(path, Configuration)


def load_sidecar(path: Path) -> SidecarConfiguration:
    """Read a sidecar's configuration file, likewise."""
    return _load(path, SidecarConfiguration)


def load_either(path: Path) -> Configuration | SidecarConfiguration:
    """Read an agent's or a sidecar's configuration file, whichever it is, likewise."""
    documents = read_documents(path)
    data = documents[0] if documents and isinstance(documents[0], dict) else {}
    interlink = data.get("interlink")
    # Both have a section of that name: an agent's says where the plugin is.
    serves_interlink = isinstance(interlink, dict) and "url" not in interlink
    return load_sidecar(path) if serves_interlink or data.keys() & {"serve", "dial"} else load(path)


def _load(path: Path, kind: type[T]) -> T:
    documents = read_documents(path)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ConfigurationError(f"{path}: expected one YAML mapping")
    try:
        return kind.model_validate(documents[0])
    except ValidationError as error:
        raise explain(path, error, documents[0]) from error
