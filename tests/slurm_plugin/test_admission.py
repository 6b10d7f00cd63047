from dataclasses import replace

import pytest

from slurm_plugin.admission import check_exclusive, check_size, first_that_fits
from slurm_plugin.cluster import Cluster, Partition, SlurmNode
from slurm_plugin.config import PodSettings, PolicyRule
from slurm_plugin.errors import PolicyError, TooLargeError
from slurm_plugin.job import BatchJob, Gres, Layout, Placement

RESOURCES = PodSettings().resources
JOB = BatchJob(
    name="n", directory="/d", archive="/a", archive_digest="0", interpreters=("/p",), cpus=1, memory_mib=1, tmp_mib=None,
    gres=(), time_limit_minutes=None, warning_seconds=1,
)  # fmt: skip


def node(
    name: str, partition: str, *, cpus: int = 16, memory: int = 1000, gpus: int = 0, state: str = "IDLE"
) -> SlurmNode:
    return SlurmNode(
        name=name, states=frozenset({state}), cpus=cpus, cpus_allocated=0, memory_mib=memory, memory_allocated_mib=0,
        tmp_mib=100, gres={("gpu", "a100"): gpus} if gpus else {}, gres_allocated={}, features=frozenset(),
        partitions=frozenset({partition}),
    )  # fmt: skip


CLUSTER = Cluster(
    "c",
    "24.11",
    (Partition("cpu", True, True, None, None), Partition("gpu", False, True, None, None)),
    (node("a", "cpu"), node("b", "cpu", cpus=32, memory=500, state="DOWN"), node("g", "gpu", cpus=8, gpus=4)),
)


def test_more_nodes_than_a_partition_lets_a_job_have_are_refused_with_its_limit() -> None:
    limited = tuple(replace(each, max_nodes=1) for each in CLUSTER.partitions)
    for placement, where in ((Placement(), "the default partition"), (Placement("cpu"), "partition cpu")):
        job = replace(JOB, layout=Layout(2, 2), placement=placement)
        check_size(job, CLUSTER, RESOURCES)
        with pytest.raises(TooLargeError) as caught:
            check_size(job, replace(CLUSTER, partitions=limited), RESOURCES)
        assert f"2 nodes are more than {where} lets a job have (MaxNodes=1)" in str(caught.value)
    by_qos = replace(JOB, layout=Layout(2, 2), placement=Placement("cpu", qos="wide"))
    check_size(by_qos, replace(CLUSTER, partitions=limited), RESOURCES)


