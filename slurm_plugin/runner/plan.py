"""The plan: what the runner is to run, decided before the job was submitted.

``translate`` writes it, the runner reads it; this module is the one definition of it. Plain named tuples, so that it
loads on the oldest interpreter that compute nodes have. Secrets are not in the plan: environments are files of their
own (0600) and volume content lies in the job directory.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple

VERSION = 1

INIT = "init"
SIDECAR = "sidecar"
APP = "app"
EPHEMERAL = "ephemeral"  # added to the running pod, never started again; the pod's end does not wait for it

# Volume kinds
CONTENT = "content"  # ConfigMap, Secret, projected, downwardAPI: files under JobDir.volume(name)
EMPTY_DIR = "emptyDir"  # a new directory on the node's scratch space
MEMORY = "memory"  # emptyDir with medium Memory: a directory under /dev/shm
HOST_PATH = "hostPath"  # a path of the compute node
CLAIM = "persistentVolumeClaim"  # a directory that the site's rules give to a claim


class EnvEntry(NamedTuple):
    """One environment variable, in order.

    ``expand``: ``$(NAME)`` in ``value`` is replaced from earlier entries (``env[].value`` only, as Kubernetes does).
    ``node_field``: if not empty, the value is one that only the compute node knows: ``status.podIP``,
    ``status.podIPs``, ``status.hostIP`` or ``status.hostIPs``.
    """

    name: str
    value: str
    expand: bool
    node_field: str


class Image(NamedTuple):
    """An image to run.

    ``name`` is the pod's own word for it. ``source`` is what to fetch: ``docker://host/path:tag``, ``oras://…``,
    a path of a ``.sif`` or of an unpacked tree. ``insecure``: the registry speaks plain HTTP.
    ``pull_policy`` is ``Always``, ``IfNotPresent`` or ``Never``.
    """

    name: str
    source: str
    pull_policy: str
    insecure: bool


class Mount(NamedTuple):
    """A volume (or a path in it) in a container. ``sub_path_expr``: the path has ``$(NAME)`` of the container's own."""

    volume: str
    mount_path: str
    sub_path: str
    read_only: bool
    sub_path_expr: bool = False


class Volume(NamedTuple):
    """A volume of the pod.

    ``path`` is for hostPath and claims, ``path_type`` for hostPath; ``size_limit`` is in bytes, 0 is none.
    """

    name: str
    kind: str
    path: str
    path_type: str
    size_limit: int


class Action(NamedTuple):
    """What a probe or hook does.

    ``kind`` is ``exec``, ``http``, ``tcp``, ``grpc`` or ``sleep``. ``command`` is exec's; ``host`` (empty is the
    pod's IP), ``port``, ``path``, ``scheme`` and ``headers`` are http's, tcp's and grpc's (``path`` is grpc's
    service); ``seconds`` is sleep's.
    """

    kind: str
    command: Tuple[str, ...]
    host: str
    port: int
    path: str
    scheme: str
    headers: Tuple[Tuple[str, str], ...]
    seconds: int


class Probe(NamedTuple):
    """A probe with Kubernetes' timings, in seconds. ``grace_seconds`` is -1 when the pod's own applies."""

    action: Action
    initial_delay: int
    period: int
    timeout: int
    success_threshold: int
    failure_threshold: int
    grace_seconds: int


class Ranks(NamedTuple):
    """How a container's command runs on every rank: ``srun --mpi=<mpi>`` (empty: Slurm's own default) and its ``arguments``.

    ``gpus_per_task`` of the container's devices on a node are each task's, in order; 0: all tasks have them all.
    ``label``: each line of output begins with its rank.
    """

    nodes: int
    ntasks: int
    tasks_per_node: int
    cpus_per_task: int
    mpi: str
    arguments: Tuple[str, ...]
    label: bool
    gpus_per_task: int


class Container(NamedTuple):
    """One container.

    ``command`` and ``args`` are None when absent: the image's ENTRYPOINT and CMD then apply by Kubernetes' table.
    ``working_dir`` is empty when absent. ``gpu`` is ``""``, ``nvidia`` or ``rocm``; of the job's devices on the node those
    from ``gpu_first`` on are the container's, ``gpu_count`` of them. ``ranks``: it runs on every rank of the job.
    """

    name: str
    kind: str
    image: Image
    command: Optional[Tuple[str, ...]]
    args: Optional[Tuple[str, ...]]
    working_dir: str
    restart_policy: str
    mounts: Tuple[Mount, ...]
    termination_message_path: str
    termination_message_policy: str
    read_only_root: bool
    gpu: str
    stdin: bool
    stdin_once: bool
    tty: bool
    startup_probe: Optional[Probe]
    liveness_probe: Optional[Probe]
    readiness_probe: Optional[Probe]
    post_start: Optional[Action]
    pre_stop: Optional[Action]
    gpu_first: int = 0
    gpu_count: int = 0
    ranks: Optional[Ranks] = None


