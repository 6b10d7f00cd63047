"""What a Slurm cluster is as a node's ``capacity`` and ``allocatable``. Pure.

A batch system queues: a node that only offered what is free would keep pods away from fair share and priority. So
``capacity`` is what Slurm has, and ``allocatable`` a multiple of what its usable nodes have, whatever runs there now;
drained and down nodes take their share away, and what no usable node has is zero.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from slurm_plugin.cluster import Cluster, SlurmNode
from slurm_plugin.config import ResourceMapping
from slurm_plugin.gpus import concrete, devices

from .config import CapacitySettings

Resources = dict[str, str]

_MEBI = 2**20


def capacity(cluster: Cluster, mappings: Mapping[str, ResourceMapping], settings: CapacitySettings) -> Resources:
    """Return what the cluster has, down or not."""
    return _total(cluster.nodes, mappings, factor=1.0, pods=settings.pods)


def allocatable(cluster: Cluster, mappings: Mapping[str, ResourceMapping], settings: CapacitySettings) -> Resources:
    """Return what may be asked for: the usable nodes', times the configured multiple unless that is off.

    A node whose partitions are all set down starts no job either.
    """
    down = {partition.name for partition in cluster.partitions if not partition.up}
    usable = [node for node in cluster.nodes if node.usable and not (node.partitions and node.partitions <= down)]
    factor = settings.multiple if settings.mode == "queueable" else 1.0
    return _total(usable, mappings, factor=factor, pods=settings.pods if usable else 0)


def nothing(resources: Mapping[str, str]) -> Resources:
    """Return the same resources, all of them zero."""
    return dict.fromkeys(resources, "0")


def largest_node(cluster: Cluster | None) -> dict[str, Decimal]:
    """Return the most that one container could ever get; what an unset limit is in a ``resourceFieldRef``."""
    nodes = [] if cluster is None else [node for node in cluster.nodes if node.usable]
    return {
        "cpu": Decimal(max((node.cpus for node in nodes), default=0)),
        "memory": Decimal(max((node.memory_mib for node in nodes), default=0) * _MEBI),
        "ephemeral-storage": Decimal(max((node.tmp_mib for node in nodes), default=0) * _MEBI),
    }


def _total(
    nodes: Iterable[SlurmNode], mappings: Mapping[str, ResourceMapping], *, factor: float, pods: int
) -> Resources:
    counted = list(nodes)

    def times(count: int, unit: str = "") -> str:
        return f"{int(count * factor)}{unit}"

    result = {
        "cpu": times(sum(node.cpus for node in counted)),
        "memory": times(sum(node.memory_mib for node in counted), "Mi"),
        "ephemeral-storage": times(sum(node.tmp_mib for node in counted), "Mi"),
        "pods": str(pods),
    }
    kinds = {kind for node in counted for kind in node.gres}
    for name, mapping in concrete(mappings, kinds).items():
        result[name] = times(sum(devices(node, mapping, mappings.values()) for node in counted))
    return result
