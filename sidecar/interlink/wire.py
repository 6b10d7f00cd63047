"""interLink's JSON, as its Go types have it (``pkg/interlink/types.go``, 0.6). Pure.

Its OpenAPI documents differ from its code; the code is what plugins were built against, so the code is followed. Both
sides are tolerant readers: a Go slice that was never made arrives as ``null``, and a plugin may answer for another pod
than it was asked about (the reference plugin caches its last answer).
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from slurm_plugin.contract import LogOptions, PodContent, VolumeFile
from slurm_plugin.pod import Container, Pod
from slurm_plugin.runner.expand import expand
from slurm_plugin.runner.plan import EnvEntry

Json = dict[str, Any]

_NO_TIME = "0001-01-01T00:00:00Z"


class WireError(ValueError):
    """The other side sent what no interLink type allows; the message says what."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a plugin says of one pod: its own id for the job, and the containers' statuses as Kubernetes writes them."""

    job_id: str
    containers: tuple[Json, ...]
    init_containers: tuple[Json, ...]


# --- the pod ----------------------------------------------------------------------------------------------------------


def pod_object(pod: Pod, content: PodContent) -> Json:
    """Return the pod as a plugin is to see it: environments resolved, so that it needs nothing of the cluster.

    Files of volumes travel beside it (``create_request``); a volume whose content has no object of its own in
    interLink's types becomes a projected one, which is how its virtual kubelet sends such volumes too.
    """
    body = pod.model_dump(mode="json", by_alias=True, exclude_unset=True)
    body |= {"apiVersion": "v1", "kind": "Pod"}
    spec = body["spec"]
    for kind, containers in (("initContainers", pod.spec.init_containers), ("containers", pod.spec.containers)):
        for written, container in zip(spec.get(kind) or (), containers, strict=True):
            written.pop("envFrom", None)
            written["env"] = _environment(content.env.get(container.name, ()))
    for volume in spec.get("volumes") or ():
        files = content.volumes.get(volume["name"])
        if files is None:
            continue
        if "secret" in volume:
            volume["secret"].pop("items", None)
        elif "configMap" in volume:
            volume["configMap"].pop("items", None)
        else:
            name = volume["name"]
            volume.clear()
            volume |= {"name": name, "projected": {"sources": [{"configMap": {"name": name}}]}}
    return body


def _environment(entries: Sequence[EnvEntry]) -> list[Json]:
    known: dict[str, str] = {}
    result = []
    for entry in entries:
        if entry.node_field:
            known.pop(entry.name, None)
            result.append({"name": entry.name, "valueFrom": {"fieldRef": {"fieldPath": entry.node_field}}})
        else:
            known[entry.name] = expand(entry.value, known) if entry.expand else entry.value
            result.append({"name": entry.name, "value": known[entry.name]})
    return result


# --- create -----------------------------------------------------------------------------------------------------------


def _sources(body: Json, content: PodContent) -> dict[str, tuple[str, Json]]:
    """Return each content volume's (list of interLink's types, object) by the volume's name."""
    result = {}
    for volume in body["spec"].get("volumes") or ():
        files = content.volumes.get(volume["name"])
        if files is None:
            continue
        if "secret" in volume:
            result[volume["name"]] = ("secrets", _secret(volume["secret"].get("secretName", ""), body, files))
        elif "configMap" in volume:
            result[volume["name"]] = ("configmaps", _config_map(volume["configMap"].get("name", ""), body, files))
        else:
            result[volume["name"]] = ("projectedvolumesmaps", _config_map(volume["name"], body, files))
    return result


def _metadata(name: str, body: Json) -> Json:
    return {"name": name, "namespace": body["metadata"].get("namespace", "default")}


def _config_map(name: str, body: Json, files: Sequence[VolumeFile]) -> Json:
    data, binary = {}, {}
    for file in files:
        try:
            data[file.path] = file.data.decode("utf-8")
        except UnicodeDecodeError:
            binary[file.path] = _base64(file.data)
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": _metadata(name, body), "data": data} | (
        {"binaryData": binary} if binary else {}
    )


