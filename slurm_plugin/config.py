"""The part of the configuration file that speaks of Slurm, of pods as jobs, and of who may do what.

One YAML file, validated by pydantic: an unknown key or a bad value is an error that names the path and what was
expected. Nothing here reads a file or the environment.
"""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .jobdir import Root
from .runner.runtimes import kinds


class Settings(BaseModel):
    """A frozen section of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$", max_length=128)]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00-\x1f]*$")]
HostAndPort = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")]
TEMPLATE_NAME = re.compile(r"\{([^{}]*)\}")
TEMPLATE_NAMES = frozenset({"rest", "handle", "namespace", "claim", "volume", "storage_class"})


def _replace(template: str, **names: str) -> str:
    """Replace ``{name}`` by its value, once: braces in a value stand for themselves."""
    return re.sub(r"\{(\w+)\}", lambda match: names.get(match[1], match[0]), template)


class LocalHostSettings(Settings):
    """Slurm's commands are on this machine. ``prefix`` is put before the host agent's argv, e.g. ``[sudo, -n, -u, "{user}"]``."""

    kind: Literal["local"]
    prefix: tuple[str, ...] = ()


class KeySettings(Settings):
    """What to log in with. ``{user}`` in the paths is replaced by the Slurm user's name."""

    key_file: AbsolutePath | None = None
    certificate_file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> "KeySettings":
        if self.certificate_file is not None and self.key_file is None:
            raise ValueError("certificate_file: of which key? Give key_file too")
        return self

    def key_for(self, user: str) -> tuple[str | None, str | None]:
        """Return the key and the certificate of one Slurm user."""
        key, certificate = (path and _replace(path, user=user) for path in (self.key_file, self.certificate_file))
        return key, certificate


class JumpSettings(KeySettings):
    """A machine on the way to the login node. What it does not say is as for the login node."""

    address: str = Field(min_length=1)
    port: int = Field(default=22, ge=1, le=65535)
    user: Name | None = None
    known_hosts_file: AbsolutePath | None = None


class SSHHostSettings(KeySettings):
    """Slurm's commands are on a login node. Host keys are always verified against ``known_hosts_file``.

    ``key_file`` None: the SSH agent's keys and the usual ones. ``certificate_file`` None: ``KEY-cert.pub`` beside the key,
    if there is one. ``proxy_jump``: the machines on the way, the nearest first.
    """

    kind: Literal["ssh"]
    address: str = Field(min_length=1)
    port: int = Field(default=22, ge=1, le=65535)
    user: Name
    known_hosts_file: AbsolutePath
    proxy_jump: tuple[JumpSettings, ...] = ()
    connect_timeout_seconds: float = Field(default=15, gt=0)
    keepalive_seconds: int = Field(default=30, ge=0)


HostSettings = Annotated[LocalHostSettings | SSHHostSettings, Field(discriminator="kind")]


class CommandClientSettings(Settings):
    """Slurm is spoken to by its own commands, on the host."""

    kind: Literal["command"] = "command"


class RestClientSettings(Settings):
    """Slurm is spoken to by slurmrestd; the host is needed for files only.

    ``url``: ``http(s)://HOST:PORT`` or ``unix:/PATH``. ``token_file``: a JSON Web Token that somebody else renews, with
    ``{user}`` replaced; without it ``scontrol token`` is asked for one on the host. ``authentication``: ``local`` sends no
    token, for a unix socket behind which slurmrestd asks the kernel who calls.
    """

    kind: Literal["rest"]
    url: str = Field(pattern=r"^(https?://[^/\s]+/?|unix:/\S+)$")
    ca_file: AbsolutePath | None = None
    authentication: Literal["jwt", "local"] = "jwt"
    token_file: AbsolutePath | None = None
    token_lifespan_seconds: int = Field(default=3600, ge=120)

    def token_file_for(self, user: str) -> str | None:
        """Return the file with the token of one Slurm user."""
        return None if self.token_file is None else _replace(self.token_file, user=user)


class PyslurmClientSettings(Settings):
    """Slurm is spoken to by its own library, on the host. ``python``: one there that can import pyslurm.

    None is the agent's own Python on this machine, and /usr/bin/python3 on another.
    """

    kind: Literal["pyslurm"]
    python: AbsolutePath | None = None


ClientSettings = Annotated[
    CommandClientSettings | RestClientSettings | PyslurmClientSettings, Field(discriminator="kind")
]


