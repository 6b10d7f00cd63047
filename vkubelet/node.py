"""The Node object, its conditions and its Lease as JSON, from facts. Pure; the loops are in ``registration``.

Ready means that the agent lives, and nothing else: a NotReady node loses its pods after five minutes, and an hour of
Slurm maintenance must not do that. Whether Slurm answers is the condition ``SlurmReachable`` and a NoSchedule taint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from slurm_plugin.cluster import Enforcement
from slurm_plugin.podstatus import timestamp
from slurm_plugin.quantity import parse_quantity

from .config import NodeSettings

Json = dict[str, Any]

UNREACHABLE_TAINT = {"key": "slurmlet.io/slurm-unreachable", "effect": "NoSchedule"}
LEASE_SECONDS = 40
# A valid semantic version, by which clients decide what a kubelet can do.
KUBELET_VERSION = "v1.34.0-slurmlet.0.1.0"
# The API server (1.36 and later) hands WebSocket clients of exec, attach and port-forward through as they are.
WEBSOCKETS = "ExtendWebSocketsToKubelet"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """All that the Node object depends on.

    ``capacity`` and ``allocatable`` are None while Slurm was never asked: what the object has is then kept.
    ``slurm_error`` None: Slurm answers. ``port`` is the kubelet API's. ``websockets``: the port serves them.
    ``enforcement`` None: Slurm does not tell.
    """

    settings: NodeSettings
    address: str
    port: int
    slurm_version: str = ""
    capacity: Mapping[str, str] | None = None
    allocatable: Mapping[str, str] | None = None
    slurm_error: str | None = "not asked yet"
    labels: Mapping[str, str] = field(default_factory=dict)
    websockets: bool = False
    enforcement: Enforcement | None = None


def node_path(name: str) -> str:
    """Return the Node's path in the API."""
    return f"/api/v1/nodes/{name}"


def labels(facts: NodeFacts) -> dict[str, str]:
    """Return the labels that the agent owns; all others of the Node are left alone."""
    settings = facts.settings
    return {
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": settings.architecture,
        "node.kubernetes.io/instance-type": "slurm",
        "type": "virtual-kubelet",
        **facts.labels,
        **settings.labels,
    }


def new_node(facts: NodeFacts, now: float) -> Json:
    """Return the object to create. Taints are part of the creation: the node must never be without them.

    Not so the one that comes and goes: a node's own credential could never take it away again. Until Slurm was asked,
    a capacity of no pods keeps the scheduler off.
    """
    taints = [taint.model_dump(exclude_defaults=True) for taint in facts.settings.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": facts.settings.name, "labels": labels(facts)},
        "spec": {"taints": taints},
        "status": node_status(facts, {}, now),
    }


def node_status(facts: NodeFacts, old: Mapping[str, Any], now: float) -> Json:
    """Return the status for a strategic merge patch; ``old`` is the Node's present status."""
    capacity = facts.capacity if facts.capacity is not None else old.get("capacity") or {"pods": "0"}
    allocatable = facts.allocatable if facts.allocatable is not None else old.get("allocatable") or {"pods": "0"}
    return {
        "capacity": {**_removed(old.get("capacity"), capacity), **capacity},
        "allocatable": {**_removed(old.get("allocatable"), allocatable), **allocatable},
        "conditions": _conditions(facts, old.get("conditions") or (), now),
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "Hostname", "address": facts.settings.name},
            {"$patch": "replace"},  # addresses merge by type, which is wrong for a node with two of one
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "nodeInfo": _node_info(facts),
        "declaredFeatures": [WEBSOCKETS] if facts.websockets else [],
    }


def _removed(old: Mapping[str, str] | None, new: Mapping[str, str]) -> dict[str, None]:
    """Return what a merge patch needs to drop resources that are no more."""
    return {name: None for name in old or {} if name not in new}


