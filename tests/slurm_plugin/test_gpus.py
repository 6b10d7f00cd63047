from typing import Any

import pytest

from slurm_plugin.annotations import Annotations
from slurm_plugin.config import PodSettings, ResourceMapping
from slurm_plugin.errors import PolicyError, UnsupportedFieldError
from slurm_plugin.gpus import Share, concrete, devices, gpu_type, mapping_of, shares
from slurm_plugin.job import Gres
from slurm_plugin.nodelabels import TERMS
from slurm_plugin.translate import translate

from .manifests import container, make_node, make_pod, make_site

Json = dict[str, Any]
PRODUCT = "nvidia.com/gpu.product"


def gpus(count: int = 1, name: str = "main", resource: str = "nvidia.com/gpu", **fields: Any) -> Json:
    return container(name, resources={"limits": {resource: count}}, **fields)


def affinity(label: str, *values: str, operator: str = "In") -> Json:
    term = {"matchExpressions": [{"key": label, "operator": operator, "values": list(values)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize(
    ("spec", "annotation", "expected"),
    [
        ({}, "", ""),
        ({"nodeSelector": {"slurmlet.io/gpu-type": "a100"}}, "", "a100"),
        ({"nodeSelector": {"slurmlet.io/gpu-type-a100": "true"}}, "", "a100"),
        ({"nodeSelector": {PRODUCT: "NVIDIA-A100-SXM4-80GB"}}, "", "a100"),
        ({"nodeSelector": {PRODUCT: "h100"}}, "", "h100"),
        ({"affinity": affinity(PRODUCT, "NVIDIA-A100-SXM4-80GB")}, "", "a100"),
        ({"affinity": affinity("slurmlet.io/gpu-type", "a100")}, "", "a100"),
        ({"affinity": affinity(PRODUCT, "NVIDIA-A100-SXM4-80GB", "a100")}, "", "a100"),
        ({"affinity": affinity(PRODUCT, operator="Exists")}, "", ""),
        ({"affinity": affinity("slurmlet.io/gpu-type-a100", operator="Exists")}, "", "a100"),
        ({"affinity": affinity("slurmlet.io/gpu-type-a100", "true")}, "", "a100"),
        ({"affinity": affinity("kubernetes.io/arch", "amd64")}, "", ""),
        ({"nodeSelector": {"slurmlet.io/gpu-type": "a100"}}, "h100", "h100"),
    ],
)
def test_the_type_comes_from_the_annotation_or_the_labels_that_the_pod_selects(
    spec: Json, annotation: str, expected: str
) -> None:
    settings = PodSettings(gpu_types={"NVIDIA-A100-SXM4-80GB": "a100"})
    assert gpu_type(make_pod(gpus(), **spec), Annotations(gpu_type=annotation), settings) == expected


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"nodeSelector": {PRODUCT: "a:b"}}, f"spec.nodeSelector[{PRODUCT}]"),
        ({"nodeSelector": {"slurmlet.io/gpu-type-a": "false"}}, "spec.nodeSelector[slurmlet.io/gpu-type-a]"),
        ({"nodeSelector": {"slurmlet.io/gpu-type-a": "true", PRODUCT: "b"}}, f"spec.nodeSelector[{PRODUCT}]"),
        ({"affinity": affinity(PRODUCT, "a100", "h100")}, f"{TERMS}[0].matchExpressions[0]"),
        ({"affinity": affinity(PRODUCT, "a100", operator="NotIn")}, f"{TERMS}[0].matchExpressions[0]"),
        ({"affinity": affinity("slurmlet.io/gpu-type-a", operator="DoesNotExist")}, f"{TERMS}[0].matchExpressions[0]"),
    ],
)
def test_what_can_be_no_one_type_is_refused_by_its_field_unless_no_gpu_is_asked_for(spec: Json, field: str) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        gpu_type(make_pod(gpus(), **spec), Annotations(), PodSettings())
    assert caught.value.field == field
    assert gpu_type(make_pod(**spec), Annotations(), PodSettings()) == ""


def test_a_type_that_is_not_that_of_the_resources_is_refused_but_a_mig_profile_is_of_any() -> None:
    site = make_site(pods={"resources": {"example.org/h100": {"type": "h100"}, "nvidia.com/mig-*": {"type": "*"}}})
    with pytest.raises(UnsupportedFieldError, match="of type h100, but the pod names a100"):
        translate(make_pod(gpus(resource="example.org/h100"), nodeSelector={PRODUCT: "a100"}), site)
    slices = make_pod(gpus(resource="nvidia.com/mig-1g.5gb"), nodeSelector={PRODUCT: "a100"})
    assert translate(slices, site).job.gres == (Gres("gpu", "1g.5gb", 1),)


