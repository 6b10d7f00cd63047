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
from .nodelabels import GPU_TYPE, TERMS, TYPE_LABEL, terms
from .pod import Container, Pod
from .quantity import parse_quantity

PRODUCT_LABEL = "nvidia.com/gpu.product"

_PROFILE = r"((?:[0-9]+c\.)?[0-9]+g\.[0-9]+gb[\w.+-]*)"  # as nvidia-smi names them: 1g.5gb, 1c.3g.20gb, 1g.10gb.me
_AMD = re.compile(r"amd|instinct|radeon|mi[0-9]|gfx[0-9]", re.ASCII | re.IGNORECASE)
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


def is_profile(kind: str) -> bool:
    """Whether a type of GPU is a MIG profile, maybe behind the GPU's name (``a100_1g.5gb``)."""
    return re.search(rf"(?:^|[_.-]){_PROFILE}$", kind, re.ASCII) is not None


def concrete(mappings: Mapping[str, ResourceMapping], kinds: Iterable[tuple[str, str]]) -> dict[str, ResourceMapping]:
    """Return the mappings with a resource for each MIG profile among a cluster's GRES, (name, type), instead of patterns."""
    result = {name: mapping for name, mapping in mappings.items() if "*" not in name}
    for pattern, mapping in mappings.items():
        if "*" in pattern:
            for gres, kind in sorted(set(kinds)):
                if gres == mapping.gres and (found := _profile(mapping.type or "*", kind)):
                    result.setdefault(pattern.replace("*", found), mapping.model_copy(update={"type": kind}))
    return result


def devices(node: SlurmNode, mapping: ResourceMapping, mappings: Iterable[ResourceMapping]) -> int:
    """Return how many devices of a resource a node has. ``mappings``: those of all resources.

    A MIG slice is no whole GPU: only a resource of its own type has it. Where the site maps both vendors' resources to
    GPUs of any type, a type's name tells whose it is.
    """
    open_ = {each.devices for each in mappings if each.gres == mapping.gres and each.type is None}
    mixed = {"nvidia", "rocm"} <= open_ and mapping.devices in {"nvidia", "rocm"}

    def has(kind: str) -> bool:
        if mapping.type is not None:
            return kind == mapping.type
        theirs = mixed and (_AMD.match(kind) is not None) != (mapping.devices == "rocm")
        return not (theirs or is_profile(kind))

    return sum(number for (name, kind), number in node.gres.items() if name == mapping.gres and has(kind))


def count(gres: Iterable[Gres], settings: PodSettings) -> int:
    """Return how many of these are GPUs: the GRES ``gpu``, and every other that the site maps a GPU resource to."""
    names = {"gpu"} | {mapping.gres for mapping in settings.resources.values() if mapping.devices}
    return sum(each.count for each in gres if each.name in names)


# The type


def _named(pod: Pod, settings: PodSettings) -> Iterator[tuple[str, str]]:
    """Yield each type of GPU that a pod names by the node labels it selects, with the field that says so.

    Raises UnsupportedFieldError for what a job's GRES can't say: another type than one, or a choice of types.
    """
    for key, value in pod.spec.node_selector.items():
        if _names_type(key):
            field = f"spec.nodeSelector[{key}]"
            yield _type_of({"key": key, "operator": "In", "values": [value]}, field, settings), field
    affinity = terms(pod.spec.affinity or {})
    for index, term in enumerate(affinity):
        for number, wanted in enumerate(term.get("matchExpressions") or ()):
            if not _names_type(str(wanted.get("key"))):
                continue
            field = f"{TERMS}[{index}].matchExpressions[{number}]"
            if len(affinity) > 1:
                raise UnsupportedFieldError(field, "of several terms none may select a type of GPU")
            if kind := _type_of(wanted, field, settings):
                yield kind, field


def _names_type(label: str) -> bool:
    return label in {TYPE_LABEL, PRODUCT_LABEL} or label.startswith(GPU_TYPE)


def _type_of(wanted: Mapping[str, Any], field: str, settings: PodSettings) -> str:
    """Return the type that one requirement on a label names, "" where it leaves the type open."""
    key, operator, values = str(wanted["key"]), wanted.get("operator"), list(wanted.get("values") or ())
    if key.startswith(GPU_TYPE):
        if operator != "Exists" and not (operator == "In" and values == ["true"]):
            raise UnsupportedFieldError(field, "only Exists, or In with 'true', is possible")
        return key.removeprefix(GPU_TYPE)
    if operator == "Exists":
        return ""
    kinds: list[str] = sorted({settings.gpu_types.get(value, value) for value in values})
    if operator != "In" or len(kinds) != 1:
        raise UnsupportedFieldError(
            field, "only Exists, or In with one type of GPU, is possible: a job has GPUs of one type or of any"
        )
    if _TYPE.fullmatch(kinds[0]) is None:
        raise UnsupportedFieldError(field, f"{kinds[0]!r} can't be a type of GPU in Slurm")
    return kinds[0]


def _asks(pod: Pod, settings: PodSettings) -> bool:
    """Whether a pod's resources ask for GPUs."""
    spec = pod.spec
    containers = [each.resources for each in (*spec.init_containers, *spec.containers)]
    resources = [*containers, spec.resources] if spec.resources is not None else containers
    names = {name for each in resources for name in (*each.requests, *each.limits)} | set(spec.overhead)
    return any((found := mapping_of(name, settings.resources)) is not None and found.gres == "gpu" for name in names)


def gpu_type(pod: Pod, wishes: Annotations, settings: PodSettings) -> str:
    """Return the type of GPU that a pod names, "" for any: its annotation, else the node labels that it selects.

    ``pods.gpu_types`` translates the values of labels to Slurm's types; a value that it does not know is the type itself.
    A pod without GPUs may select nodes by these labels as it likes. Raises UnsupportedFieldError, by the label.
    """
    if wishes.gpu_type or not _asks(pod, settings):
        return wishes.gpu_type
    named = dict(_named(pod, settings))
    if len(named) > 1:
        message = f"GPUs are of one type, not of {' and '.join(sorted(named))}"
        raise UnsupportedFieldError(list(named.values())[-1], message)
    return next(iter(named), "")


def check_type(gpu_type: str, gres: Iterable[Gres]) -> None:
    """Raise UnsupportedFieldError if a pod names one type of GPU and its resources are another's.

    A MIG profile is no such type: its devices are slices of the GPUs that are named.
    """
    kinds = {each.type for each in gres if each.name == "gpu" and not is_profile(each.type)}
    if gpu_type and kinds and gpu_type not in kinds:
        message = f"the resources are GPUs of type {', '.join(sorted(kinds))}, but the pod names {gpu_type}"
        raise UnsupportedFieldError("spec.containers", message)


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