def _node_info(facts: NodeFacts) -> Json:
    identity = str(uuid5(NAMESPACE_DNS, f"{facts.settings.name}.slurmlet.io"))
    slurm = f"Slurm {facts.slurm_version}" if facts.slurm_version else "Slurm"
    return {
        "machineID": identity.replace("-", ""),
        "systemUUID": identity,
        "bootID": identity,
        "kernelVersion": slurm,
        "osImage": slurm,
        "containerRuntimeVersion": f"slurm://{facts.slurm_version or 'unknown'}",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": facts.settings.architecture,
    }


def _enforcing(enforcement: Enforcement | None) -> tuple[str, str, str]:
    """Return status, reason and message of the condition that says whether Slurm keeps jobs to what they asked for."""
    if enforcement is None:
        return "Unknown", "SlurmDoesNotTell", "Slurm does not tell what it keeps jobs to"
    if free := [what for what, holds in asdict(enforcement).items() if not holds]:
        message = f"Slurm does not keep jobs to their own {', '.join(free)}: see TaskPlugin and cgroup.conf"
        return "False", "NotAllEnforced", message
    return "True", "AllEnforced", "Slurm keeps jobs to their own cores, memory and devices"


def _conditions(facts: NodeFacts, old: Sequence[Mapping[str, Any]], now: float) -> list[Json]:
    reachable = facts.slurm_error is None
    wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        (
            "SlurmReachable",
            "True" if reachable else "False",
            "SlurmAnswers" if reachable else "SlurmUnreachable",
            "Slurm answers" if facts.slurm_error is None else facts.slurm_error,
        ),
        ("SlurmEnforcesResources", *_enforcing(facts.enforcement)),
    ]
    before = {condition["type"]: condition for condition in old}
    result = []
    for kind, status, reason, message in wanted:
        same = before.get(kind, {}).get("status") == status
        transition = before[kind].get("lastTransitionTime") if same else None
        result.append({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": timestamp(now), "lastTransitionTime": transition or timestamp(now),
        })  # fmt: skip
    return result


def differs(status: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a status says anything new besides its heartbeat."""
    # An API server before 1.36 forgets the features: that there are none is no difference.
    told = {key: old.get(key) for key in status} | {
        "declaredFeatures": old.get("declaredFeatures") or status["declaredFeatures"]
    }
    return _comparable(status) != _comparable(told)


def _comparable(status: Mapping[str, Any]) -> Json:
    ours = {"MemoryPressure", "DiskPressure", "PIDPressure", "Ready", "SlurmReachable", "SlurmEnforcesResources"}
    conditions = {
        c["type"]: (c.get("status"), c.get("reason"), c.get("message"))
        for c in status.get("conditions") or ()
        if c["type"] in ours
    }
    addresses = [a for a in status.get("addresses") or () if "type" in a]
    # The API server writes quantities its own way: 5000 is "5k" there.
    maps = {
        kind: {n: parse_quantity(v, n) for n, v in (status.get(kind) or {}).items() if v is not None}
        for kind in ("capacity", "allocatable")
    }
    info = {k: v for k, v in (status.get("nodeInfo") or {}).items() if k in _INFO}
    return {
        **maps,
        "conditions": conditions,
        "addresses": addresses,
        "info": info,
        "port": status.get("daemonEndpoints"),
        "features": status.get("declaredFeatures"),
    }


_INFO = frozenset(
    {"osImage", "kernelVersion", "containerRuntimeVersion", "kubeletVersion", "architecture", "machineID"}
)


def with_reachability(taints: Sequence[Mapping[str, Any]], *, reachable: bool) -> list[Json]:
    """Return the taints with ours present or not; the others as they are."""
    kept = [dict(taint) for taint in taints if taint.get("key") != UNREACHABLE_TAINT["key"]]
    return kept if reachable else [*kept, dict(UNREACHABLE_TAINT)]


def lease(name: str, node_uid: str, now: float) -> Json:
    """Return the Lease by which the control plane knows that the agent lives; owned by the Node."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
    renewed = datetime.fromtimestamp(now, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renewed},
    }