def test_the_type_reaches_the_job() -> None:
    pod = make_pod(gpus(2), nodeSelector={"slurmlet.io/gpu-type": "a100"})
    assert translate(pod, make_site()).job.gres == (Gres("gpu", "a100", 2),)


@pytest.mark.parametrize("profile", ["1g.5gb", "3g.20gb", "1g.10gb.me", "1c.3g.20gb"])
def test_a_mig_resource_is_a_gpu_of_its_profile(profile: str) -> None:
    mapping = mapping_of(f"nvidia.com/mig-{profile}", PodSettings().resources)
    assert mapping is not None
    assert (mapping.gres, mapping.type, mapping.devices) == ("gpu", profile, "nvidia")
    assert mapping_of("nvidia.com/mig-*", PodSettings().resources) is None or profile != "*"


def test_a_sites_own_name_of_a_profile_takes_the_place_of_the_star() -> None:
    settings = PodSettings.model_validate({"resources": {"nvidia.com/mig-*": {"type": "a100_*", "devices": "nvidia"}}})
    pod = make_pod(gpus(resource="nvidia.com/mig-1g.5gb"))
    assert translate(pod, make_site(pods=settings.model_dump())).job.gres == (Gres("gpu", "a100_1g.5gb", 1),)


def test_a_star_stands_for_nothing_but_a_mig_profile() -> None:
    assert mapping_of("nvidia.com/mig-large", PodSettings().resources) is None


def test_the_clusters_profiles_become_resources_of_the_node() -> None:
    kinds = {("gpu", "a100"), ("gpu", "1g.5gb"), ("gpu", "3g.20gb")}
    assert set(concrete(PodSettings().resources, kinds)) == {
        "nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/mig-3g.20gb"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gres", "nvidia", "amd"),
    [
        ({("gpu", "a100"): 4, ("gpu", "1g.5gb"): 7}, 4, 0),
        ({("gpu", "mi300x"): 8}, 0, 8),
        ({("gpu", "h100"): 2, ("gpu", "gfx90a"): 3, ("gpu", ""): 1}, 3, 3),
        ({("gpu", "1g.5gb"): 7, ("gpu", "a100_3g.20gb"): 2}, 0, 0),
    ],
)
def test_slices_are_no_whole_gpus_and_no_vendor_offers_the_others(
    gres: dict[tuple[str, str], int], nvidia: int, amd: int
) -> None:
    mappings = PodSettings().resources
    node = make_node(gres=gres)
    found = [devices(node, mappings[f"{vendor}.com/gpu"], mappings.values()) for vendor in ("nvidia", "amd")]
    assert found == [nvidia, amd]


def test_a_site_of_one_vendor_needs_no_names_of_types() -> None:
    amd = ResourceMapping(devices="rocm")
    assert devices(make_node(gres={("gpu", "big"): 2, ("gpu", ""): 1}), amd, [amd]) == 3


def test_containers_share_the_devices_out_and_init_containers_use_them_before() -> None:
    pod = make_pod(
        gpus(2, "a"),
        container("none"),
        gpus(1, "b"),
        initContainers=[gpus(3, "init"), gpus(1, "sidecar", restartPolicy="Always"), gpus(2, "later")],
    )
    assert shares(pod, PodSettings()) == {
        "init": Share("nvidia", 0, 3),
        "sidecar": Share("nvidia", 0, 1),
        "later": Share("nvidia", 1, 2),
        "a": Share("nvidia", 1, 2),
        "none": Share("", 3, 0),
        "b": Share("nvidia", 3, 1),
    }


def test_different_kinds_in_different_containers_are_refused() -> None:
    with pytest.raises(UnsupportedFieldError, match="different kinds"):
        shares(make_pod(gpus(1, "a"), gpus(1, "b", "nvidia.com/mig-1g.5gb")), PodSettings())


@pytest.mark.parametrize(
    "resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "amd.com/gpu", "example.org/accelerator"]
)
def test_the_ceiling_counts_every_resource_that_is_a_gpu(resource: str) -> None:
    resources = PodSettings().resources | {"example.org/accelerator": {"gres": "accel", "devices": "rocm"}}
    site = make_site(policy=[{"max_gpus": 1}], pods={"resources": resources})
    with pytest.raises(PolicyError, match="2 GPUs"):
        translate(make_pod(gpus(2, resource=resource)), site)
