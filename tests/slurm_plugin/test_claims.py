"""The site's rules on PersistentVolumes."""

from typing import Any

import pytest
from pydantic import ValidationError

from slurm_plugin.claims import PersistentVolume, Place, place_of
from slurm_plugin.config import VolumeRule
from slurm_plugin.errors import PolicyError
from slurm_plugin.translate import translate

from .manifests import make_pod, make_site

NFS = PersistentVolume("n", "data", "pv-1", "nfs", nfs_server="nfs", path="/export/home/ada")
CSI = PersistentVolume(
    "n", "data", "pv-1", "csi", storage_class="fast", driver="d", handle="h/1", attributes={"share": "/s", "sub": "x"}
)
LOCAL = PersistentVolume("n", "data", "pv-1", "hostPath", path="/data/a")


def place(volume: PersistentVolume, *rules: dict[str, Any]) -> Place:
    return place_of(volume, [VolumeRule.model_validate(rule) for rule in rules], "spec.volumes[0].x")


@pytest.mark.parametrize(
    ("volume", "rule", "path"),
    [
        (NFS, {"nfs": {"server": "nfs", "path": "/export/home"}, "path": "/home/{rest}"}, "/home/ada"),
        (NFS, {"nfs": {"server": "nfs", "path": "/export/home/ada"}, "path": "/ada/{rest}"}, "/ada"),
        (NFS, {"nfs": {"server": "nfs"}, "path": "/nfs/{rest}"}, "/nfs/export/home/ada"),
        (LOCAL, {"host_path": "/data/", "path": "/mnt/{rest}"}, "/mnt/a"),
        (CSI, {"csi": {"driver": "d"}, "path": "/c/{attribute.share}/{attribute.sub}"}, "/c/s/x"),
        (CSI, {"csi": {"driver": "d", "attributes": {"sub": "x"}}, "path": "/c/v-{handle}"}, "/c/v-h/1"),
        (CSI, {"storage_class": "fast", "path": "/f/{namespace}/{claim}/{volume}"}, "/f/n/data/pv-1"),
    ],
)
def test_a_rule_says_where_a_volume_is(volume: PersistentVolume, rule: dict[str, Any], path: str) -> None:
    assert place(volume, rule) == Place(path, read_only=False)


@pytest.mark.parametrize(
    ("volume", "rule"),
    [
        (NFS, {"nfs": {"server": "other"}, "path": "/home/{rest}"}),
        (NFS, {"nfs": {"server": "nfs", "path": "/export/ho"}, "path": "/home/{rest}"}),
        (NFS, {"host_path": "/export", "path": "/home/{rest}"}),
        (CSI, {"csi": {"driver": "d", "attributes": {"sub": "y"}}, "path": "/c"}),
        (CSI, {"csi": {"driver": "d"}, "storage_class": "slow", "path": "/c"}),
        (LOCAL, {"storage_class": "fast", "path": "/f"}),
    ],
)
def test_a_volume_that_no_rule_is_for_is_refused_by_its_field(volume: PersistentVolume, rule: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match=r"spec\.volumes\[0\]\.x: no rule of the site"):
        place(volume, rule)


@pytest.mark.parametrize("value", ["..", "../x", "a/../../x", "/../x", "a/..", "", "/", ".", "a\nb", "a\0b"])
def test_no_value_leads_out_of_a_rules_directory(value: str) -> None:
    volume = PersistentVolume("n", "data", "pv-1", "csi", driver="d", handle=value)
    with pytest.raises(PolicyError):
        place(volume, {"csi": {"driver": "d"}, "path": "/c/{handle}"})


@pytest.mark.parametrize("template", ["/c/..{rest}", "/c/.{rest}.", "/c/{rest}.{rest}.{rest}"])
def test_no_template_and_value_together_lead_out_either(template: str) -> None:
    volume = PersistentVolume("n", "data", "pv-1", "nfs", nfs_server="nfs", path="/e")
    with pytest.raises(PolicyError):
        place(volume, {"nfs": {"server": "nfs", "path": "/e"}, "path": template})


@pytest.mark.parametrize(
    "rule",
    [
        {"path": "/x"}, {"storage_class": "a", "path": "/{claim}"}, {"storage_class": "a", "path": "/x/../y"},
        {"storage_class": "a", "path": "/x/{user}"}, {"storage_class": "a", "path": "x"},
        {"nfs": {"server": "a"}, "host_path": "/x", "path": "/x/{rest}"},
    ],
)  # fmt: skip
def test_a_rule_that_means_nothing_or_everything_is_no_configuration(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VolumeRule.model_validate(rule)


def test_the_first_rule_counts_and_read_only_is_from_either_side() -> None:
    rules = [{"storage_class": "fast", "path": "/f", "read_only": True}, {"csi": {"driver": "d"}, "path": "/c"}]
    assert place(CSI, *rules) == Place("/f", read_only=True)
    assert place(PersistentVolume("n", "c", "p", "csi", read_only=True, driver="d"), *rules) == Place("/c", True)


def test_a_claim_becomes_a_volume_of_the_plan_and_is_read_only_where_it_says_so() -> None:
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
    mounts = [{"name": "v", "mountPath": "/data"}]
    pod = make_pod({"name": "main", "image": "i", "volumeMounts": mounts}, volumes=[claim])
    site = make_site(pods={"persistent_volumes": [{"storage_class": "fast", "path": "/f/{claim}"}]})
    plan = translate(pod, site, claims={"v": CSI}).plan
    assert (plan.volumes[0].kind, plan.volumes[0].path) == ("persistentVolumeClaim", "/f/data")
    assert plan.containers[0].mounts[0].read_only


def test_no_rule_reaches_the_pods_own_directories() -> None:
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": ".slurmlet"}}
    site = make_site(pods={"persistent_volumes": [{"storage_class": "fast", "path": "/home/alice/{claim}"}]})
    bad = PersistentVolume("n", ".slurmlet", "p", "csi", storage_class="fast")
    with pytest.raises(PolicyError, match="files of other pods"):
        translate(make_pod(volumes=[claim]), site, claims={"v": bad})
