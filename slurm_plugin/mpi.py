"""Pods that run on many ranks: which container, how many tasks on how many nodes, and what srun is told. Pure.

A pod becomes one by any of the annotations ``nodes``, ``ntasks``, ``ntasks-per-node`` and ``mpi``. One of its containers,
the first unless an annotation names another, then runs its command on every rank; the others stay on the first node. Of
that container CPUs are meant *per task*, memory and devices *per node*; what the others ask for is added on every node,
because Slurm gives all nodes of a job the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .annotations import Annotations, field_of
from .config import PodSettings
from .errors import InvalidAnnotationError
from .job import Layout
from .pod import Container, Pod
from .quantity import ceil_cpus, parse_quantity
from .runner import plan


@dataclass(frozen=True, slots=True)
class RankWishes:
    """The container that runs on every rank (its index among ``spec.containers``), and where; CPUs are per task."""

    index: int
    layout: Layout
    cpus_per_task: int


def layout_of(wishes: Annotations) -> Layout | None:
    """Return nodes and tasks as the annotations give them, None for an ordinary pod.

    As sbatch counts: what is missing follows from the rest, one node and one task a node where nothing else is said.
    InvalidAnnotationError: they contradict each other.
    """
    if not (wishes.nodes or wishes.ntasks or wishes.ntasks_per_node or wishes.mpi):
        return None
    per_node, nodes, ntasks = wishes.ntasks_per_node, wishes.nodes, wishes.ntasks
    if nodes is None:
        nodes = -(-ntasks // per_node) if ntasks and per_node else 1
    ntasks = ntasks or nodes * (per_node or 1)
    per_node = per_node or -(-ntasks // nodes)
    if ntasks < nodes:
        raise InvalidAnnotationError(field_of("ntasks"), f"{ntasks} tasks can't be on {nodes} nodes")
    if ntasks > nodes * per_node:
        message = f"{ntasks} tasks are more than {nodes} nodes have with {per_node} each"
        raise InvalidAnnotationError(field_of("ntasks"), message)
    return Layout(nodes, ntasks, per_node)


def _index(pod: Pod, name: str) -> int:
    names = [container.name for container in pod.spec.containers]
    if name and name not in names:
        message = f"the pod has no container {name!r}; it has {', '.join(names)}"
        raise InvalidAnnotationError(field_of("mpi-container"), message)
    return names.index(name) if name else 0


def _cpus_per_task(container: Container, settings: PodSettings, path: str) -> int:
    resources = container.resources
    for kind, values in (("limits", resources.limits), ("requests", resources.requests)):
        if "cpu" in values and (amount := parse_quantity(values["cpu"], f"{path}.resources.{kind}[cpu]")):
            return ceil_cpus(amount)
    return settings.default_cpus


def rank_wishes(pod: Pod, wishes: Annotations, settings: PodSettings) -> RankWishes | None:
    """Return what a pod asks for its ranks, None for an ordinary pod. InvalidAnnotationError names the annotation."""
    layout = layout_of(wishes)
    if layout is None:
        for name, given in (
            ("mpi-container", wishes.mpi_container),
            ("gpus-per-task", wishes.gpus_per_task),
            ("label-ranks", wishes.label_ranks),
            ("srun-args", wishes.srun_args),
        ):
            if given:
                message = f"is for ranks: give {field_of('ntasks')} or {field_of('nodes')} too"
                raise InvalidAnnotationError(field_of(name), message)
        return None
    index = _index(pod, wishes.mpi_container)
    container, path = pod.spec.containers[index], f"spec.containers[{index}]"
    for field, given in (("tty", container.tty), ("stdin", container.stdin)):
        if given:
            raise InvalidAnnotationError(f"{path}.{field}", "ranks have neither a terminal nor an input")
    return RankWishes(index, layout, wishes.cpus_per_task or _cpus_per_task(container, settings, path))


def with_ranks(
    pod: plan.Plan, wanted: RankWishes, wishes: Annotations, settings: PodSettings, arguments: tuple[str, ...]
) -> plan.Plan:
    """Return the pod's plan with one container on every rank. ``arguments`` are srun's, allowed by policy.

    InvalidAnnotationError: the ranks want more GPUs than their container has, or srun may give them another's.
    """
    layout = wanted.layout
    first = next(index for index, each in enumerate(pod.containers) if each.kind == plan.APP)
    chosen = pod.containers[first + wanted.index]
    _check_gpus(pod, chosen, layout, wishes)
    ranks = plan.Ranks(
        nodes=layout.nodes,
        ntasks=layout.ntasks,
        tasks_per_node=layout.tasks_per_node,
        cpus_per_task=wanted.cpus_per_task,
        mpi=wishes.mpi or settings.mpi or "",
        arguments=arguments,
        label=wishes.label_ranks,
        gpus_per_task=wishes.gpus_per_task or 0,
    )
    return pod._replace(
        containers=tuple(each._replace(ranks=ranks) if each is chosen else each for each in pod.containers)
    )


def binds_gpus(arguments: Iterable[str]) -> bool:
    """Whether srun itself gives each task its GPUs, so that nobody else may share them out."""
    return any(word.startswith("--gpu-bind=") and word != "--gpu-bind=none" for word in arguments)


def _check_gpus(pod: plan.Plan, chosen: plan.Container, layout: Layout, wishes: Annotations) -> None:
    per_task = wishes.gpus_per_task
    if per_task and per_task * layout.tasks_per_node > chosen.gpu_count:
        raise InvalidAnnotationError(
            field_of("gpus-per-task"),
            f"{layout.tasks_per_node} tasks with {per_task} GPUs each are more than the {chosen.gpu_count} "
            f"that container {chosen.name!r} has on a node",
        )
    others = any(each.gpu_count for each in pod.containers if each is not chosen)
    if binds_gpus(wishes.srun_args) and (per_task or others):
        message = "--gpu-bind lets srun choose each task's GPUs: not with gpus-per-task, nor beside other containers with GPUs"
        raise InvalidAnnotationError(field_of("srun-args"), message)
