from dataclasses import replace

import pytest

from slurm_plugin.cluster import Enforcement, Partition
from slurm_plugin.config import ResourceMapping
from tests.vkubelet.fakes import cluster, slurm_node
from vkubelet.capacity import allocatable, capacity, largest_node, nothing
from vkubelet.config import CapacitySettings, NodeSettings
from vkubelet.node import NodeFacts, differs, labels, lease, new_node, node_status, with_reachability

NOW = 1_700_000_000.0
GPU = {"nvidia.com/gpu": ResourceMapping(), "a100": ResourceMapping(type="a100"), "h100": ResourceMapping(type="h100")}


def facts(**fields) -> NodeFacts:
    return NodeFacts(**{"settings": NodeSettings(architecture="amd64"), "address": "10.0.0.1", "port": 10250, **fields})


def test_allocatable_is_a_multiple_of_usable_nodes_and_capacity_what_there_is():
    down = slurm_node("cn2", states=frozenset({"DOWN"}), gres={("gpu", "h100"): 8})
    busy = slurm_node("cn3", states=frozenset({"ALLOCATED"}), cpus_allocated=16, gres={("gpu", "a100"): 4})
    there = cluster(slurm_node(), down, busy)
    assert capacity(there, GPU, CapacitySettings()) == {
        "cpu": "48", "memory": "96000Mi", "ephemeral-storage": "3000Mi", "pods": "5000",
        "nvidia.com/gpu": "12", "a100": "4", "h100": "8",
    }  # fmt: skip
    assert allocatable(there, GPU, CapacitySettings()) == {
        "cpu": "320", "memory": "640000Mi", "ephemeral-storage": "20000Mi", "pods": "5000",
        "nvidia.com/gpu": "40", "a100": "40", "h100": "0",
    }  # fmt: skip
    assert allocatable(there, {}, CapacitySettings(mode="physical"))["cpu"] == "32"


def test_nodes_whose_partitions_are_all_down_are_not_allocatable():
    nodes = (slurm_node("a", partitions=frozenset({"cpu"})), slurm_node("b", partitions=frozenset({"cpu", "low"})))
    limits = tuple(Partition(name, name == "cpu", name != "cpu", None, None) for name in ("cpu", "low"))
    there = replace(cluster(*nodes), partitions=limits)
    assert (capacity(there, {}, CapacitySettings())["cpu"], allocatable(there, {}, CapacitySettings())["cpu"]) == (
        "32",
        "160",
    )


def test_a_cluster_without_a_usable_node_offers_nothing():
    there = cluster(slurm_node(states=frozenset({"IDLE", "DRAIN"})))
    assert set(allocatable(there, GPU, CapacitySettings()).values()) == {"0", "0Mi"}
    assert nothing({"cpu": "1"}) == {"cpu": "0"}
    assert largest_node(None)["cpu"] == 0


def test_a_new_node_has_its_taints_from_the_start():
    node = new_node(facts(), NOW)
    assert node["spec"]["taints"] == [{"key": "virtual-kubelet.io/provider", "value": "slurm", "effect": "NoSchedule"}]
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "slurm"


def test_a_new_node_takes_no_pod_before_slurm_was_asked_without_a_taint_that_might_stay():
    node = new_node(facts(slurm_error="not asked yet"), NOW)
    assert node["status"]["allocatable"] == {"pods": "0"}
    assert "slurmlet.io/slurm-unreachable" not in [taint["key"] for taint in node["spec"]["taints"]]


def test_ready_does_not_depend_on_slurm():
    for error in (None, "away"):
        conditions = {c["type"]: c for c in node_status(facts(slurm_error=error), {}, NOW)["conditions"]}
        assert conditions["Ready"]["status"] == "True"
        assert conditions["SlurmReachable"]["status"] == ("True" if error is None else "False")
    assert conditions["SlurmReachable"]["message"] == "away"


