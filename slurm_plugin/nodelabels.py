"""Labels of the virtual node that say what its part of Slurm has, and what a pod selects by them. Pure.

Partitions, features and types of GPU are labels that are there with the value ``true``, one each, so that a
``nodeSelector`` can ask for several; limits and figures are whole numbers, for ``Gt`` and ``Lt`` of a node affinity. A
node stands for many machines: what a pod selects becomes its job's partition and constraint, lest it run on another.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .cluster import Cluster
from .errors import UnsupportedFieldError
from .pod import Pod

PREFIX = "slurmlet.io/"
PARTITION = PREFIX + "partition-"
FEATURE = PREFIX + "feature-"
GPU_TYPE = PREFIX + "gpu-type-"
TYPE_LABEL = PREFIX + "gpu-type"
GPU_COUNT = PREFIX + "gpu-count-"
_FIGURES = ("cluster", "gpu-type", "max-time-minutes", "max-nodes", "physical-nodes", "physical-cpus", "physical-memory-mib",
            "largest-cpus", "largest-memory-mib", "enforces-cores", "enforces-memory", "enforces-devices")  # fmt: skip
TERMS = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
_GPU = "gpu"
_TRUE = "true"


def owned(key: str) -> bool:
    """Whether a label is one that only ``labels`` makes: it goes when it is made no more."""
    families = (PARTITION, FEATURE, GPU_TYPE, GPU_COUNT)
    return key.startswith(families) or (key.removeprefix(PREFIX) in _FIGURES and key.startswith(PREFIX))


def labels(cluster: Cluster) -> dict[str, str]:
    """Return the labels of a node that stands for this cluster, or for the part of it that this is.

    Physical figures are those of the nodes that can be used now. A name that no label can hold is left out. A limit is
    there if every partition has it: the largest. ``gpu-type`` is there if all GPUs are of one type.
    """
    usable = [node for node in cluster.nodes if node.usable]
    gpus = _gpus(cluster)
    found = {
        **{PARTITION + partition.name: _TRUE for partition in cluster.partitions},
        **{FEATURE + feature: _TRUE for node in cluster.nodes for feature in node.features},
        **{GPU_TYPE + kind: _TRUE for kind in gpus if kind},
        **{GPU_COUNT + kind: str(count) for kind, count in gpus.items() if kind},
        TYPE_LABEL: next(iter(gpus)) if len(gpus) == 1 else "",
        PREFIX + "cluster": cluster.name,
        PREFIX + "max-time-minutes": _largest(partition.max_time_minutes for partition in cluster.partitions),
        PREFIX + "max-nodes": _largest(partition.max_nodes for partition in cluster.partitions),
        PREFIX + "physical-nodes": str(len(usable)),
        PREFIX + "physical-cpus": str(sum(node.cpus for node in usable)),
        PREFIX + "physical-memory-mib": str(sum(node.memory_mib for node in usable)),
        PREFIX + "largest-cpus": str(max((node.cpus for node in usable), default=0)),
        PREFIX + "largest-memory-mib": str(max((node.memory_mib for node in usable), default=0)),
    }
    if cluster.enforcement is not None:
        enforced = asdict(cluster.enforcement)
        found |= {f"{PREFIX}enforces-{what}": "true" if holds else "false" for what, holds in enforced.items()}
    return {key: value for key, value in sorted(found.items()) if value and _is_name(key) and _is_name(value)}


def _is_name(text: str) -> bool:
    name = text.removeprefix(PREFIX)
    return len(name) <= 63 and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name, re.ASCII) is not None


def _gpus(cluster: Cluster) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in cluster.nodes:
        for (name, kind), count in node.gres.items():
            if name == _GPU:
                counts[kind] = counts.get(kind, 0) + count
    return counts


def _largest(limits: Iterable[int | None]) -> str:
    known = list(limits)
    numbers = [limit for limit in known if limit is not None]
    return str(max(numbers)) if numbers and len(numbers) == len(known) else ""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a pod selects by our labels; "" and () are nothing."""

    partition: str = ""
    features: tuple[str, ...] = ()


def selection(pod: Pod) -> Selection:
    """Return what the pod's nodeSelector and required node affinity select by our labels.

    Raises UnsupportedFieldError for what Slurm's placement can't say: several partitions, a feature that must not be
    there, a choice between features in other terms.
    """
    found = list(_selected(pod))
    partitions = sorted({key.removeprefix(PARTITION) for key, _ in found if key.startswith(PARTITION)})
    if len(partitions) > 1:
        field = next(field for key, field in found if key.startswith(PARTITION))
        raise UnsupportedFieldError(field, f"a job runs in one partition, not in {' and '.join(partitions)}")
    features = {key.removeprefix(FEATURE) for key, _ in found if key.startswith(FEATURE)}
    return Selection("".join(partitions), tuple(sorted(features)))


def _selected(pod: Pod) -> Iterator[tuple[str, str]]:
    """Yield each of our labels that must be true, with the field that says so."""
    for key, value in pod.spec.node_selector.items():
        field = f"spec.nodeSelector[{key}]"
        if _steers(key):
            if value != _TRUE:
                raise UnsupportedFieldError(field, f"its only value is {_TRUE!r}")
            yield key, field
    affinity = terms(pod.spec.affinity or {})
    for index, term in enumerate(affinity):
        for number, wanted in enumerate(term.get("matchExpressions") or ()):
            field = f"{TERMS}[{index}].matchExpressions[{number}]"
            if not _steers(str(wanted.get("key"))):
                continue
            if len(affinity) > 1:
                raise UnsupportedFieldError(field, "of several terms none may select partitions or features")
            operator, values = wanted.get("operator"), wanted.get("values") or []
            if operator != "Exists" and not (operator == "In" and values == [_TRUE]):
                raise UnsupportedFieldError(field, f"only Exists, or In with {_TRUE!r}, is possible")
            yield str(wanted["key"]), field


def _steers(key: str) -> bool:
    return key.startswith((PARTITION, FEATURE))


def terms(affinity: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the terms of a required node affinity (``TERMS``), of which one must hold."""
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return list(required.get("nodeSelectorTerms") or ())
