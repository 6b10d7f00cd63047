from typing import Any

import pytest

from slurm_plugin.annotations import Annotations
from slurm_plugin.config import PodSettings
from slurm_plugin.errors import PolicyError, UnsupportedFieldError
from slurm_plugin.gpus import Share, concrete, gpu_type, mapping_of, shares
from slurm_plugin.job import Gres
from slurm_plugin.translate import translate

from .manifests import container, make_pod, make_site

Json = dict[str, Any]
PRODUCT = "nvidia.com/gpu.product"


def gpus(count: int = 1, name: str = "main", resource: str = "nvidia.com/gpu", **fields: Any) -> Json:
    return container(name, resources={"limits": {resource: count}}, **fields)


def affinity(label: str, *values: str) -> Json:
    term = {"matchExpressions": [{"key": label, "operator": "In", "values": list(values)}]}
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
        ({"affinity": affinity("slurmlet.io/gpu-type", "a100", "h100")}, "", ""),
        ({"affinity": affinity("kubernetes.io/arch", "amd64")}, "", ""),
        ({"nodeSelector": {"slurmlet.io/gpu-type": "a100"}}, "h100", "h100"),
    ],
)
def test_the_type_comes_from_the_annotation_or_the_labels_that_the_pod_selects(
    spec: Json, annotation: str, expected: str
) -> None:
    settings = PodSettings(gpu_types={"NVIDIA-A100-SXM4-80GB": "a100"})
    assert gpu_type(make_pod(gpus(), **spec), Annotations(gpu_type=annotation), settings) == expected


def test_a_label_that_is_no_type_is_refused() -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        gpu_type(make_pod(nodeSelector={PRODUCT: "a:b"}), Annotations(), PodSettings())
    assert caught.value.field == f"spec.nodeSelector[{PRODUCT}]"


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
