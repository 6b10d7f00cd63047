"""The part of core/v1 Pod that Slurmlet reads, as frozen pydantic models with Kubernetes' own field names.

No behaviour: what a field means is said where it is used. Fields that have no name here are kept as extra ones, so that
``refusals`` can tell which of them are harmless and refuse the rest by their path: nothing is dropped silently.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _none_is_empty_list(value: object) -> object:
    return [] if value is None else value


def _none_is_empty_dict(value: object) -> object:
    return {} if value is None else value


class Model(BaseModel):
    """A frozen piece of a Kubernetes object."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


Strings = Annotated[tuple[str, ...], BeforeValidator(_none_is_empty_list)]
StringMap = Annotated[dict[str, str], BeforeValidator(_none_is_empty_dict)]
Quantities = Annotated[dict[str, str | int | float], BeforeValidator(_none_is_empty_dict)]


class Resources(Model):
    """ResourceRequirements."""

    limits: Quantities = Field(default_factory=dict)
    requests: Quantities = Field(default_factory=dict)
    claims: tuple[Any, ...] | None = None


class KeySelector(Model):
    """ConfigMapKeySelector or SecretKeySelector."""

    name: str = ""
    key: str
    optional: bool = False


class FieldSelector(Model):
    """ObjectFieldSelector."""

    field_path: str


class ResourceFieldSelector(Model):
    """ResourceFieldSelector."""

    container_name: str = ""
    resource: str
    divisor: str | int | float | None = None


class EnvVarSource(Model):
    """EnvVarSource: exactly one is set."""

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(Model):
    """EnvVar."""

    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


class ObjectSource(Model):
    """ConfigMapEnvSource or SecretEnvSource."""

    name: str = ""
    optional: bool = False


class EnvFromSource(Model):
    """EnvFromSource."""

    prefix: str = ""
    config_map_ref: ObjectSource | None = None
    secret_ref: ObjectSource | None = None


class VolumeMount(Model):
    """VolumeMount."""

    name: str
    mount_path: str
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False
    mount_propagation: str | None = None
    recursive_read_only: str | None = None


class ExecAction(Model):
    """ExecAction."""

    command: Strings = ()


class HttpHeader(Model):
    """HTTPHeader."""

    name: str
    value: str = ""


class HttpGetAction(Model):
    """HTTPGetAction."""

    path: str = ""
    port: int | str
    host: str = ""
    scheme: str = "HTTP"
    http_headers: Annotated[tuple[HttpHeader, ...], BeforeValidator(_none_is_empty_list)] = ()


class TcpSocketAction(Model):
    """TCPSocketAction."""

    port: int | str
    host: str = ""


class GrpcAction(Model):
    """GRPCAction."""

    port: int
    service: str | None = None


class SleepAction(Model):
    """SleepAction."""

    seconds: int


class Handler(Model):
    """LifecycleHandler, and a Probe's handler: exactly one is set."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    sleep: SleepAction | None = None


class Probe(Handler):
    """Probe, with Kubernetes' defaults (seconds)."""

    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class Lifecycle(Model):
    """Lifecycle."""

    post_start: Handler | None = None
    pre_stop: Handler | None = None
    stop_signal: str | None = None


class ContainerPort(Model):
    """ContainerPort."""

    name: str = ""
    container_port: int
    host_port: int | None = None
    protocol: str = "TCP"


class Capabilities(Model):
    """Capabilities."""

    add: Strings = ()
    drop: Strings = ()


class SecurityContext(Model):
    """The container's SecurityContext."""

    privileged: bool | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    proc_mount: str | None = None
    capabilities: Capabilities | None = None


class Container(Model):
    """Container, init container or sidecar container."""

    name: str
    image: str = ""
    image_pull_policy: str | None = None
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    working_dir: str = ""
    restart_policy: str | None = None
    env: Annotated[tuple[EnvVar, ...], BeforeValidator(_none_is_empty_list)] = ()
    env_from: Annotated[tuple[EnvFromSource, ...], BeforeValidator(_none_is_empty_list)] = ()
    ports: Annotated[tuple[ContainerPort, ...], BeforeValidator(_none_is_empty_list)] = ()
    resources: Resources = Field(default_factory=Resources)
    volume_mounts: Annotated[tuple[VolumeMount, ...], BeforeValidator(_none_is_empty_list)] = ()
    startup_probe: Probe | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    security_context: SecurityContext | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class EphemeralContainer(Container):
    """EphemeralContainer: added to a pod that runs (``kubectl debug``), and never started again."""

    target_container_name: str = ""


