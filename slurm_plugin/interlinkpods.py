"""What interLink's Slurm plugin makes of a pod by its annotations, as the fields that say the same here. Pure.

``image-root`` is put before each image that is no path; ``singularity-mounts``, a directory or ``--bind`` list of the compute nodes, are
host paths in every container. Both are then looked at like any pod's: the site's registries, image paths and host paths
decide, not the annotation.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from .annotations import IMAGE_ROOT, MOUNTS, annotation_path
from .errors import InvalidAnnotationError
from .pod import Container, HostPathSource, Pod, Volume, VolumeMount

_VOLUME = "slurm-job.vk.io"  # followed by a number; no volume of a pod's own has a dot in its name
_BIND = ("--bind", "-B")


@dataclass(frozen=True, slots=True)
class Bind:
    """A path of the compute node's, and where containers see it."""

    source: str
    target: str
    read_only: bool


def as_meant(pod: Pod) -> Pod:
    """Return the pod with the images and mounts that its annotations mean; the pod itself where they mean nothing.

    Raises InvalidAnnotationError for mounts that are none.
    """
    annotations = pod.metadata.annotations
    if IMAGE_ROOT not in annotations and MOUNTS not in annotations:
        return pod
    found = binds(annotations)
    volumes = [Volume(name=f"{_VOLUME}-{n}", host_path=HostPathSource(path=b.source)) for n, b in enumerate(found)]
    mounts = [
        VolumeMount(name=f"{_VOLUME}-{n}", mount_path=bind.target, read_only=bind.read_only)
        for n, bind in enumerate(found)
    ]

    def meant(container: Container) -> Container:
        image = (
            container.image if container.image.startswith("/") else annotations.get(IMAGE_ROOT, "") + container.image
        )
        return container.model_copy(update={"image": image, "volume_mounts": (*container.volume_mounts, *mounts)})

    spec = pod.spec.model_copy(
        update={
            "init_containers": tuple(map(meant, pod.spec.init_containers)),
            "containers": tuple(map(meant, pod.spec.containers)),
            "volumes": (*pod.spec.volumes, *volumes),
        }
    )
    return pod.model_copy(update={"spec": spec})


def binds(annotations: Mapping[str, str]) -> tuple[Bind, ...]:
    """Return the mounts: ``--bind /a:/b:ro,/c``, ``-B /a`` or the list alone."""
    text = annotations.get(MOUNTS, "")
    try:
        words = shlex.split(text)
        lists = [word.removeprefix("--bind=") for word in words if word not in _BIND]
        return tuple(_bind(each) for one in lists for each in one.split(",") if each)
    except ValueError as error:
        raise InvalidAnnotationError(annotation_path(MOUNTS), f"{text!r:.80}: {error}") from error


def _bind(text: str) -> Bind:
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not source.startswith("/") or (target and not target.startswith("/")) or options not in {"", "ro", "rw"}:
        raise ValueError("expected /PATH[:/PATH[:ro|rw]] of the compute nodes, with commas between")
    return Bind(source, target or source, options == "ro")
