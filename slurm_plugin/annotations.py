"""Every annotation that a pod may steer its job with: the one module that spells their keys. Pure.

Ours are ``slurmlet.io/…``. Names of slurm-bridge (``slurmjob.slinky.slurm.net/…``) and interLink
(``slurm-job.vk.io/flags``) are aliases, so that manifests written for them run unchanged; where both are there, ours
wins. A key of these three families that means nothing here is refused, not dropped. Whether a pod may have what it
asks for is decided in ``policy``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import annotationvalues as values
from .errors import InvalidAnnotationError, UnsupportedFieldError, shorten
from .job import Dependency, Gres, JobId, JobStatus
from .rawflags import read_flags

OURS = "slurmlet.io/"
SLURM_BRIDGE = "slurmjob.slinky.slurm.net/"
INTERLINK = "slurm-job.vk.io/"

FLAGS = "flags"
IMAGE_ROOT = INTERLINK + "image-root"
MOUNTS = INTERLINK + "singularity-mounts"

# What the agent writes on a pod about its job: read by people and tools, and never a wish, also where it was copied.
JOB_ID = OURS + "job-id"
JOB_PARTITION = OURS + "job-partition"
JOB_NODES = OURS + "job-nodes"
JOB_USER = OURS + "job-user"
_WRITTEN = frozenset({JOB_ID, JOB_PARTITION, JOB_NODES, JOB_USER})


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a pod wishes of Slurm; "", None, False and () are no wish. ``flags``: raw arguments of sbatch, one word each."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    constraint: str = ""
    licenses: str = ""
    time_limit_minutes: int | None = None
    cpus_per_task: int | None = None
    memory_mib: int | None = None
    nice: int | None = None
    priority: int | None = None
    wckey: str = ""
    comment: str = ""
    dependencies: tuple[Dependency, ...] = ()
    exclusive: bool = False
    gres: tuple[Gres, ...] = ()
    gpu_type: str = ""
    requeue: bool = False
    flags: tuple[str, ...] = ()
    nodes: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    mpi: str = ""
    mpi_container: str = ""
    gpus_per_task: int | None = None
    label_ranks: bool = False
    srun_args: tuple[str, ...] = ()


def field_of(name: str) -> str:
    """Return the path in the Pod object of one of our annotations, given without its prefix (``time-limit``)."""
    return annotation_path(OURS + name)


def annotation_path(key: str) -> str:
    """Return the path in the Pod object of an annotation."""
    return f"metadata.annotations[{key}]"


def idle(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return what to tell of annotations that are read and do nothing."""
    return tuple(f"{annotation_path(key)}: {why}" for key, why in _IDLE.items() if key in annotations)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One wish: the attribute it fills, how its value is read, and the alias it has elsewhere."""

    attribute: str
    read: Callable[[str], Any]
    alias: str = ""


# By the name behind ``slurmlet.io/``.
_KINDS = {
    "partition": _Kind("partition", values.word, SLURM_BRIDGE + "partition"),
    "account": _Kind("account", values.word, SLURM_BRIDGE + "account"),
    "qos": _Kind("qos", values.word, SLURM_BRIDGE + "qos"),
    "wckey": _Kind("wckey", values.word, SLURM_BRIDGE + "wckey"),
    "reservation": _Kind("reservation", values.word, SLURM_BRIDGE + "reservation"),
    "constraint": _Kind("constraint", values.constraint, SLURM_BRIDGE + "constraints"),
    "licenses": _Kind("licenses", values.licenses, SLURM_BRIDGE + "licenses"),
    "time-limit": _Kind("time_limit_minutes", values.time_limit, SLURM_BRIDGE + "timelimit"),
    "cpus-per-task": _Kind("cpus_per_task", values.count, SLURM_BRIDGE + "cpu-per-task"),
    "mem-per-node": _Kind("memory_mib", values.memory_mib, SLURM_BRIDGE + "mem-per-node"),
    "nice": _Kind("nice", values.nice),
    "priority": _Kind("priority", values.priority, SLURM_BRIDGE + "priority"),
    "comment": _Kind("comment", values.text, SLURM_BRIDGE + "job-name"),
    "dependency": _Kind("dependencies", values.dependencies),
    "exclusive": _Kind("exclusive", values.flag, SLURM_BRIDGE + "exclusive"),
    "gres": _Kind("gres", values.gres, SLURM_BRIDGE + "gres"),
    "gpu-type": _Kind("gpu_type", values.name),
    "requeue": _Kind("requeue", values.flag),
    FLAGS: _Kind("flags", values.arguments, INTERLINK + "flags"),
    "nodes": _Kind("nodes", values.count),
    "ntasks": _Kind("ntasks", values.count),
    "ntasks-per-node": _Kind("ntasks_per_node", values.count),
    "mpi": _Kind("mpi", values.name),
    "mpi-container": _Kind("mpi_container", values.word),
    "gpus-per-task": _Kind("gpus_per_task", values.count),
    "label-ranks": _Kind("label_ranks", values.flag),
    "srun-args": _Kind("srun_args", values.options),
}
_FEWEST_NODES = SLURM_BRIDGE + "min-nodes"
_MOST_NODES = SLURM_BRIDGE + "max-nodes"
# What others' manifests may hold that does nothing where they come from, and what does it here.
_IDLE = {
    INTERLINK
    + "mpi-flags": f"it does nothing in interLink either; {OURS}mpi and {OURS}srun-args choose srun's options",
}
# What others' manifests may hold that is refused by its name, and why.
_REFUSED = {
    SLURM_BRIDGE + "user-id": "who a pod is in Slurm is the site's decision",
    SLURM_BRIDGE + "group-id": "who a pod is in Slurm is the site's decision",
    INTERLINK + "flavor": "the policy says what a namespace gets by default",
    INTERLINK + "pre-exec": "a command before the job is an init container",
    INTERLINK + "singularity-options": "the runtime's options are the site's (pods.runtime.options)",
    INTERLINK + "enroot-mounts": "use hostPath or a claim",
    INTERLINK + "enroot-options": "the runtime is Apptainer",
}
_FAMILIES = {
    OURS: tuple(_KINDS),
    SLURM_BRIDGE: (
        *(k.alias.removeprefix(SLURM_BRIDGE) for k in _KINDS.values() if k.alias.startswith(SLURM_BRIDGE)),
        *(key.removeprefix(SLURM_BRIDGE) for key in (_FEWEST_NODES, _MOST_NODES)),
    ),
    INTERLINK: (
        *(k.alias.removeprefix(INTERLINK) for k in _KINDS.values() if k.alias.startswith(INTERLINK)),
        *(key.removeprefix(INTERLINK) for key in (IMAGE_ROOT, MOUNTS, *_IDLE)),
    ),
}


def _check_keys(annotations: Mapping[str, str]) -> None:
    for key in sorted(set(annotations) - _WRITTEN):
        if key in _REFUSED:
            raise UnsupportedFieldError(annotation_path(key), _REFUSED[key])
        for prefix, names in _FAMILIES.items():
            if key.startswith(prefix) and key.removeprefix(prefix) not in names:
                message = f"no such annotation here; those of {prefix} are {', '.join(sorted(names))}"
                raise (InvalidAnnotationError if prefix == OURS else UnsupportedFieldError)(
                    annotation_path(key), message
                )


def parse_annotations(annotations: Mapping[str, str]) -> Annotations:
    """Return the wishes in a pod's annotations; foreign annotations are none of ours.

    What raw flags say that an annotation can say is a wish like that annotation's, which stands above it. Raises
    InvalidAnnotationError (a value that its key does not take, an unknown key of ours) and UnsupportedFieldError (a key
    of slurm-bridge's or interLink's that has no meaning here), by their path.
    """
    _check_keys(annotations)
    wishes: dict[str, Any] = {}
    said = {name: key for name, kind in _KINDS.items() for key in (kind.alias, OURS + name) if key in annotations}
    if (key := said.pop(FLAGS, None)) is not None:
        raw = _read(key, annotations[key], lambda value: read_flags(values.arguments(value)))
        for name, value in raw.wishes.items():
            wishes[_KINDS[name].attribute] = _read(key, value, _KINDS[name].read)
        wishes["flags"] = raw.words
    for name, key in said.items():
        wishes[_KINDS[name].attribute] = _read(key, annotations[key], _KINDS[name].read)
    if (nodes := _bridge_nodes(annotations)) is not None:
        wishes.setdefault("nodes", nodes)
    return Annotations(**wishes)


def _bridge_nodes(annotations: Mapping[str, str]) -> int | None:
    """Return the fewest nodes of slurm-bridge's range, which allows a job of these; a single one is no wish for many."""
    fewest, most = (
        _read(key, annotations[key], values.count) if key in annotations else 1 for key in (_FEWEST_NODES, _MOST_NODES)
    )
    if _MOST_NODES in annotations and most < fewest:
        raise InvalidAnnotationError(annotation_path(_MOST_NODES), f"{most} is fewer than {_FEWEST_NODES}, {fewest}")
    return fewest if fewest > 1 else None


def _read(key: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise InvalidAnnotationError(annotation_path(key), f"{shorten(value, 80)!r}: {error}") from error


def job_annotations(job_id: JobId, job: JobStatus | None, user: str = "") -> dict[str, str]:
    """Return what the agent writes on a pod about its job; the partition and nodes once Slurm has chosen them.

    ``user``: whose job it is, "" where the policy names no users.
    """
    partition, nodes = (job.partition, job.node_list) if job else ("", "")
    said = {JOB_ID: str(job_id), JOB_PARTITION: partition, JOB_NODES: nodes, JOB_USER: user}
    return {key: value for key, value in said.items() if value}
