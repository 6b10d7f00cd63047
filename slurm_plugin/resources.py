"""What a pod asks for, by the scheduler's own arithmetic, in Slurm's units. Pure.

Rule (Kubernetes 1.36, ``component-helpers/resource``): the sum of containers and sidecar containers, or, where larger,
an init container together with the sidecar containers started before it; plus the pod's overhead. A container counts
by its limit where it has one, else by its request. Pod-level limits, where set, replace the containers' sums; pod-level
requests alone do not lower what the containers' limits let them use.

With many ranks (``mpi``) all of it is what one node has: the CPUs of the container that runs on every rank are counted
once for each of the node's tasks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from .config import PodSettings
from .errors import UnsupportedFieldError
from .gpus import check_type, mapping_of
from .job import Gres
from .mpi import RankWishes
from .pod import Container, Pod, Resources
from .quantity import ceil_cpus, ceil_mib, parse_quantity

_NATIVE = ("cpu", "memory", "ephemeral-storage")

Amounts = dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What one job needs: CPUs per task, the rest per node. Memory and tmp are MiB, None is the partition's default."""

    cpus: int
    memory_mib: int | None
    tmp_mib: int | None
    gres: tuple[Gres, ...]


def amounts(resources: Resources, path: str) -> Amounts:
    """Return a container's amounts by resource name: limits where set, else requests. InvalidQuantityError by path."""
    result: Amounts = {}
    for kind, values in (("requests", resources.requests), ("limits", resources.limits)):
        for name, value in values.items():
            result[name] = parse_quantity(value, f"{path}.{kind}[{name}]")
    return result


def _combine(first: Mapping[str, Decimal], second: Mapping[str, Decimal], how: Callable[..., Decimal]) -> Amounts:
    zero = Decimal(0)
    return {name: how(first.get(name, zero), second.get(name, zero)) for name in {**first, **second}}


def _add(first: Decimal, second: Decimal) -> Decimal:
    return first + second


def is_sidecar(container: Container) -> bool:
    """Whether an init container is a sidecar container."""
    return container.restart_policy == "Always"


def _own(container: Container, index: int, ranks: RankWishes | None) -> Amounts:
    """Return an app container's amounts on one node."""
    own = amounts(container.resources, f"spec.containers[{index}].resources")
    if ranks is not None and ranks.index == index:
        own["cpu"] = Decimal(ranks.cpus_per_task * ranks.layout.tasks_per_node)
    return own


def effective(pod: Pod, ranks: RankWishes | None = None) -> Amounts:
    """Return the pod's effective amounts by resource name (see the module's rule)."""
    spec = pod.spec
    total: Amounts = {}
    for index, container in enumerate(spec.containers):
        total = _combine(total, _own(container, index, ranks), _add)
    sidecars: Amounts = {}
    peak: Amounts = {}
    for index, container in enumerate(spec.init_containers):
        own = amounts(container.resources, f"spec.initContainers[{index}].resources")
        if is_sidecar(container):
            sidecars = _combine(sidecars, own, _add)
            peak = _combine(peak, sidecars, max)
        else:
            peak = _combine(peak, _combine(sidecars, own, _add), max)
    result = _combine(_combine(total, sidecars, _add), peak, max)
    if spec.resources is not None:
        whole = amounts(spec.resources, "spec.resources")
        limited = {} if ranks is not None else {name: whole[name] for name in spec.resources.limits}
        result = {**_combine(result, whole, max), **limited}
    overhead = {name: parse_quantity(value, f"spec.overhead[{name}]") for name, value in spec.overhead.items()}
    return _combine(result, overhead, _add)


def _whole(value: Decimal, path: str) -> int:
    if value != value.to_integral_value():
        raise UnsupportedFieldError(path, f"{value} is not a whole number of devices")
    return int(value)


def _path_of(pod: Pod, resource: str) -> str:
    """Return the first field that asks for a resource, for a message."""
    for kind, containers in (("containers", pod.spec.containers), ("initContainers", pod.spec.init_containers)):
        for index, container in enumerate(containers):
            for part, values in (("limits", container.resources.limits), ("requests", container.resources.requests)):
                if resource in values:
                    return f"spec.{kind}[{index}].resources.{part}[{resource}]"
    return f"spec.resources.limits[{resource}]"


def _gres(pod: Pod, wanted: Mapping[str, Decimal], settings: PodSettings, gpu_type: str) -> tuple[Gres, ...]:
    counts: dict[tuple[str, str], int] = {}  # sbatch does not add up a GRES that is named twice
    for resource in sorted(wanted):
        path = _path_of(pod, resource)
        if not (count := _whole(wanted[resource], path)):
            continue
        mapping = mapping_of(resource, settings.resources)
        if mapping is None:
            known = ", ".join(sorted(settings.resources)) or "none"
            raise UnsupportedFieldError(path, f"no GRES is configured for resource {resource!r} (configured: {known})")
        key = mapping.gres, mapping.type or (gpu_type if mapping.gres == "gpu" else "")
        counts[key] = counts.get(key, 0) + count
    gres = tuple(Gres(name, type_, count) for (name, type_), count in counts.items())
    check_type(gpu_type, gres)
    return gres


def requirements(
    pod: Pod, settings: PodSettings, *, gpu_type: str = "", ranks: RankWishes | None = None
) -> Requirements:
    """Return what the pod's job needs. UnsupportedFieldError names a resource that this site can't give."""
    wanted = effective(pod, ranks)
    cpu, memory, disk = (wanted.pop(name, Decimal(0)) for name in _NATIVE)
    memory_mib = ceil_mib(memory) if memory else settings.default_memory_mib
    return Requirements(
        cpus=ceil_cpus(cpu / (1 if ranks is None else ranks.layout.tasks_per_node)) if cpu else settings.default_cpus,
        memory_mib=None if memory_mib is None else memory_mib + settings.overhead_memory_mib,
        tmp_mib=ceil_mib(disk) if disk else None,
        gres=_gres(pod, wanted, settings, gpu_type),
    )
