"""Pod → the runner's plan: what is to run on the compute node, decided before the job is submitted. Pure."""

from collections.abc import Mapping

from .claims import Place
from .config import PodSettings
from .errors import UnsupportedFieldError
from .gpus import shares
from .images import resolve
from .pod import Container, ContainerPort, Handler, Pod, Probe, Volume, VolumeMount
from .quantity import parse_quantity
from .resources import is_sidecar
from .runner import plan

_LONGEST_HOSTNAME = 63


def _port(value: int | str, ports: tuple[ContainerPort, ...], path: str) -> int:
    """Return a port's number; a name is one of the container's own ports."""
    if isinstance(value, int):
        return value
    for port in ports:
        if port.name == value:
            return port.container_port
    if value.isdigit():
        return int(value)
    raise UnsupportedFieldError(path, f"the container has no port named {value!r}")


def _action(handler: Handler, ports: tuple[ContainerPort, ...], path: str) -> plan.Action:
    command: tuple[str, ...] = ()
    host, port, target, scheme, seconds = "", 0, "", "", 0
    headers: tuple[tuple[str, str], ...] = ()
    if handler.exec is not None:
        kind, command = "exec", handler.exec.command
    elif handler.http_get is not None:
        get = handler.http_get
        kind, host, target, scheme = "http", get.host, get.path, get.scheme
        port = _port(get.port, ports, f"{path}.httpGet.port")
        headers = tuple((header.name, header.value) for header in get.http_headers)
    elif handler.tcp_socket is not None:
        kind, host = "tcp", handler.tcp_socket.host
        port = _port(handler.tcp_socket.port, ports, f"{path}.tcpSocket.port")
    elif handler.grpc is not None:
        kind, port, target = "grpc", handler.grpc.port, handler.grpc.service or ""
    elif handler.sleep is not None:
        kind, seconds = "sleep", handler.sleep.seconds
    else:
        raise UnsupportedFieldError(path, "names no action")
    return plan.Action(kind, command, host, port, target, scheme, headers, seconds)


def _probe(probe: Probe | None, container: Container, path: str) -> plan.Probe | None:
    if probe is None:
        return None
    grace = probe.termination_grace_period_seconds
    return plan.Probe(
        action=_action(probe, container.ports, path),
        initial_delay=probe.initial_delay_seconds,
        period=probe.period_seconds,
        timeout=probe.timeout_seconds,
        success_threshold=probe.success_threshold,
        failure_threshold=probe.failure_threshold,
        grace_seconds=-1 if grace is None else grace,
    )


def _restart_policy(kind: str, pod_policy: str) -> str:
    """Return a container's own policy: a regular init container is tried again only on failure, and not under Never."""
    if kind == plan.SIDECAR:
        return "Always"
    if kind == plan.EPHEMERAL:
        return "Never"
    if kind == plan.INIT:
        return "Never" if pod_policy == "Never" else "OnFailure"
    return pod_policy


def _container(container: Container, path: str, kind: str, pod_policy: str, settings: PodSettings) -> plan.Container:
    lifecycle = container.lifecycle
    post_start = lifecycle.post_start if lifecycle else None
    pre_stop = lifecycle.pre_stop if lifecycle else None
    security = container.security_context
    return plan.Container(
        name=container.name,
        kind=kind,
        image=resolve(container.image, container.image_pull_policy, settings.registries),
        command=container.command or None,
        args=container.args or None,
        working_dir=container.working_dir,
        restart_policy=_restart_policy(kind, pod_policy),
        mounts=tuple(_mount(mount) for mount in container.volume_mounts),
        termination_message_path=container.termination_message_path,
        termination_message_policy=container.termination_message_policy,
        read_only_root=bool(security and security.read_only_root_filesystem),
        gpu="",
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        startup_probe=_probe(container.startup_probe, container, f"{path}.startupProbe"),
        liveness_probe=_probe(container.liveness_probe, container, f"{path}.livenessProbe"),
        readiness_probe=_probe(container.readiness_probe, container, f"{path}.readinessProbe"),
        post_start=_action(post_start, container.ports, f"{path}.lifecycle.postStart") if post_start else None,
        pre_stop=_action(pre_stop, container.ports, f"{path}.lifecycle.preStop") if pre_stop else None,
    )


