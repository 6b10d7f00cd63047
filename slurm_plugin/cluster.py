"""What a Slurm cluster has: nodes and partitions, as sinfo and scontrol show them. Data only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class SlurmNode:
    """One node. ``states`` are Slurm's words, base state first (``IDLE``, ``DRAIN``…), upper case.

    ``gres`` counts by (name, type), e.g. {("gpu", "a100"): 4}; memory and tmp are MiB.
    """

    name: str
    states: frozenset[str]
    cpus: int
    cpus_allocated: int
    memory_mib: int
    memory_allocated_mib: int
    tmp_mib: int
    gres: Mapping[tuple[str, str], int]
    gres_allocated: Mapping[tuple[str, str], int]
    features: frozenset[str]
    partitions: frozenset[str]

    @property
    def usable(self) -> bool:
        """Whether Slurm may start jobs there, now or once they end: not down, drained, draining, failed or unknown."""
        unusable = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "UNKNOWN", "FUTURE", "INVAL",
                    "INVALID_REG", "NOT_RESPONDING", "NO_RESPOND", "MAINT", "POWERING_DOWN"}  # fmt: skip
        return not self.states & unusable


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition. Times are minutes, None is unlimited or unset; ``up`` is whether it takes and starts jobs."""

    name: str
    default: bool
    up: bool
    default_time_minutes: int | None
    max_time_minutes: int | None
    max_nodes: int | None = None


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What keeps a job to what it asked for: its own cores, its memory, its devices. Without, it only asked politely."""

    cores: bool = False
    memory: bool = False
    devices: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """The whole, at one moment. ``enforcement`` is None where it is not known. ``version`` is Slurm's, e.g. "24.11.5"; ``name`` its ClusterName."""

    name: str
    version: str
    partitions: tuple[Partition, ...]
    nodes: tuple[SlurmNode, ...]
    enforcement: Enforcement | None = None

    def part(self, partitions: Collection[str]) -> "Cluster":
        """Return the part of it that these partitions are, their nodes in it; all of it if there are none."""
        if not partitions:
            return self
        return replace(
            self,
            partitions=tuple(partition for partition in self.partitions if partition.name in partitions),
            nodes=tuple(node for node in self.nodes if not node.partitions.isdisjoint(partitions)),
        )
