"""GPUs: which extended resources they are in Slurm, of which type, and which containers get how many of them. Pure.

The job's devices are shared out by position: Slurm gives the job a list of tokens (``CUDA_VISIBLE_DEVICES=0,2`` or ids of
MIG devices), and each container gets a slice of that list as it stands. Nothing is renumbered.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .annotations import Annotations
from .cluster import SlurmNode
from .config import PodSettings, ResourceMapping
from .errors import UnsupportedFieldError
from .job import Gres
from .nodelabels import GPU_TYPE
from .pod import Container, Pod
from .quantity import parse_quantity

PRODUCT_LABEL = "nvidia.com/gpu.product"
TYPE_LABEL = "slurmlet.io/gpu-type"

_PROFILE = r"((?:[0-9]+c\.)?[0-9]+g\.[0-9]+gb[\w.+-]*)"  # as nvidia-smi names them: 1g.5gb, 1c.3g.20gb, 1g.10gb.me
_TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Share:
    """A container's part of the job's devices: so many tokens from the first on. ``vendor``: ``nvidia``, ``rocm`` or ""."""

    vendor: str = ""
    first: int = 0
    count: int = 0


def mapping_of(resource: str, mappings: Mapping[str, ResourceMapping]) -> ResourceMapping | None:
    """Return what an extended resource is in Slurm, None if the site maps it to nothing.

    A ``*`` in a configured name stands for a MIG profile (``1g.5gb``), which takes the place of ``*`` in the type.
    """
    if (exact := mappings.get(resource)) is not None and "*" not in resource:
        return exact
    for name, mapping in mappings.items():
        if "*" in name and (found := _profile(name, resource)):
            return mapping.model_copy(update={"type": (mapping.type or "*").replace("*", found)})
    return None


def _profile(pattern: str, text: str) -> str:
    before, _, after = pattern.partition("*")
    match = re.fullmatch(re.escape(before) + _PROFILE + re.escape(after), text, re.ASCII)
    return match[1] if match else ""


def concrete(mappings: Mapping[str, ResourceMapping], kinds: Iterable[tuple[str, str]]) -> dict[str, ResourceMapping]:
    """Return the mappings with a resource for each MIG profile among a cluster's GRES, (name, type), instead of patterns."""
    result = {name: mapping for name, mapping in mappings.items() if "*" not in name}
    for pattern, mapping in mappings.items():
        if "*" in pattern:
            for gres, kind in sorted(set(kinds)):
                if gres == mapping.gres and (found := _profile(mapping.type or "*", kind)):
                    result.setdefault(pattern.replace("*", found), mapping.model_copy(update={"type": kind}))
    return result


def devices(node: SlurmNode, mapping: ResourceMapping) -> int:
    """Return how many devices of a resource a node has."""
    return sum(
        number
        for (name, kind), number in node.gres.items()
        if name == mapping.gres and (mapping.type is None or mapping.type == kind)
    )


def count(gres: Iterable[Gres], settings: PodSettings) -> int:
    """Return how many of these are GPUs: the GRES ``gpu``, and every other that the site maps a GPU resource to."""
    names = {"gpu"} | {mapping.gres for mapping in settings.resources.values() if mapping.devices}
    return sum(each.count for each in gres if each.name in names)


# The type


def _required_values(affinity: Mapping[str, Any], label: str) -> Iterator[tuple[str, ...]]:
    """Yield the values that each required term of a nodeAffinity allows a label, () for any."""
    node = affinity.get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        expressions = [each for each in term.get("matchExpressions") or () if each.get("key") == label]
        yield tuple(v for each in expressions if each.get("operator") == "In" for v in each.get("values") or ())


def _selected(pod: Pod, label: str) -> tuple[str, str]:
    """Return the one value of a label that the pod may be placed by, and the field that says so; "" if there is none."""
    if value := pod.spec.node_selector.get(label):
        return value, f"spec.nodeSelector[{label}]"
    allowed = set(_required_values(pod.spec.affinity or {}, label))
    if len(allowed) == 1 and len(values := allowed.pop()) == 1:
        return values[0], "spec.affinity.nodeAffinity"
    return "", ""


def gpu_type(pod: Pod, wishes: Annotations, settings: PodSettings) -> str:
    """Return the type of GPU that a pod names, "" for any: its annotation, else a node label that it selects.

    ``pods.gpu_types`` translates the values of labels to Slurm's types; a value that it does not know is the type itself.
    """
    if wishes.gpu_type:
        return wishes.gpu_type
    named = [
        key.removeprefix(GPU_TYPE)
        for key, value in pod.spec.node_selector.items()
        if key.startswith(GPU_TYPE) and value == "true"
    ]
    if len(named) == 1:
        return named[0]
    for label in (TYPE_LABEL, PRODUCT_LABEL):
        value, field = _selected(pod, label)
        if value:
            kind = settings.gpu_types.get(value, value)
            if _TYPE.fullmatch(kind) is None:
                raise UnsupportedFieldError(field, f"{kind!r} can't be a type of GPU in Slurm")
            return kind
    return ""


# The shares


def _share(container: Container, settings: PodSettings) -> tuple[str, int, frozenset[str]]:
    """Return a container's vendor, number of devices, and the resources that it asks for them by."""
    vendor, total, names = "", 0, set()
    for name, value in {**container.resources.requests, **container.resources.limits}.items():
        mapping = mapping_of(name, settings.resources)
        if mapping is not None and mapping.devices and (amount := int(parse_quantity(value, name))) > 0:
            vendor, total = mapping.devices, total + amount
            names.add(name)
    return vendor, total, frozenset(names)


def shares(pod: Pod, settings: PodSettings) -> dict[str, Share]:
    """Return each container's part of the devices, by its name: sidecar containers first, then the others.

    An init container uses what no sidecar container before it holds, and leaves it to those that come after.
    UnsupportedFieldError: containers ask for different kinds, which Slurm's list of tokens does not tell apart.
    """
    result: dict[str, Share] = {}
    first, kinds, users = 0, set[str](), 0
    sidecars = [each for each in pod.spec.init_containers if each.restart_policy == "Always"]
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        vendor, total, names = _share(container, settings)
        result[container.name] = Share(vendor, first, total)
        if container in sidecars or container in pod.spec.containers:
            first += total
        kinds |= names
        users += bool(total)
    if len(kinds) > 1 and users > 1:
        message = (
            f"containers ask for different kinds of GPUs ({', '.join(sorted(kinds))}); let one of them have them all"
        )
        raise UnsupportedFieldError("spec.containers", message)
    return result