class Runtime(NamedTuple):
    """How containers are run. ``kind`` is ``apptainer`` or ``process``; ``executable`` is a name or path."""

    kind: str
    executable: str
    options: Tuple[str, ...]


class Plan(NamedTuple):
    """Everything the runner needs to know of one pod.

    ``grace_seconds``: terminationGracePeriodSeconds. ``deadline_seconds``: activeDeadlineSeconds, 0 is none.
    ``images``: the image cache. ``image_paths``: below which an image may be a path. ``scratch``: where emptyDir lives; empty means ``$TMPDIR``, else ``/tmp``.
    ``log_max_bytes`` and ``log_max_files``: rotation of each container's log, as the kubelet's
    ``containerLogMaxSize`` and ``containerLogMaxFiles``.
    """

    version: int
    namespace: str
    name: str
    uid: str
    hostname: str
    host_aliases: Tuple[Tuple[str, Tuple[str, ...]], ...]
    restart_policy: str
    grace_seconds: int
    deadline_seconds: int
    runtime: Runtime
    images: str
    scratch: str
    log_max_bytes: int
    log_max_files: int
    volumes: Tuple[Volume, ...]
    containers: Tuple[Container, ...]
    image_paths: Tuple[str, ...] = ()


class Edition(NamedTuple):
    """What of a pod may be edited while it lives: the images, as the pod has them, by container; activeDeadlineSeconds."""

    images: Tuple[Tuple[str, str], ...]
    deadline_seconds: int


def edition_of(pod: Plan) -> Edition:
    """Return the edition that a plan is of."""
    return Edition(tuple((each.name, each.image.name) for each in pod.containers), pod.deadline_seconds)


def to_json(value: Any) -> Any:
    """Turn a plan, or any tuple in it, into what ``json.dumps`` takes."""
    if hasattr(value, "_asdict"):
        return {key: to_json(item) for key, item in zip(value._fields, value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def _strings(value: Any) -> Tuple[str, ...]:
    return tuple(str(item) for item in value)


def _action(data: Optional[Dict[str, Any]]) -> Optional[Action]:
    if data is None:
        return None
    fields = dict(data)
    fields["command"] = _strings(data["command"])
    fields["headers"] = tuple((str(name), str(value)) for name, value in data["headers"])
    return Action(**fields)


def _probe(data: Optional[Dict[str, Any]]) -> Optional[Probe]:
    if data is None:
        return None
    fields = dict(data)
    action = _action(data["action"])
    if action is None:
        raise ValueError("a probe without an action")
    fields["action"] = action
    return Probe(**fields)


def container_from_json(data: Dict[str, Any]) -> Container:
    """Read one container. ValueError, TypeError or KeyError: a broken one."""
    fields = dict(data)
    fields["image"] = Image(**data["image"])
    fields["command"] = None if data["command"] is None else _strings(data["command"])
    fields["args"] = None if data["args"] is None else _strings(data["args"])
    fields["mounts"] = tuple(Mount(**mount) for mount in data["mounts"])
    for name in ("startup_probe", "liveness_probe", "readiness_probe"):
        fields[name] = _probe(data[name])
    for name in ("post_start", "pre_stop"):
        fields[name] = _action(data[name])
    if data.get("ranks") is not None:
        fields["ranks"] = Ranks(**dict(data["ranks"], arguments=_strings(data["ranks"]["arguments"])))
    return Container(**fields)


def plan_from_json(data: Dict[str, Any]) -> Plan:
    """Read a plan. ValueError: a version this runner does not speak; TypeError or KeyError: a broken one."""
    if data.get("version") != VERSION:
        raise ValueError("plan of version %r; this runner speaks version %d" % (data.get("version"), VERSION))
    fields = dict(data)
    fields["host_aliases"] = tuple((str(ip), _strings(names)) for ip, names in data["host_aliases"])
    fields["runtime"] = Runtime(
        kind=data["runtime"]["kind"],
        executable=data["runtime"]["executable"],
        options=_strings(data["runtime"]["options"]),
    )
    fields["volumes"] = tuple(Volume(**volume) for volume in data["volumes"])
    fields["containers"] = tuple(container_from_json(container) for container in data["containers"])
    fields["image_paths"] = _strings(data.get("image_paths", ()))
    return Plan(**fields)


def env_from_json(data: Any) -> Tuple[EnvEntry, ...]:
    """Read one container's environment file."""
    return tuple(EnvEntry(**entry) for entry in data)