def _secret(name: str, body: Json, files: Sequence[VolumeFile]) -> Json:
    data = {file.path: _base64(file.data) for file in files}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": _metadata(name, body), "data": data, "type": "Opaque"}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def create_request(pod: Pod, content: PodContent) -> Json:
    """Return ``PodCreateRequests``, which interLink's API server takes."""
    body = pod_object(pod, content)
    lists: dict[str, list[Json]] = {"configmaps": [], "secrets": [], "projectedvolumesmaps": []}
    for kind, item in _sources(body, content).values():
        if item not in lists[kind]:
            lists[kind].append(item)
    return {"pod": body, **lists, "jobscriptURL": ""}


def retrieved_pod(pod: Pod, content: PodContent) -> Json:
    """Return ``RetrievedPodData``, which a plugin takes: each container with the objects that it mounts."""
    body = pod_object(pod, content)
    sources = _sources(body, content)
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    return {
        "pod": body,
        "container": [_retrieved(container, sources) for container in containers],
        "jobConfig": {},
    }


def _retrieved(container: Container, sources: Mapping[str, tuple[str, Json]]) -> Json:
    names = dict.fromkeys(mount.name for mount in container.volume_mounts)
    mounted = [sources[name] for name in names if name in sources]
    # The types' own spelling: no "s" before "maps" here.
    spelled = {"configmaps": "configMaps", "secrets": "secrets", "projectedvolumesmaps": "projectedvolumemaps"}
    lists = {key: [item for kind, item in mounted if kind == listed] for listed, key in spelled.items()}
    return {"name": container.name, **lists, "emptyDirs": None}


def created_job(answer: object, uid: str) -> str:
    """Return the job's id out of a ``CreateStruct``, or out of a list of one as older plugins answer. WireError."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict) or not isinstance(answer.get("PodJID"), str) or not answer["PodJID"]:
        raise WireError(f"the plugin's answer to create names no job: {answer!r:.300}")
    if answer.get("PodUID") not in (uid, "", None):
        raise WireError(f"the plugin's answer to create is for pod {answer['PodUID']!r:.100}, not for {uid}")
    return str(answer["PodJID"])


# --- status, logs, ping -----------------------------------------------------------------------------------------------


def answer_for(answers: object, uid: str) -> Answer | None:
    """Return what a list of ``PodStatus`` says of one pod; None if nothing, or only of others. WireError."""
    if answers is None:
        return None
    if not isinstance(answers, list):
        raise WireError(f"the plugin's answer to status is no list: {answers!r:.300}")
    for item in answers:
        if isinstance(item, dict) and item.get("UID") == uid:
            containers, inits = item.get("containers") or (), item.get("initContainers") or ()
            if not all(isinstance(status, dict) for status in (*containers, *inits)):
                raise WireError(f"a container's status is no object: {item!r:.300}")
            return Answer(str(item.get("JID") or ""), tuple(containers), tuple(inits))
    return None


def log_request(pod: Pod, container: str, options: LogOptions) -> Json:
    """Return a ``LogStruct``. interLink knows whole seconds, and refuses a byte limit beside a tail: the tail is kept."""
    since = _NO_TIME
    if options.since_time is not None:
        since = datetime.fromtimestamp(int(options.since_time), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    limit = options.limit_bytes if options.tail_lines is None else None
    return {
        "Namespace": pod.metadata.namespace,
        "PodUID": pod.metadata.uid,
        "PodName": pod.metadata.name,
        "ContainerName": container,
        "Opts": {
            "Tail": options.tail_lines or 0,
            "Bytes": limit or 0,
            "Timestamps": options.timestamps,
            "Follow": options.follow,
            "Previous": options.previous,
            "SinceSeconds": 0,
            "SinceTime": since,
        },
    }


def ping_resources(answer: object) -> Mapping[str, str]:
    """Return the resources of a ``PingResponse`` by Kubernetes' names; empty if it tells none."""
    resources = answer.get("resources") if isinstance(answer, dict) else None
    if not isinstance(resources, dict):
        return {}
    result = {key: str(resources[key]) for key in ("cpu", "memory", "pods") if resources.get(key)}
    for accelerator in resources.get("accelerators") or ():
        if isinstance(accelerator, dict) and accelerator.get("resourceType"):
            result[str(accelerator["resourceType"])] = str(accelerator.get("available") or 0)
    return result
