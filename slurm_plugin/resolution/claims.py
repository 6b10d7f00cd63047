"""A pod's claims: which PersistentVolumeClaims its volumes name, and what the volumes behind them are. Pure.

Rules: ``pkg/kubelet/volumemanager/populator`` of Kubernetes 1.36: a claim that is not bound yet, or to another, is waited
for; a generic ephemeral volume's claim is named after pod and volume, and must be the pod's own.
"""

from collections.abc import Mapping
from typing import Any

from ..claims import PersistentVolume
from ..errors import UnsupportedFieldError
from ..pod import Pod, Volume
from .objects import CLAIM, PERSISTENT_VOLUME, MissingVolumeError, Objects, Reference

_NO_SOURCE = frozenset({
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
})  # fmt: skip


def claim_name(pod: Pod, volume: Volume) -> str | None:
    """Return the name of a volume's claim, None if the volume is no claim."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.metadata.name}-{volume.name}" if volume.ephemeral is not None else None


def claim_references(pod: Pod) -> frozenset[Reference]:
    """Return the pod's claims."""
    names = (claim_name(pod, volume) for volume in pod.spec.volumes)
    return frozenset(Reference(CLAIM, name) for name in names if name)


def volume_references(objects: Objects) -> frozenset[Reference]:
    """Return the PersistentVolumes that claims among the objects name."""
    claims = (body for reference, body in objects.objects.items() if reference.kind == CLAIM and body is not None)
    names = (claim["spec"].get("volumeName") for claim in claims)
    return frozenset(Reference(PERSISTENT_VOLUME, name) for name in names if name)


def claimed_volumes(pod: Pod, objects: Objects) -> dict[str, PersistentVolume]:
    """Return the PersistentVolumes behind the pod's claims, by volume.

    Raises MissingVolumeError while one is not bound, UnsupportedFieldError for what no job can mount.
    """
    found = {}
    for index, volume in enumerate(pod.spec.volumes):
        if (name := claim_name(pod, volume)) is not None:
            path = f"spec.volumes[{index}].{'ephemeral' if volume.ephemeral is not None else 'persistentVolumeClaim'}"
            found[volume.name] = _claimed(pod, volume, name, objects, path)
    return found


def _claimed(pod: Pod, volume: Volume, name: str, objects: Objects, path: str) -> PersistentVolume:
    claim = objects.find(CLAIM, name)
    if claim is None:
        raise MissingVolumeError(f'persistentvolumeclaim "{name}" not found')
    metadata, spec = claim["metadata"], claim["spec"]
    owners = {owner.get("uid") for owner in metadata.get("ownerReferences") or ()}
    if volume.ephemeral is not None and pod.metadata.uid not in owners:
        raise MissingVolumeError(f'persistentvolumeclaim "{name}" was not created for pod {pod.metadata.name}')
    if (claim.get("status") or {}).get("phase") != "Bound" or not spec.get("volumeName"):
        raise MissingVolumeError(f'persistentvolumeclaim "{name}" is not bound')
    if spec.get("volumeMode") == "Block":
        raise UnsupportedFieldError(path, f"persistentvolumeclaim {name} is a block device (volumeMode: Block)")
    body = objects.find(PERSISTENT_VOLUME, spec["volumeName"])
    if body is None:
        raise MissingVolumeError(f'persistentvolume "{spec["volumeName"]}" not found')
    if (body["spec"].get("claimRef") or {}).get("uid") != metadata["uid"]:
        raise MissingVolumeError(f'persistentvolume "{spec["volumeName"]}" is bound to another claim than "{name}"')
    return persistent_volume(pod.metadata.namespace, name, body)


def persistent_volume(namespace: str, claim: str, body: Mapping[str, Any]) -> PersistentVolume:
    """Turn the API server's JSON of a PersistentVolume into what the site's rules look at."""
    spec = body["spec"]
    kind = next((key for key in spec if key not in _NO_SOURCE), "")
    source = spec.get(kind) or {}
    modes = spec.get("accessModes") or ()
    return PersistentVolume(
        namespace=namespace,
        claim=claim,
        name=body["metadata"]["name"],
        source=kind,
        storage_class=spec.get("storageClassName") or "",
        read_only=bool(source.get("readOnly")) or set(modes) == {"ReadOnlyMany"},
        nfs_server=str(source.get("server") or "") if kind == "nfs" else "",
        path=str(source.get("path") or ""),
        driver=str(source.get("driver") or "") if kind == "csi" else "",
        handle=str(source.get("volumeHandle") or ""),
        attributes={str(key): str(value) for key, value in (source.get("volumeAttributes") or {}).items()},
    )