class KeyToPath(Model):
    """KeyToPath."""

    key: str
    path: str
    mode: int | None = None


Items = Annotated[tuple[KeyToPath, ...], BeforeValidator(_none_is_empty_list)]


class ConfigMapSource(Model):
    """ConfigMapVolumeSource or ConfigMapProjection."""

    name: str = ""
    items: Items = ()
    default_mode: int | None = None
    optional: bool = False


class SecretSource(Model):
    """SecretVolumeSource (``secretName``) or SecretProjection (``name``)."""

    secret_name: str = ""
    name: str = ""
    items: Items = ()
    default_mode: int | None = None
    optional: bool = False


class DownwardFile(Model):
    """DownwardAPIVolumeFile."""

    path: str
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardSource(Model):
    """DownwardAPIVolumeSource or DownwardAPIProjection."""

    items: Annotated[tuple[DownwardFile, ...], BeforeValidator(_none_is_empty_list)] = ()
    default_mode: int | None = None


class TokenSource(Model):
    """ServiceAccountTokenProjection."""

    audience: str = ""
    expiration_seconds: int = 3600
    path: str


class Projection(Model):
    """VolumeProjection: exactly one is set."""

    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward_api: DownwardSource | None = Field(default=None, alias="downwardAPI")
    service_account_token: TokenSource | None = None


class ProjectedSource(Model):
    """ProjectedVolumeSource."""

    sources: Annotated[tuple[Projection, ...], BeforeValidator(_none_is_empty_list)] = ()
    default_mode: int | None = None


class EmptyDirSource(Model):
    """EmptyDirVolumeSource."""

    medium: str = ""
    size_limit: str | int | None = None


class HostPathSource(Model):
    """HostPathVolumeSource."""

    path: str
    type: str | None = None


class ClaimSource(Model):
    """PersistentVolumeClaimVolumeSource."""

    claim_name: str
    read_only: bool = False


class EphemeralSource(Model):
    """EphemeralVolumeSource: a claim that the control plane makes for the pod, named after it and the volume."""

    volume_claim_template: dict[str, Any] | None = None


class Volume(Model):
    """A volume; a source that Slurmlet does not know is an extra field."""

    name: str
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    projected: ProjectedSource | None = None
    downward_api: DownwardSource | None = Field(default=None, alias="downwardAPI")
    empty_dir: EmptyDirSource | None = None
    host_path: HostPathSource | None = None
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: EphemeralSource | None = None


class HostAlias(Model):
    """HostAlias."""

    ip: str
    hostnames: Strings = ()


class ObjectName(Model):
    """LocalObjectReference."""

    name: str = ""


class ReadinessGate(Model):
    """PodReadinessGate."""

    condition_type: str


class PodSpec(Model):
    """PodSpec, as far as Slurmlet honours it."""

    containers: tuple[Container, ...]
    init_containers: Annotated[tuple[Container, ...], BeforeValidator(_none_is_empty_list)] = ()
    ephemeral_containers: Annotated[tuple[EphemeralContainer, ...], BeforeValidator(_none_is_empty_list)] = ()
    volumes: Annotated[tuple[Volume, ...], BeforeValidator(_none_is_empty_list)] = ()
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    node_name: str = ""
    node_selector: StringMap = Field(default_factory=dict)
    affinity: dict[str, Any] | None = None
    service_account_name: str = "default"
    enable_service_links: bool = True
    hostname: str = ""
    host_aliases: Annotated[tuple[HostAlias, ...], BeforeValidator(_none_is_empty_list)] = ()
    image_pull_secrets: Annotated[tuple[ObjectName, ...], BeforeValidator(_none_is_empty_list)] = ()
    readiness_gates: Annotated[tuple[ReadinessGate, ...], BeforeValidator(_none_is_empty_list)] = ()
    security_context: dict[str, Any] | None = None
    overhead: Quantities = Field(default_factory=dict)
    resources: Resources | None = None
    host_network: bool = False
    host_pid: bool = Field(default=False, alias="hostPID")
    host_ipc: bool = Field(default=False, alias="hostIPC")
    host_users: bool | None = None
    share_process_namespace: bool | None = None
    runtime_class_name: str | None = None
    priority_class_name: str = ""


class Metadata(Model):
    """ObjectMeta, as far as Slurmlet reads it."""

    name: str
    namespace: str = "default"
    uid: str = ""
    labels: StringMap = Field(default_factory=dict)
    annotations: StringMap = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    generation: int | None = None


class Pod(Model):
    """A Pod to run."""

    metadata: Metadata
    spec: PodSpec
    status: dict[str, Any] = Field(default_factory=dict)
