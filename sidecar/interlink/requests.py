"""What an interLink virtual kubelet, or interLink's API server, asks a plugin → a pod, its content, a log's options. Pure.

The two differ in how they send objects along (``container`` with each container's, or lists for all); both are read, in
a list of one too, as older API servers sent them. Environments arrive resolved by the virtual kubelet's library; what
is not is resolved from the objects that came along, as the agent does with those that it fetches. Projected and downward
volumes arrive as ConfigMaps named after the volume.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from slurm_plugin.contract import LogOptions, PodContent, VolumeFile
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.job import PodUid
from slurm_plugin.jobdir import check_uid
from slurm_plugin.pod import Pod, Volume
from slurm_plugin.resolution.environment import environments
from slurm_plugin.resolution.objects import CONFIG_MAP, SECRET, Objects, Reference, content_of
from slurm_plugin.resolution.pullsecrets import logins
from slurm_plugin.resolution.volumes import DEFAULT_MODE, files_of

from .wire import Json, WireError

# What an unset limit is in the downward API: the virtual kubelet has resolved such fields before they arrive.
_NO_LIMITS: Mapping[str, Decimal] = {}
_CREATED_WITH = "JobID"


@dataclass(frozen=True, slots=True)
class LogAsked:
    """A ``LogStruct``: whose log, and what of it."""

    uid: PodUid
    container: str
    options: LogOptions


def pod_of(body: object) -> Pod:
    """Return the pod that a JSON object is. WireError for what is none, or one without a UID."""
    if not isinstance(body, dict):
        raise WireError(f"expected a Pod, not {body!r:.100}")
    try:
        pod = Pod.model_validate(body)
        check_uid(pod.metadata.uid)
    except (ValidationError, ValueError) as error:
        raise WireError(f"not a Pod that can be read: {error}") from error
    return pod


def pods_of(body: object) -> tuple[Pod, ...]:
    """Return the pods of a question for their status; none is a ping. WireError."""
    return tuple(pod_of(item) for item in _list(body, "the pods whose status is asked for"))


def was_created(pod: Pod) -> bool:
    """Whether interLink remembers that a plugin took this pod."""
    return bool(pod.metadata.annotations.get(_CREATED_WITH))


def creation(body: object) -> tuple[Pod, PodContent]:
    """Return the pod to create and its content. WireError, MissingContentError (what did not come along), TranslationError."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, dict):
        raise WireError(f"expected a pod with its objects, not {body!r:.100}")
    if body.get("jobScript"):
        raise UnsupportedFieldError("jobScript", "scripts made elsewhere are not run: the job's script is made here")
    pod = pod_of(body.get("pod"))
    holders = [body, *_list(body.get("container"), "container")]
    objects = Objects(dict(_sent(holders, {"configmaps": CONFIG_MAP, "configMaps": CONFIG_MAP, "secrets": SECRET})))
    sent = _sent(holders, {"projectedvolumesmaps": CONFIG_MAP, "projectedvolumemaps": CONFIG_MAP})
    projected = {reference.name: item for reference, item in sent}
    content = PodContent(
        env=environments(pod, objects, _NO_LIMITS),
        volumes=dict(_volumes(pod, objects, projected)),
        logins=logins(pod, objects),
    )
    return pod, content


def _list(value: object, what: str) -> list[Any]:
    """Return a list; a Go slice that was never made arrives as null."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise WireError(f"{what} is no list: {value!r:.100}")
    return value


def _sent(holders: Iterable[object], kinds: Mapping[str, str]) -> Iterator[tuple[Reference, Json]]:
    for holder in holders:
        for key, kind in kinds.items():
            for item in _list(holder.get(key), key) if isinstance(holder, dict) else ():
                metadata = item.get("metadata") if isinstance(item, dict) else None
                name = metadata.get("name") if isinstance(metadata, dict) else None
                if not isinstance(name, str) or not isinstance(item.get("data") or {}, dict):
                    raise WireError(f"{key} holds what is no {kind}")
                yield Reference(kind, name), item


def _volumes(pod: Pod, objects: Objects, projected: Mapping[str, Json]) -> Iterator[tuple[str, tuple[VolumeFile, ...]]]:
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    mounted = {mount.name for container in containers for mount in container.volume_mounts}
    for index, volume in enumerate(pod.spec.volumes):
        if volume.name not in mounted:
            continue  # what no container mounts the API server does not send along
        made_elsewhere = volume.projected is not None or volume.downward_api is not None
        if made_elsewhere and volume.name in projected:
            yield volume.name, _files(volume, projected[volume.name])
        elif (files := files_of(pod, index, objects, _NO_LIMITS)) is not None:
            yield volume.name, files


def _files(volume: Volume, sent: Json) -> tuple[VolumeFile, ...]:
    """Return the files of a projected or downward volume: what they hold was sent, their modes are the pod's."""
    source = volume.projected or volume.downward_api
    mode = None if source is None else source.default_mode
    default, modes = DEFAULT_MODE if mode is None else mode, dict(_modes(volume))
    found = content_of(CONFIG_MAP, sent)
    return tuple(VolumeFile(path, found[path], modes.get(path, default)) for path in sorted(found))


def _modes(volume: Volume) -> Iterator[tuple[str, int]]:
    sources = volume.projected.sources if volume.projected is not None else ()
    parts = [part for source in sources for part in (source.config_map, source.secret, source.downward_api)]
    for part in (*parts, volume.downward_api):
        for item in part.items if part is not None else ():
            if item.mode is not None:
                yield item.path, item.mode


def log_asked(body: object, now: float) -> LogAsked:
    """Return whose log is asked for. ``now``: epoch seconds. WireError, also for options that exclude each other."""
    if not isinstance(body, dict) or not isinstance(options := body.get("Opts") or {}, dict):
        raise WireError(f"expected what log is wanted, not {body!r:.100}")
    uid, container = body.get("PodUID"), body.get("ContainerName")
    if not isinstance(uid, str) or not isinstance(container, str):
        raise WireError("PodUID and ContainerName are texts")
    tail, limit, seconds = (_count(options, key) for key in ("Tail", "Bytes", "SinceSeconds"))
    since = _time(options.get("SinceTime"))
    if tail and limit:
        raise WireError("Tail and Bytes exclude each other")
    if seconds and since is not None:
        raise WireError("SinceSeconds and SinceTime exclude each other")
    flags = {key: bool(options.get(key)) for key in ("Follow", "Previous", "Timestamps")}
    return LogAsked(
        PodUid(check_uid(uid)),
        container,
        LogOptions(
            follow=flags["Follow"],
            previous=flags["Previous"],
            timestamps=flags["Timestamps"],
            tail_lines=tail or None,
            since_time=now - seconds if seconds else since,
            limit_bytes=limit or None,
        ),
    )


def _count(options: Json, key: str) -> int:
    value = options.get(key) or 0
    if type(value) is not int or value < 0:
        raise WireError(f"{key} is no count: {value!r:.100}")
    return value


def _time(text: object) -> float | None:
    """Return epoch seconds; None for nothing, or Go's zero time."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(str(text))
        return None if time.year == 1 else time.timestamp()
    except ValueError as error:
        raise WireError(f"SinceTime is no time: {text!r:.100}") from error
