"""What a pod may not ask for here: every field is honoured, harmless by this list, or refused by its path. Pure.

A field that ``pod`` does not name arrives as an extra one and is refused unless it is listed as harmless, so that a
field of a future Kubernetes is never ignored silently. The documentation (``docs/pods.md``) explains each entry.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .config import PodSettings
from .errors import PolicyError, UnsupportedFieldError
from .jobdir import Root
from .pod import Container, Model, Pod, SecurityContext, Volume, VolumeMount

_HARMLESS_POD = frozenset({
    "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "hostnameOverride", "os", "preemptionPolicy",
    "priority", "schedulerName", "schedulingGates", "schedulingGroup", "serviceAccount", "setHostnameAsFQDN", "subdomain",
    "tolerations", "topologySpreadConstraints", "workloadRef",
})  # fmt: skip
_HARMLESS_CONTAINER = frozenset({"resizePolicy"})
_HARMLESS_PORT = frozenset({"hostIP"})
_HARMLESS_SECURITY = frozenset({"seccompProfile", "appArmorProfile"})
_HARMLESS_POD_SECURITY = frozenset({
    "appArmorProfile", "fsGroup", "fsGroupChangePolicy", "runAsNonRoot", "seLinuxChangePolicy", "seccompProfile",
    "supplementalGroupsPolicy",
})  # fmt: skip
_HARMLESS = {
    "PodSpec": _HARMLESS_POD, "Container": _HARMLESS_CONTAINER, "ContainerPort": _HARMLESS_PORT,
    "SecurityContext": _HARMLESS_SECURITY, "FieldSelector": frozenset({"apiVersion"}),
}  # fmt: skip
# kubectl debug asks for it unasked; whoever runs in the job may trace the job's own processes without it.
_HARMLESS_CAPABILITIES = frozenset({"SYS_PTRACE"})
_NO_CLAIMS = "dynamic resource allocation is not possible here"
_CANT = "can't be honoured by a Slurm job"


def _extras(model: Model, path: str) -> Iterator[tuple[str, object]]:
    """Yield the path and value of every field that the models do not name and that is not harmless."""
    harmless = _HARMLESS.get(type(model).__name__, frozenset[str]())
    for key, value in (model.model_extra or {}).items():
        if key not in harmless and not _says_nothing(value):
            yield f"{path}.{key}", value
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        here = f"{path}.{field.alias or name}"
        for item_path, item in _models(value, here):
            yield from _extras(item, item_path)


def _says_nothing(value: object) -> bool:
    """Whether a field that holds this might as well be absent. ``{}`` and 0 do say something: ``emptyDir: {}``."""
    return value is None or value is False or value == "" or value == []


def _models(value: object, path: str) -> Iterator[tuple[str, Model]]:
    if isinstance(value, Model):
        yield path, value
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            if isinstance(item, Model):
                yield f"{path}[{index}]", item


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the Slurm user is that the job runs as: numeric ids of user and group, None if unknown."""

    uid: int | None
    gid: int | None = None


def _check_user(user: object, group: object, path: str, own: Identity) -> None:
    if user is not None and user != own.uid:
        owner = "another user than the job's" if own.uid is None else f"user {user}; the job runs as user {own.uid}"
        raise UnsupportedFieldError(f"{path}.runAsUser", f"a pod can't choose {owner}")
    if group is not None and group != own.gid:
        other = "another group than the job's" if own.gid is None else f"group {group}; the job's is {own.gid}"
        raise UnsupportedFieldError(f"{path}.runAsGroup", f"a pod can't choose {other}")


def _check_security(context: SecurityContext, path: str, own: Identity) -> None:
    if context.privileged:
        raise UnsupportedFieldError(f"{path}.privileged", "privileged containers are not possible in a Slurm job")
    _check_user(context.run_as_user, context.run_as_group, path, own)
    if context.proc_mount not in {None, "Default"}:
        raise UnsupportedFieldError(f"{path}.procMount", _CANT)
    if context.capabilities is not None and set(context.capabilities.add) - _HARMLESS_CAPABILITIES:
        raise UnsupportedFieldError(f"{path}.capabilities.add", "an unprivileged container can't gain capabilities")


