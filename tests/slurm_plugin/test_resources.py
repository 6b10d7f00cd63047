from decimal import Decimal
from typing import Any

import pytest

from slurm_plugin.config import PodSettings
from slurm_plugin.errors import InvalidQuantityError, UnsupportedFieldError
from slurm_plugin.gpus import shares
from slurm_plugin.job import Gres
from slurm_plugin.resources import effective, requirements

from .manifests import container, make_pod, requests

Json = dict[str, Any]


def cpus(value: str, **fields: Any) -> Json:
    return container(resources=requests(cpu=value), **fields)


def sidecar(value: str) -> Json:
    return cpus(value, restartPolicy="Always")


@pytest.mark.parametrize(
    ("apps", "inits", "overhead", "total"),
    [
        (["1"], [], "0", "1"),
        (["1", "500m"], [], "0", "1.5"),
        (["1"], [cpus("3")], "0", "3"),
        (["1", "3"], [cpus("3")], "0", "4"),
        (["1"], [cpus("2"), cpus("3"), cpus("1")], "0", "3"),
        (["1"], [sidecar("1")], "0", "2"),
        (["1"], [sidecar("1"), cpus("3")], "0", "4"),
        (["1"], [cpus("3"), sidecar("1")], "0", "3"),
        (["1"], [cpus("3"), sidecar("4")], "0", "5"),
        (["1"], [sidecar("1"), cpus("2"), sidecar("1"), cpus("2")], "0", "4"),
        (["1"], [], "250m", "1.25"),
        (["1"], [cpus("3")], "250m", "3.25"),
    ],
)
def test_the_effective_amount_is_the_schedulers(apps: list[str], inits: list[Json], overhead: str, total: str) -> None:
    containers = [cpus(value, name=f"c{index}") for index, value in enumerate(apps)]
    pod = make_pod(*containers, initContainers=inits, overhead={"cpu": overhead})
    assert effective(pod)["cpu"] == Decimal(total)


def test_a_limit_counts_before_a_request() -> None:
    pod = make_pod(container(resources={"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "4"}}))
    assert effective(pod) == {"cpu": 4, "memory": 2**30}


def test_resources_of_the_pod_replace_the_containers_sum_and_overhead_is_added() -> None:
    pod = make_pod(cpus("1"), cpus("1", name="b"), resources={"limits": {"cpu": "6"}}, overhead={"cpu": "1"})
    assert effective(pod)["cpu"] == 7


def test_a_request_of_the_pod_does_not_lower_what_its_containers_limits_are() -> None:
    pod = make_pod(container(resources={"limits": {"cpu": "8"}}), resources=requests(cpu="4", memory="1Gi"))
    assert effective(pod) == {"cpu": 8, "memory": 2**30}


def test_amounts_become_slurms_units_rounded_up() -> None:
    pod = make_pod(container(resources=requests(cpu="1100m", memory="1", ephemeral_storage="1Gi")))
    need = requirements(pod, PodSettings(overhead_memory_mib=10))
    assert (need.cpus, need.memory_mib, need.tmp_mib, need.gres) == (2, 11, 1024, ())


def test_a_pod_that_asks_for_nothing_gets_the_sites_defaults() -> None:
    assert requirements(make_pod(), PodSettings()) == requirements(make_pod(cpus("0")), PodSettings())
    assert requirements(make_pod(), PodSettings()).memory_mib is None
    need = requirements(make_pod(), PodSettings(default_cpus=3, default_memory_mib=100, overhead_memory_mib=5))
    assert (need.cpus, need.memory_mib, need.tmp_mib) == (3, 105, None)


def gpus(resource: str, count: str | int) -> Json:
    return container(resources={"limits": {resource: count}})


@pytest.mark.parametrize(
    ("resource", "gpu_type", "expected"),
    [
        ("nvidia.com/gpu", "", Gres("gpu", "", 2)),
        ("nvidia.com/gpu", "a100", Gres("gpu", "a100", 2)),
        ("example.org/fpga", "a100", Gres("fpga", "", 2)),
    ],
)
def test_an_extended_resource_is_the_gres_that_the_site_maps_it_to(
    resource: str, gpu_type: str, expected: Gres
) -> None:
    settings = PodSettings.model_validate(
        {
            "resources": {
                "nvidia.com/gpu": {},
                "example.org/h100": {"type": "h100"},
                "example.org/fpga": {"gres": "fpga"},
            }
        }
    )
    assert requirements(make_pod(gpus(resource, "2")), settings, gpu_type=gpu_type).gres == (expected,)


def test_a_resource_that_the_site_does_not_map_is_refused_by_its_path() -> None:
    pod = make_pod(initContainers=[gpus("example.org/x", 1)])
    with pytest.raises(UnsupportedFieldError, match="configured: amd.com/gpu, nvidia.com/gpu") as caught:
        requirements(pod, PodSettings())
    assert caught.value.field == "spec.initContainers[0].resources.limits[example.org/x]"


def test_none_of_an_unknown_resource_is_no_wish() -> None:
    assert requirements(make_pod(gpus("example.org/x", "0")), PodSettings()).gres == ()


def test_half_a_device_is_refused() -> None:
    with pytest.raises(UnsupportedFieldError, match="whole number"):
        requirements(make_pod(gpus("nvidia.com/gpu", "500m")), PodSettings())


@pytest.mark.parametrize(
    ("pod", "field"),
    [
        (make_pod(cpus("x")), "spec.containers[0].resources.requests[cpu]"),
        (make_pod(initContainers=[cpus("x")]), "spec.initContainers[0].resources.requests[cpu]"),
        (make_pod(overhead={"cpu": "x"}), "spec.overhead[cpu]"),
        (make_pod(resources={"limits": {"cpu": "x"}}), "spec.resources.limits[cpu]"),
    ],
)
def test_a_bad_quantity_is_named_by_its_path(pod: Any, field: str) -> None:
    with pytest.raises(InvalidQuantityError) as caught:
        effective(pod)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("resource", "count", "kind"),
    [("nvidia.com/gpu", 1, "nvidia"), ("amd.com/gpu", 1, "rocm"), ("nvidia.com/gpu", 0, ""), ("cpu", 1, "")],
)
def test_only_a_container_that_asks_for_gpus_sees_devices(resource: str, count: int, kind: str) -> None:
    assert shares(make_pod(gpus(resource, count)), PodSettings())["main"].vendor == kind


def test_two_resources_that_are_one_gres_add_up() -> None:
    settings = PodSettings.model_validate({"resources": {"nvidia.com/gpu": {}, "example.org/gpu": {}}})
    pod = make_pod(container(resources={"limits": {"nvidia.com/gpu": 1, "example.org/gpu": 2}}))
    assert requirements(pod, settings).gres == (Gres("gpu", "", 3),)