def _mount(mount: VolumeMount) -> plan.Mount:
    expression = bool(mount.sub_path_expr)
    return plan.Mount(mount.name, mount.mount_path, mount.sub_path_expr or mount.sub_path, mount.read_only, expression)


def _volume(volume: Volume, path: str, places: Mapping[str, Place]) -> plan.Volume:
    if volume.name in places:
        return plan.Volume(volume.name, plan.CLAIM, places[volume.name].path, "", 0)
    if volume.host_path is not None:
        return plan.Volume(volume.name, plan.HOST_PATH, volume.host_path.path, volume.host_path.type or "", 0)
    content = (volume.config_map, volume.secret, volume.projected, volume.downward_api)
    if any(source is not None for source in content):
        return plan.Volume(volume.name, plan.CONTENT, "", "", 0)
    # A volume without any source is an emptyDir: the API server's own default.
    empty = volume.empty_dir
    kind = plan.MEMORY if empty is not None and empty.medium == "Memory" else plan.EMPTY_DIR
    limit = 0
    if empty is not None and empty.size_limit is not None:
        limit = int(parse_quantity(empty.size_limit, f"{path}.emptyDir.sizeLimit"))
    return plan.Volume(volume.name, kind, "", "", limit)


def _hostname(name: str) -> str:
    """Return a host name that the kernel takes (kubelet, ``truncatePodHostnameIfNeeded``): at most 63 characters."""
    return name[:_LONGEST_HOSTNAME].rstrip("-.")


def _read_only(container: plan.Container, places: Mapping[str, Place]) -> plan.Container:
    """Return the container with those of its mounts read-only whose place is."""
    mounts = (
        mount._replace(read_only=mount.read_only or (mount.volume in places and places[mount.volume].read_only))
        for mount in container.mounts
    )
    return container._replace(mounts=tuple(mounts))


def ephemeral_containers(pod: Pod, settings: PodSettings, places: Mapping[str, Place]) -> tuple[plan.Container, ...]:
    """Return the runner's plan of what was added to a running pod. TranslationError names a field."""
    planned = (
        _container(container, f"spec.ephemeralContainers[{index}]", plan.EPHEMERAL, "Never", settings)
        for index, container in enumerate(pod.spec.ephemeral_containers)
    )
    return tuple(_read_only(container, places) for container in planned)


def make_plan(pod: Pod, settings: PodSettings, *, images: str, places: Mapping[str, Place]) -> plan.Plan:
    """Return the runner's plan of a pod. TranslationError names a field.

    ``images`` is the image cache's directory, ``places`` where the volumes are that are claims.
    """
    spec, metadata = pod.spec, pod.metadata
    containers = [
        _container(
            container,
            f"spec.initContainers[{index}]",
            plan.SIDECAR if is_sidecar(container) else plan.INIT,
            spec.restart_policy,
            settings,
        )
        for index, container in enumerate(spec.init_containers)
    ]
    containers += [
        _container(container, f"spec.containers[{index}]", plan.APP, spec.restart_policy, settings)
        for index, container in enumerate(spec.containers)
    ]
    parts = shares(pod, settings)
    containers = [
        each._replace(gpu=part.vendor, gpu_first=part.first, gpu_count=part.count)
        for each, part in ((each, parts[each.name]) for each in containers)
    ]
    runtime = settings.runtime
    return plan.Plan(
        version=plan.VERSION,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        hostname=_hostname(spec.hostname or metadata.name),
        host_aliases=tuple((alias.ip, alias.hostnames) for alias in spec.host_aliases),
        restart_policy=spec.restart_policy,
        grace_seconds=spec.termination_grace_period_seconds,
        deadline_seconds=spec.active_deadline_seconds or 0,
        runtime=plan.Runtime(runtime.kind, runtime.executable, runtime.options),
        images=images,
        scratch=settings.scratch or "",
        log_max_bytes=settings.container_log_max_mib * 1024 * 1024,
        log_max_files=settings.container_log_max_files,
        volumes=tuple(_volume(volume, f"spec.volumes[{index}]", places) for index, volume in enumerate(spec.volumes)),
        containers=tuple(_read_only(container, places) for container in containers),
        image_paths=settings.image_paths,
    )