def _check_pod_security(pod: Pod, own: Identity) -> None:
    context = pod.spec.security_context or {}
    path = "spec.securityContext"
    _check_user(context.get("runAsUser"), context.get("runAsGroup"), path, own)
    for key, value in context.items():
        if value and key not in _HARMLESS_POD_SECURITY | {"runAsUser", "runAsGroup"}:
            raise UnsupportedFieldError(f"{path}.{key}", _CANT)


def _check_mount(mount: VolumeMount, path: str) -> None:
    if mount.mount_propagation not in {None, "None"}:
        raise UnsupportedFieldError(f"{path}.mountPropagation", "mounts are never propagated")
    if mount.recursive_read_only not in {None, "Disabled", "IfPossible"}:
        raise UnsupportedFieldError(f"{path}.recursiveReadOnly", _CANT)
    if mount.sub_path and mount.sub_path_expr:
        raise UnsupportedFieldError(f"{path}.subPathExpr", "excludes subPath")
    fields = {"mountPath": mount.mount_path, "subPath": mount.sub_path, "subPathExpr": mount.sub_path_expr}
    for field, value in fields.items():
        if "\0" in value or "\n" in value:
            raise UnsupportedFieldError(f"{path}.{field}", "a path can't hold a newline or NUL here")
    if mount.sub_path.startswith("/") or ".." in mount.sub_path.split("/"):
        raise UnsupportedFieldError(f"{path}.subPath", "must be a relative path without '..'")


def _check_texts(container: Container, path: str) -> None:
    """Refuse NUL, which no argument, variable or path of a process can hold."""
    texts: list[tuple[str, str]] = [(f"{path}.workingDir", container.working_dir), (f"{path}.image", container.image)]
    for field, values in (("command", container.command), ("args", container.args)):
        texts += [(f"{path}.{field}[{index}]", value) for index, value in enumerate(values or ())]
    for index, variable in enumerate(container.env):
        texts += [(f"{path}.env[{index}].name", variable.name), (f"{path}.env[{index}].value", variable.value or "")]
        if "=" in variable.name:
            raise UnsupportedFieldError(f"{path}.env[{index}].name", "a variable's name can't hold '='")
    for field, value in texts:
        if "\0" in value:
            raise UnsupportedFieldError(field, "holds a NUL character, which no process can receive")


def _check_container(container: Container, path: str, own: Identity, *, init: bool) -> None:
    if not container.image:
        raise UnsupportedFieldError(f"{path}.image", "is empty; a Slurm job needs an image")
    if container.restart_policy is not None and not (init and container.restart_policy == "Always"):
        raise UnsupportedFieldError(f"{path}.restartPolicy", "only init containers may say Always here")
    if container.resources.claims:
        raise UnsupportedFieldError(f"{path}.resources.claims", _NO_CLAIMS)
    if container.security_context is not None:
        _check_security(container.security_context, f"{path}.securityContext", own)
    if container.lifecycle is not None and container.lifecycle.stop_signal:
        raise UnsupportedFieldError(f"{path}.lifecycle.stopSignal", "containers are stopped with SIGTERM")
    for index, mount in enumerate(container.volume_mounts):
        _check_mount(mount, f"{path}.volumeMounts[{index}]")
    _check_texts(container, path)


def _inside(path: str, directory: str) -> bool:
    return posixpath.commonpath([path, directory]) == posixpath.normpath(directory)


def check_apart(path: str, root: str, field: str) -> None:
    """Raise PolicyError, naming ``field``, if a path holds, or lies below, the root directory of the user's pods."""
    if _inside(path, root) or _inside(root, path):
        raise PolicyError(field, f"{path} holds the files of other pods ({root})")


