"""Whether a job could ever run: against the nodes of its partition, before sbatch is asked. Pure.

Down and drained nodes count, for a job may wait for them; what no node has can't be waited for, nor can more nodes than
a partition lets one job have. What is left to say (states, other limits of partitions, associations) is slurmctld's.
"""

from collections.abc import Iterable
from dataclasses import replace

from . import gpus
from .annotations import field_of
from .cluster import Cluster, Partition, SlurmNode
from .config import PodSettings, PolicyRule, ResourceMapping
from .errors import PolicyError, TooLargeError
from .job import BatchJob, Gres

_FIELD = "spec.containers"


def candidates(cluster: Cluster, partition: str) -> tuple[SlurmNode, ...]:
    """Return the nodes of a partition (or several, with commas), "" for the default one's; all of them while it is not known."""
    names = set(partition.split(",")) if partition else {each.name for each in cluster.partitions if each.default}
    found = tuple(node for node in cluster.nodes if node.partitions & names)
    return found or cluster.nodes


def check_size(job: BatchJob, cluster: Cluster, resources: dict[str, ResourceMapping]) -> None:
    """Raise TooLargeError if no node that the job could run on is large enough, naming the resource and the limit.

    ``resources``: which extended resource a GRES is asked for by.
    """
    nodes = candidates(cluster, job.placement.partition)
    if not nodes:
        return
    where = f"partition {job.placement.partition}" if job.placement.partition else "the default partition"
    limits = (
        ("cpu", job.cpus_per_node, max(node.cpus for node in nodes), "CPUs"),
        ("memory", job.memory_mib or 0, max(node.memory_mib for node in nodes), "MiB of memory"),
        ("ephemeral-storage", job.tmp_mib or 0, max(node.tmp_mib for node in nodes), "MiB of temporary space"),
    )
    _check_nodes(job, len(nodes), cluster, where)
    for resource, wanted, most, unit in limits:
        if wanted > most:
            raise TooLargeError(_FIELD, resource, _too_large(wanted, most, unit, where))
    for gres in job.gres:
        most = max(_has(node, gres) for node in nodes)
        if gres.count > most:
            unit = " ".join(word for word in (gres.name, gres.type) if word)
            raise TooLargeError(_FIELD, _resource(gres, resources), _too_large(gres.count, most, unit, where))
    if not any(_fits(job, node) for node in nodes):
        message = f"no node of {where} has all of what the job asks for at once"
        raise TooLargeError(_FIELD, "cpu", message)


def _check_nodes(job: BatchJob, there: int, cluster: Cluster, where: str) -> None:
    """Compare a job's nodes with those ``there`` are, and with how many its partition lets one job have (MaxNodes).

    A QOS may lift that limit (its flag ``PartitionMaxNodes``), so that of a job that names one slurmctld decides.
    """
    wanted = job.layout.nodes
    if wanted > there:
        raise TooLargeError(field_of("nodes"), "nodes", f"{wanted} nodes are more than {where} has ({there})")
    name = job.placement.partition
    limits = [each.max_nodes for each in cluster.partitions if (each.name == name if name else each.default)]
    most = limits[0] if limits else None  # of several partitions, with commas, Slurm itself chooses one
    if most is not None and wanted > most and not job.placement.qos:
        message = f"{wanted} nodes are more than {where} lets a job have (MaxNodes={most})"
        raise TooLargeError(field_of("nodes"), "nodes", message)


def first_that_fits(job: BatchJob, partitions: Iterable[str], cluster: Cluster) -> BatchJob:
    """Return the job in the first of these partitions where it could run, or as it is if there is none.

    For a pod that names no partition: its GPUs or features may be in another than the default one.
    """
    for name in partitions:
        placed = replace(job, placement=replace(job.placement, partition=name))
        limits = next((each for each in cluster.partitions if each.name == name), None)
        fitting = sum(
            _fits(job, node) and _has_features(job, node) for node in cluster.nodes if name in node.partitions
        )
        if limits is not None and job.layout.nodes <= fitting and _within(job, limits):
            return placed
    return job


def _within(job: BatchJob, limits: Partition) -> bool:
    most, minutes = limits.max_nodes, limits.max_time_minutes
    too_long = minutes is not None and job.time_limit_minutes is not None and job.time_limit_minutes > minutes
    return not too_long and (most is None or job.layout.nodes <= most)


def _has_features(job: BatchJob, node: SlurmNode) -> bool:
    """Whether a node has the features of a plain list; any other expression is slurmctld's to judge."""
    wanted = job.placement.constraint
    return not wanted or bool(set("|()[]*,") & set(wanted)) or set(wanted.split("&")) <= node.features


def check_exclusive(job: BatchJob, rule: PolicyRule, cluster: Cluster | None, settings: PodSettings) -> None:
    """Raise PolicyError if whole nodes may be more CPUs or GPUs than the rule allows, as far as is known.

    Such a job gets all CPUs and GRES of its nodes, but no more memory than it asks for (sbatch(1), ``--exclusive``).
    """
    if not job.placement.exclusive:
        return
    nodes = () if cluster is None else candidates(cluster, job.placement.partition)
    for ceiling, sizes, unit in (
        (rule.max_cpus, [node.cpus for node in nodes], "CPUs"),
        (rule.max_gpus, [_gpus(node, settings) for node in nodes], "GPUs"),
    ):
        if ceiling is None:
            continue
        most = sum(sorted(sizes)[-job.layout.nodes :])
        if not sizes or most > ceiling:
            size = f"of up to {most} {unit}" if sizes else "of a size that is not known"
            message = f"whole nodes {size} may be more than this namespace may use ({ceiling} {unit})"
            raise PolicyError(field_of("exclusive"), message)


def _gpus(node: SlurmNode, settings: PodSettings) -> int:
    return gpus.count((Gres(name, kind, number) for (name, kind), number in node.gres.items()), settings)


def _too_large(wanted: int, most: int, unit: str, where: str) -> str:
    return f"{wanted} {unit} are more than the largest node of {where} has ({most})"


def _has(node: SlurmNode, gres: Gres) -> int:
    return sum(n for (name, kind), n in node.gres.items() if name == gres.name and gres.type in {"", kind})


def _fits(job: BatchJob, node: SlurmNode) -> bool:
    return (
        job.cpus_per_node <= node.cpus
        and (job.memory_mib or 0) <= node.memory_mib
        and (job.tmp_mib or 0) <= node.tmp_mib
        and all(gres.count <= _has(node, gres) for gres in job.gres)
    )


def _resource(gres: Gres, resources: dict[str, ResourceMapping]) -> str:
    """Return the extended resource that a GRES is, as Kubernetes names it."""
    names: Iterable[str] = (name for name, mapping in resources.items() if mapping.gres == gres.name)
    return next(iter(names), gres.name)
