from typing import Any

import pytest

from slurm_plugin.cluster import Cluster, Partition
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.nodelabels import Selection, labels, owned, selection
from slurm_plugin.pod import Pod

from .test_admission import node

CPU, GPU = "slurmlet.io/partition-cpu", "slurmlet.io/partition-gpu"
FAST, BIG = "slurmlet.io/feature-fast", "slurmlet.io/feature-big"


def test_the_labels_say_partitions_features_gpus_limits_and_physical_figures() -> None:
    cluster = Cluster(
        "hpc",
        "24.11",
        (Partition("cpu", True, True, None, 60, 4), Partition("gpu", False, True, None, 1440)),
        (node("a", "cpu", cpus=16), node("g", "gpu", cpus=8, gpus=4), node("h", "gpu", gpus=4, state="DOWN")),
    )
    assert labels(cluster) == {
        CPU: "true",
        GPU: "true",
        "slurmlet.io/gpu-type": "a100",
        "slurmlet.io/gpu-type-a100": "true",
        "slurmlet.io/gpu-count-a100": "8",
        "slurmlet.io/cluster": "hpc",
        "slurmlet.io/max-time-minutes": "1440",
        "slurmlet.io/physical-nodes": "2",
        "slurmlet.io/physical-cpus": "24",
        "slurmlet.io/physical-memory-mib": "2000",
        "slurmlet.io/largest-cpus": "16",
        "slurmlet.io/largest-memory-mib": "1000",
    }
    assert all(owned(key) for key in labels(cluster))
    assert not owned("slurmlet.io/mine")
    assert not owned("cluster")


def test_a_name_that_no_label_can_hold_is_left_out() -> None:
    cluster = Cluster(
        "hpc", "1", tuple(Partition(name, False, True, None, None) for name in ("a+b", "x-", "x" * 60)), ()
    )
    assert not any("partition" in key for key in labels(cluster))


def test_a_part_of_a_cluster_has_its_own_partitions_and_nodes() -> None:
    partitions = (Partition("cpu", True, True, None, None), Partition("gpu", False, True, None, None))
    cluster = Cluster("hpc", "1", partitions, (node("a", "cpu"), node("g", "gpu")))
    part = cluster.part(["gpu"])
    assert ([p.name for p in part.partitions], [n.name for n in part.nodes]) == (["gpu"], ["g"])
    assert cluster.part(()) is cluster


def pod(selector: dict[str, str], *terms: list[dict[str, Any]]) -> Pod:
    required = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    spec = {"containers": [], "nodeSelector": selector, "affinity": affinity if terms else None}
    return Pod.model_validate({"metadata": {"name": "p"}, "spec": spec})


@pytest.mark.parametrize(
    ("selector", "terms", "expected"),
    [
        ({"type": "virtual-kubelet"}, [], Selection()),
        ({CPU: "true", FAST: "true"}, [], Selection("cpu", ("fast",))),
        ({FAST: "true"}, [[{"key": BIG, "operator": "Exists"}, {"key": "x", "operator": "NotIn"}]], Selection("", ("big", "fast"))),
        ({}, [[{"key": GPU, "operator": "In", "values": ["true"]}]], Selection("gpu")),
        ({}, [[{"key": "a", "operator": "Exists"}], [{"key": "b", "operator": "Exists"}]], Selection()),
    ],
)  # fmt: skip
def test_labels_that_a_pod_selects_are_its_partition_and_features(
    selector: dict[str, str], terms: Any, expected: Selection
) -> None:
    assert selection(pod(selector, *terms)) == expected


@pytest.mark.parametrize(
    ("selector", "terms"),
    [
        ({FAST: "false"}, []),
        ({CPU: "true", GPU: "true"}, []),
        ({}, [[{"key": FAST, "operator": "DoesNotExist"}]]),
        ({}, [[{"key": FAST, "operator": "In", "values": ["true", "false"]}]]),
        ({}, [[{"key": FAST, "operator": "Exists"}], [{"key": BIG, "operator": "Exists"}]]),
    ],
)
def test_what_slurm_cannot_say_is_refused_by_its_field(selector: dict[str, str], terms: Any) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        selection(pod(selector, *terms))
    assert caught.value.field.startswith(("spec.nodeSelector[", "spec.affinity.nodeAffinity."))