def _check_volume(volume: Volume, path: str, host_paths: Sequence[str], root: str) -> None:
    if volume.empty_dir is not None and volume.empty_dir.medium not in {"", "Memory"}:
        raise UnsupportedFieldError(f"{path}.emptyDir.medium", 'only "" and "Memory" are possible')
    if volume.host_path is None:
        return
    if volume.host_path.type in {"BlockDevice", "CharDevice"}:
        raise UnsupportedFieldError(f"{path}.hostPath.type", "devices can't be given to a Slurm job this way")
    check_host_path(volume.host_path.path, f"{path}.hostPath.path", host_paths, root)


def check_host_path(path: str, field: str, host_paths: Sequence[str], root: str) -> None:
    """Raise UnsupportedFieldError or PolicyError, naming ``field``, for a path of the compute nodes that the site does not give pods."""
    wanted = posixpath.normpath(path)
    plain = wanted.startswith("/") and ".." not in path.split("/")
    if not plain or "\n" in wanted or "\0" in wanted:
        raise UnsupportedFieldError(field, "must be a plain absolute path")
    check_apart(wanted, root, field)
    if not any(_inside(wanted, allowed) for allowed in host_paths):
        choice = ", ".join(host_paths) or "none"
        raise PolicyError(field, f"{wanted} is not below a path that the site allows ({choice})")


def check_image_paths(pod: Pod, settings: PodSettings, root: Root) -> None:
    """Raise UnsupportedFieldError or PolicyError for an image that is a path, unless the site allows it.

    The image's whole tree is the container's: the root of the user's pods, or the image cache, would be everybody's
    files. Where links lead only the node can tell (``runner.pull``).
    """
    spec = pod.spec
    lists = {"initContainers": spec.init_containers, "containers": spec.containers,
             "ephemeralContainers": spec.ephemeral_containers}  # fmt: skip
    for kind, containers in lists.items():
        for index, container in enumerate(containers):
            if container.image.startswith("/"):
                _check_image_path(container.image, f"spec.{kind}[{index}].image", settings.image_paths, root)


def _check_image_path(image: str, field: str, allowed: Sequence[str], root: Root) -> None:
    if ".." in image.split("/") or not image.isprintable():
        raise UnsupportedFieldError(field, "must be a plain absolute path")
    wanted = posixpath.normpath("/" + image.lstrip("/"))
    for apart in (root.path, root.images):
        check_apart(wanted, apart, field)
    if not any(_inside(wanted, each) for each in allowed):
        choice = ", ".join(allowed) or "none"
        raise PolicyError(field, f"{wanted} is not below a path that the site allows for images ({choice})")


def check(pod: Pod, settings: PodSettings, *, uid: int | None, gid: int | None = None, root: str) -> None:
    """Raise UnsupportedFieldError or PolicyError for the first thing that can't be honoured.

    ``uid`` and ``gid`` are the numeric ids of the Slurm user that the job runs as, None if unknown. ``root`` is the directory of that
    user's pods, which no pod may mount: it holds their secrets.
    """
    spec, own = pod.spec, Identity(uid, gid)
    for path, _ in _extras(spec, "spec"):
        raise UnsupportedFieldError(path, _CANT)
    flags = {"hostPID": spec.host_pid, "hostIPC": spec.host_ipc, "shareProcessNamespace": spec.share_process_namespace,
             "runtimeClassName": spec.runtime_class_name}  # fmt: skip
    for field, value in flags.items():
        if value:
            raise UnsupportedFieldError(f"spec.{field}", _CANT)
    if spec.resources is not None and spec.resources.claims:
        raise UnsupportedFieldError("spec.resources.claims", _NO_CLAIMS)
    _check_pod_security(pod, own)
    for index, volume in enumerate(spec.volumes):
        _check_volume(volume, f"spec.volumes[{index}]", settings.host_paths, root)
    for index, container in enumerate(spec.init_containers):
        _check_container(container, f"spec.initContainers[{index}]", own, init=True)
    for index, container in enumerate(spec.containers):
        _check_container(container, f"spec.containers[{index}]", own, init=False)
    for index, container in enumerate(spec.ephemeral_containers):
        _check_container(container, f"spec.ephemeralContainers[{index}]", own, init=False)