@pytest.mark.parametrize(
    ("change", "resource", "words"),
    [
        ({"cpus": 33}, "cpu", "33 CPUs are more than the largest node of the default partition has (32)"),
        ({"memory_mib": 1001}, "memory", "1001 MiB of memory"),
        ({"tmp_mib": 101}, "ephemeral-storage", "101 MiB of temporary space"),
        ({"gres": (Gres("gpu", "", 1),)}, "nvidia.com/gpu", "1 gpu are more than"),
        ({"cpus": 32, "memory_mib": 1000}, "cpu", "no node of the default partition has all"),
        ({"cpus": 9, "placement": Placement("gpu")}, "cpu", "partition gpu has (8)"),
        ({"gres": (Gres("gpu", "h100", 1),), "placement": Placement("gpu")}, "nvidia.com/gpu", "1 gpu h100"),
        ({"gres": (Gres("gpu", "a100", 5),), "placement": Placement("gpu")}, "nvidia.com/gpu", "has (4)"),
        ({"gres": (Gres("shard", "", 1),)}, "shard", "1 shard"),
        ({"layout": Layout(3, 3)}, "nodes", "3 nodes are more than the default partition has (2)"),
    ],
)
def test_a_job_larger_than_the_largest_node_is_refused_by_what_it_lacks(
    change: dict[str, object], resource: str, words: str
) -> None:
    with pytest.raises(TooLargeError) as caught:
        check_size(replace(JOB, **change), CLUSTER, RESOURCES)  # type: ignore[arg-type]
    assert caught.value.resource == resource
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{}, {"cpus": 32, "memory_mib": 500}, {"cpus": 8, "placement": Placement("gpu"), "gres": (Gres("gpu", "", 4),)}],
)  # fmt: skip
def test_a_job_that_a_node_can_hold_passes_also_one_that_is_down(change: dict[str, object]) -> None:
    check_size(replace(JOB, **change), CLUSTER, RESOURCES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "partition"),
    [
        ({}, "cpu"),
        ({"gres": (Gres("gpu", "", 1),)}, "gpu"),
        ({"gres": (Gres("gpu", "h100", 1),)}, "cpu"),  # nowhere: refused as the default one's
        ({"placement": Placement("cpu", constraint="ib&big")}, "gpu"),
        ({"placement": Placement("cpu", constraint="[ib|x]")}, "cpu"),
        ({"layout": Layout(2, 2)}, "cpu"),
        ({"time_limit_minutes": 61}, "gpu"),
    ],
)
def test_a_job_without_a_partition_of_its_own_goes_to_the_first_that_has_what_it_needs(
    change: dict[str, object], partition: str
) -> None:
    nodes = (*CLUSTER.nodes[:2], replace(CLUSTER.nodes[2], features=frozenset({"ib", "big"})))
    limits = (Partition("cpu", True, True, None, 60), Partition("gpu", False, True, None, None))
    job = replace(JOB, **({"placement": Placement("cpu")} | change))  # type: ignore[arg-type]
    there = replace(CLUSTER, nodes=nodes, partitions=limits)
    assert first_that_fits(job, ("cpu", "gpu"), there).placement.partition == partition


def test_a_cluster_of_which_nothing_is_known_refuses_nothing() -> None:
    check_size(replace(JOB, cpus=10**6), Cluster("c", "1", (), ()), RESOURCES)


@pytest.mark.parametrize(
    ("partition", "nodes", "rule"),
    [
        ("cpu", 1, {}),
        ("cpu", 1, {"max_cpus": 32, "max_gpus": 0}),
        ("cpu", 2, {"max_cpus": 48}),
        ("gpu", 1, {"max_cpus": 8, "max_gpus": 4}),
    ],
)
def test_whole_nodes_may_be_all_that_the_ceilings_allow(partition: str, nodes: int, rule: dict[str, int]) -> None:
    whole = replace(JOB, placement=Placement(partition, exclusive=True), layout=Layout(nodes, nodes))
    check_exclusive(whole, PolicyRule.model_validate(rule), CLUSTER, PodSettings())
    check_exclusive(JOB, PolicyRule(max_cpus=1, max_gpus=0), CLUSTER, PodSettings())


@pytest.mark.parametrize(
    ("partition", "nodes", "rule", "cluster", "words"),
    [
        ("cpu", 1, {"max_cpus": 31}, CLUSTER, "up to 32 CPUs"),
        ("cpu", 2, {"max_cpus": 47}, CLUSTER, "up to 48 CPUs"),
        ("gpu", 1, {"max_gpus": 3}, CLUSTER, "up to 4 GPUs"),
        ("gpu", 1, {"max_cpus": 31}, None, "not known"),
        ("gpu", 1, {"max_gpus": 8}, None, "not known"),
    ],
)
def test_whole_nodes_may_not_be_more_than_the_ceilings(
    partition: str, nodes: int, rule: dict[str, int], cluster: Cluster | None, words: str
) -> None:
    whole = replace(JOB, placement=Placement(partition, exclusive=True), layout=Layout(nodes, nodes))
    with pytest.raises(PolicyError, match=words) as caught:
        check_exclusive(whole, PolicyRule.model_validate(rule), cluster, PodSettings())
    assert caught.value.field == "metadata.annotations[slurmlet.io/exclusive]"