class SlurmSettings(Settings):
    """Where Slurm is and how it is watched.

    ``partitions``: those that the virtual node stands for, the first one the default; empty is all of them.
    ``root``: where job directories live, on a file system that login and compute nodes share; ``{user}``, ``{home}`` and
    ``{node}`` (the virtual node's name) are replaced. It belongs to one virtual node: pods found there that the node
    does not have are ended. ``images``: where its images are kept, by default in the root; nodes may share it.
    ``poll_seconds``: between two queries for all jobs. ``queue_seconds``: between two
    looks at everybody's waiting jobs, for the places of ours; 0 is never. ``state_seconds``: between two looks at the
    runners' state files. ``enter_idle_seconds``: how long a pod's helper step stays after its last use. ``orphan_hours``:
    how old a leftover must be before it is removed (``collection``).
    """

    host: HostSettings
    partitions: tuple[Name, ...] = ()
    client: ClientSettings = CommandClientSettings()
    root: str = "{home}/.slurmlet/{node}"
    images: str | None = None
    poll_seconds: float = Field(default=2.0, ge=0.2, le=300)
    queue_seconds: float = Field(default=30.0, ge=0)
    state_seconds: float = Field(default=0.1, ge=0.05, le=60)
    enter_idle_seconds: float = Field(default=120, ge=1, le=3600)
    orphan_hours: float = Field(default=168, gt=0, le=87600)
    sbatch_timeout_seconds: float = Field(default=120, ge=60)
    concurrent_submissions: int = Field(default=8, ge=1, le=64)
    interpreters: tuple[AbsolutePath, ...] = Field(
        default=("/usr/bin/python3", "/usr/libexec/platform-python", "/usr/local/bin/python3"), min_length=1
    )

    @field_validator("root", "images")
    @classmethod
    def _directory_is_absolute(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not (value.startswith(("/", "{home}/")) and value.isprintable()):
            raise ValueError("must be an absolute path or begin with {home}/")
        if set("{}") & set(_replace(value, user="", home="", node="")):
            raise ValueError("only {user}, {home} and {node} are replaced in it")
        return value

    def root_for(self, *, user: str, home: str, node: str) -> Root:
        """Return the root directory of one Slurm user on one virtual node."""
        root, images = (
            _replace(path, user=user, home=home, node=node).rstrip("/") for path in (self.root, self.images or "")
        )
        return Root(root, images)


class RuntimeSettings(Settings):
    """How containers run: ``apptainer`` (or SingularityCE by its ``executable``), or ``process``: no container at all."""

    kind: str = "apptainer"
    executable: str = "apptainer"
    options: tuple[str, ...] = ()

    @field_validator("kind")
    @classmethod
    def _is_there(cls, kind: str) -> str:
        if kind not in kinds():
            raise ValueError(f"must be {' or '.join(map(repr, kinds()))}")
        return kind


class RegistrySettings(Settings):
    """A registry's mirror: ``docker.io`` → ``registry.example.org/mirror``. ``insecure``: it speaks plain HTTP."""

    registry: str = Field(min_length=1)
    mirror: str | None = None
    insecure: bool = False


class NfsMatch(Settings):
    """An NFS PersistentVolume: its server, and a directory that its path is, or lies below."""

    server: str = Field(min_length=1)
    path: AbsolutePath = "/"


class CsiMatch(Settings):
    """A CSI PersistentVolume: its driver, and attributes (``volumeAttributes``) that must have these values."""

    driver: str = Field(min_length=1)
    attributes: dict[str, str] = Field(default_factory=dict)


class VolumeRule(Settings):
    """Where the data of some PersistentVolumes is on the site's file system; all that is given must match.

    ``path``: ``{rest}`` (what the volume's path has beyond that of ``nfs`` or ``host_path``), ``{handle}``,
    ``{attribute.NAME}``, ``{namespace}``, ``{claim}``, ``{volume}`` and ``{storage_class}`` are replaced. Nothing outside
    the directory before the first of these is ever reached.
    """

    nfs: NfsMatch | None = None
    host_path: AbsolutePath | None = None
    csi: CsiMatch | None = None
    storage_class: str | None = Field(default=None, min_length=1)
    path: AbsolutePath
    read_only: bool = False

    @model_validator(mode="after")
    def _is_meant(self) -> "VolumeRule":
        sources = [source for source in (self.nfs, self.host_path, self.csi) if source is not None]
        if len(sources) > 1:
            raise ValueError("nfs, host_path and csi exclude each other")
        if not sources and self.storage_class is None:
            raise ValueError("names no nfs, host_path, csi or storage_class")
        if ".." in self.path.split("/"):
            raise ValueError("path must not have '..'")
        for name in TEMPLATE_NAME.findall(self.path):
            if name not in TEMPLATE_NAMES and not name.startswith("attribute."):
                raise ValueError(f"path: {{{name}}} is not replaced; there are {', '.join(sorted(TEMPLATE_NAMES))}")
        if self.directory == "/":
            raise ValueError("path must begin with a directory before its first {name}")
        return self

    @property
    def directory(self) -> str:
        """The directory that no volume of this rule leaves: the path, as far as it is the same for all of them."""
        before, name, _ = self.path.partition("{")
        return (before.rpartition("/")[0] if name else self.path.rstrip("/")) or "/"


class ResourceMapping(Settings):
    """What an extended resource is in Slurm: a GRES, and which devices Apptainer shows for it.

    Where the resource's name has a ``*``, it stands for a MIG profile, and so does ``*`` in ``type`` (None: that alone).
    """

    gres: Name = "gpu"
    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_*][A-Za-z0-9_.*+-]*$", max_length=128)] | None = None
    devices: Literal["nvidia", "rocm", ""] = ""


