"""What a pod's claims are, from the API server's JSON."""

from typing import Any

import pytest

from slurm_plugin.claims import PersistentVolume
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.claims import claim_references, claimed_volumes, persistent_volume, volume_references
from slurm_plugin.resolution.objects import CLAIM, PERSISTENT_VOLUME, MissingVolumeError, Objects, Reference
from vkubelet.kube import Json

CLAIM_BODY: Json = {
    "metadata": {"name": "data", "uid": "c1"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"},
}  # fmt: skip
VOLUME_BODY: Json = {
    "metadata": {"name": "pv"},
    "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "claimRef": {"uid": "c1"},
             "storageClassName": "fast", "nfs": {"server": "s", "path": "/e", "readOnly": True}},
}  # fmt: skip


def pod(**source: Any) -> Pod:
    spec = {"containers": [], "volumes": [{"name": "v", **source}]}
    return Pod.model_validate({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})


def objects(claim: Json | None, volume: Json | None, name: str = "data") -> Objects:
    return Objects(objects={Reference(CLAIM, name): claim, Reference(PERSISTENT_VOLUME, "pv"): volume})


BY_NAME = pod(persistentVolumeClaim={"claimName": "data"})


def test_a_bound_claim_is_its_volume() -> None:
    assert claim_references(BY_NAME) == {Reference(CLAIM, "data")}
    assert volume_references(objects(CLAIM_BODY, None)) == {Reference(PERSISTENT_VOLUME, "pv")}
    assert claimed_volumes(BY_NAME, objects(CLAIM_BODY, VOLUME_BODY)) == {
        "v": PersistentVolume("n", "data", "pv", "nfs", "fast", read_only=True, nfs_server="s", path="/e")
    }


@pytest.mark.parametrize(
    ("claim", "volume", "words"),
    [
        (None, None, 'persistentvolumeclaim "data" not found'),
        (CLAIM_BODY | {"status": {"phase": "Pending"}}, None, "is not bound"),
        (CLAIM_BODY | {"spec": {}}, None, "is not bound"),
        (CLAIM_BODY, None, 'persistentvolume "pv" not found'),
        (CLAIM_BODY, {**VOLUME_BODY, "spec": VOLUME_BODY["spec"] | {"claimRef": {"uid": "c2"}}}, "another claim"),
    ],
)
def test_a_claim_that_is_not_ready_is_waited_for(claim: Json | None, volume: Json | None, words: str) -> None:
    with pytest.raises(MissingVolumeError, match=words):
        claimed_volumes(BY_NAME, objects(claim, volume))


def test_a_block_device_is_refused_by_its_field() -> None:
    claim = CLAIM_BODY | {"spec": {"volumeName": "pv", "volumeMode": "Block"}}
    with pytest.raises(UnsupportedFieldError, match=r"spec\.volumes\[0\]\.persistentVolumeClaim"):
        claimed_volumes(BY_NAME, objects(claim, VOLUME_BODY))


def test_an_ephemeral_volumes_claim_is_the_pods_own() -> None:
    ephemeral = pod(ephemeral={})
    assert claim_references(ephemeral) == {Reference(CLAIM, "p-v")}
    with pytest.raises(MissingVolumeError, match="was not created for pod p"):
        claimed_volumes(ephemeral, objects(CLAIM_BODY, VOLUME_BODY, "p-v"))
    own = {**CLAIM_BODY, "metadata": {"uid": "c1", "ownerReferences": [{"uid": "u"}]}}
    assert claimed_volumes(ephemeral, objects(own, VOLUME_BODY, "p-v"))["v"].name == "pv"


def test_a_csi_volume_has_its_driver_handle_and_attributes() -> None:
    csi = {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"share": "/s"}}
    body = {"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadOnlyMany"], "csi": csi}}
    assert persistent_volume("n", "c", body) == PersistentVolume(
        "n", "c", "pv", "csi", read_only=True, driver="d", handle="h", attributes={"share": "/s"}
    )