@pytest.mark.parametrize(
    ("enforcement", "status", "words"),
    [
        (Enforcement(cores=True, memory=True, devices=True), "True", "cores, memory and devices"),
        (Enforcement(memory=True), "False", "their own cores, devices:"),
        (None, "Unknown", "does not tell"),
    ],
)
def test_a_condition_says_whether_slurm_keeps_jobs_to_what_they_asked_for(enforcement, status, words):
    conditions = {c["type"]: c for c in node_status(facts(enforcement=enforcement), {}, NOW)["conditions"]}
    found = conditions["SlurmEnforcesResources"]
    assert (found["status"], words in found["message"]) == (status, True)


def test_a_condition_keeps_its_transition_until_it_flips():
    before = node_status(facts(slurm_error="away"), {}, NOW)
    later = {c["type"]: c for c in node_status(facts(slurm_error=None), before, NOW + 60)["conditions"]}
    assert later["Ready"]["lastTransitionTime"] == "2023-11-14T22:13:20Z"
    assert later["SlurmReachable"]["lastTransitionTime"] == "2023-11-14T22:14:20Z"


def test_only_a_heartbeat_is_no_difference_and_quantities_compare_by_value():
    offered = {"cpu": "320", "pods": "5000"}
    old = node_status(facts(capacity=offered, allocatable=offered, slurm_error=None), {}, NOW)
    stored = {**old, "allocatable": {"cpu": "320", "pods": "5k"}, "addresses": old["addresses"][:2]}
    stored["conditions"] = [*old["conditions"], {"type": "Foreign", "status": "True"}]
    same = node_status(facts(capacity=offered, allocatable=offered, slurm_error=None), stored, NOW + 100)
    assert not differs(same, stored)
    drained = facts(capacity=offered, allocatable={"cpu": "160", "pods": "5000"}, slurm_error=None)
    assert differs(node_status(drained, stored, NOW), stored)
    assert differs(node_status(facts(capacity=offered, allocatable=offered, slurm_error="x"), stored, NOW), stored)


def test_the_node_declares_that_websockets_may_come_through_and_old_api_servers_that_forget_it_are_not_told_again():
    status = node_status(facts(websockets=True), {}, NOW)
    assert status["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]
    written = {key: value for key, value in status.items() if key != "declaredFeatures"}
    assert not differs(status, written)
    assert differs(status, {**written, "declaredFeatures": ["Other"]})


def test_a_node_without_websockets_takes_back_what_it_declared():
    with_them, without = (node_status(facts(websockets=given), {}, NOW) for given in (True, False))
    assert without["declaredFeatures"] == []
    assert differs(without, with_them)
    assert not differs(without, without)


def test_resources_that_are_no_more_are_removed_and_unknown_ones_kept_while_slurm_was_never_asked():
    old = {"capacity": {"cpu": "1", "gone": "2"}, "allocatable": {"cpu": "1", "gone": "2"}}
    new = node_status(facts(capacity={"cpu": "3"}, allocatable={"cpu": "3"}), old, NOW)
    assert new["capacity"] == {"cpu": "3", "gone": None}
    assert node_status(facts(), old, NOW)["allocatable"] == {"cpu": "1", "gone": "2"}


def test_our_taint_comes_and_goes_and_others_stay():
    foreign = [{"key": "x", "effect": "NoExecute"}]
    tainted = with_reachability(foreign, reachable=False)
    assert [t["key"] for t in tainted] == ["x", "slurmlet.io/slurm-unreachable"]
    assert with_reachability(tainted, reachable=False) == tainted
    assert with_reachability(tainted, reachable=True) == foreign


def test_configured_labels_win():
    settings = NodeSettings(labels={"type": "mine", "site": "x"})
    assert labels(facts(settings=settings))["type"] == "mine"


def test_the_lease_belongs_to_the_node_and_is_in_microseconds():
    made = lease("slurm", "u", NOW + 0.25)
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert made["spec"] == {
        "holderIdentity": "slurm", "leaseDurationSeconds": 40, "renewTime": "2023-11-14T22:13:20.250000Z",
    }  # fmt: skip