class PodSettings(Settings):
    """What pods get where they say nothing, or too little.

    A job has no less than the ``minimum_``: CPUs and memory (the overhead included) on each of its nodes. Where neither
    the pod nor the site says how much, it is Slurm's own default. The policy's ceilings hold all the same.

    ``overhead_memory_mib`` is added to each job's memory for the runner, the container starter and the pulling of
    images, none of which Kubernetes would charge to the pod.
    ``default_time_limit_minutes``: None leaves it to the partition. ``api_server``: where pods reach the API server,
    instead of the cluster's own address of the Service ``kubernetes``, which compute nodes seldom reach.
    ``mpi``: srun's ``--mpi`` for pods of many ranks that name none themselves; None is Slurm's own ``MpiDefault``.
    ``image_paths``: below which images may be files of the compute nodes; nothing that pods write may lie there.
    ``gpu_types``: values of the labels by which pods choose a GPU, and the types that Slurm knows them by.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    registries: tuple[RegistrySettings, ...] = ()
    scratch: AbsolutePath | None = None
    default_cpus: int = Field(default=1, ge=1)
    default_memory_mib: int | None = Field(default=None, ge=1)
    overhead_memory_mib: int = Field(default=256, ge=0)
    default_time_limit_minutes: int | None = Field(default=None, ge=1)
    minimum_cpus: int = Field(default=1, ge=1)
    minimum_memory_mib: int = Field(default=1, ge=1)
    minimum_time_limit_minutes: int = Field(default=1, ge=1)
    container_log_max_mib: int = Field(default=10, ge=1)
    container_log_max_files: int = Field(default=5, ge=2)
    host_paths: tuple[AbsolutePath, ...] = ()
    image_paths: tuple[AbsolutePath, ...] = ()
    persistent_volumes: tuple[VolumeRule, ...] = ()
    api_server: HostAndPort | None = None
    mpi: Name | None = None
    resources: dict[str, ResourceMapping] = Field(
        default_factory=lambda: {
            "nvidia.com/gpu": ResourceMapping(devices="nvidia"),
            "nvidia.com/mig-*": ResourceMapping(type="*", devices="nvidia"),
            "amd.com/gpu": ResourceMapping(devices="rocm"),
        }
    )
    gpu_types: dict[str, Name] = Field(default_factory=dict)


class PrioritySettings(Settings):
    """What a pod's PriorityClass is in Slurm. The site's own choice: it may be more than the pod itself may ask for."""

    nice: int | None = None
    qos: Name | None = None


class PolicyRule(Settings):
    """Who a pod is in Slurm, and what it may ask for. The first rule that matches decides.

    ``namespaces`` and ``service_accounts`` are names or shell-style patterns. ``user`` None is the user that the Host
    acts as by itself. Of ``partitions``, ``accounts``, ``qos``, ``wckeys`` the first is the default; empty allows only
    what Slurm gives by default, and ``["*"]`` anything. ``constraints`` and ``licenses`` list the names that may occur.
    ``priority_classes``: what a PriorityClass is in Slurm, by its name. The ceilings are a job's, all its nodes
    together. ``srun_args`` are names of options that a pod may give srun for its ranks.
    """

    namespaces: tuple[str, ...] = ("*",)
    service_accounts: tuple[str, ...] = ("*",)
    user: Name | None = None
    partitions: tuple[str, ...] = ("*",)
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()
    wckeys: tuple[str, ...] = ()
    reservations: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ("*",)
    licenses: tuple[str, ...] = ("*",)
    max_time_limit_minutes: int | None = Field(default=None, ge=1)
    max_cpus: int | None = Field(default=None, ge=1)
    max_memory_mib: int | None = Field(default=None, ge=1)
    max_gpus: int | None = Field(default=None, ge=0)
    max_priority: int | None = Field(default=None, ge=1)
    priority_classes: dict[str, PrioritySettings] = Field(default_factory=dict)
    max_nodes: int | None = Field(default=None, ge=1)
    srun_args: tuple[str, ...] = (
        "accel-bind", "cpu-bind", "distribution", "gpu-bind", "hint", "kill-on-bad-exit", "mem-bind", "ntasks-per-core",
        "ntasks-per-socket", "threads-per-core", "wait",
    )  # fmt: skip
    raw_flags: bool = False
    requeue: bool = False
    exclusive: bool = True


class SiteSettings(Settings):
    """Everything that ``slurm_plugin`` is told."""

    slurm: SlurmSettings
    pods: PodSettings = PodSettings()
    policy: tuple[PolicyRule, ...] = Field(default=(PolicyRule(),), min_length=1)
