"""Several virtual nodes in one agent, one for each part of Slurm: what they offer, whom they take, where jobs go."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .agents import Agent
from .pods import Pods, make_pods, manifest
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

POLICY = {"accounts": ["*"], "qos": ["*"], "max_cpus": 12, "constraints": ["cpu", "a100", "nvlink"]}


@dataclass(frozen=True)
class Part:
    """One node of an agent that is several: all that manifests need."""

    node: str


@pytest.fixture(scope="module")
def agent(testbed: Testbed) -> Iterator[Agent]:
    """An agent that is two nodes."""
    agent = Agent(testbed, "ssh", index=15, settings={"policy": [POLICY]})
    agent.settings["nodes"] = [
        {"name": agent.node, "partitions": ["cpu", "low"], "port": agent.port, "capacity": {"refresh_seconds": 2}},
        {"name": f"{agent.node}-gpu", "partitions": ["gpu"], "port": agent.port + 1},
    ]
    agent.start()
    agent.wait_ready()
    wait_until("the labels", lambda: "slurmlet.io/partition-cpu" in labels(testbed, agent.node))
    yield agent
    agent.kill()


@pytest.fixture(scope="module")
def gpu(agent: Agent) -> Part:
    return Part(f"{agent.node}-gpu")


def labels(testbed: Testbed, name: str) -> dict[str, str]:
    node = testbed.get("node", name)
    return dict(node["metadata"]["labels"]) if node else {}


def show_job(testbed: Testbed, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(testbed.run("scontrol", "show", "job", job, "--json").stdout)["jobs"][0]
    return found


def job_of(pods: Pods, name: str) -> str:
    """The job that the agent wrote on a pod."""

    def written() -> str:
        pod = pods.get(name)
        return str(pod["metadata"]["annotations"].get("slurmlet.io/job-id", "")) if pod else ""

    return wait_until(f"the job of {name}", written)


def test_each_node_offers_its_own_part_of_slurm_and_says_so_in_labels(
    testbed: Testbed, agent: Agent, gpu: Part
) -> None:
    wait_until("the other node's labels", lambda: "slurmlet.io/partition-gpu" in labels(testbed, gpu.node))
    here, there = labels(testbed, agent.node), labels(testbed, gpu.node)
    assert "slurmlet.io/partition-gpu" not in here
    assert "slurmlet.io/partition-cpu" not in there
    assert (there["slurmlet.io/gpu-type-a100"], there["slurmlet.io/gpu-count-a100"]) == ("true", "4")
    assert there["slurmlet.io/feature-nvlink"] == "true"
    assert there["slurmlet.io/max-time-minutes"] == "2880"
    assert "slurmlet.io/max-time-minutes" not in here, "partition low has no limit"
    assert there["slurmlet.io/physical-cpus"] == "32"
    node = testbed.get("node", gpu.node)
    assert node is not None
    assert node["status"]["capacity"]["cpu"] == "32"
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "6"


def test_a_drained_node_is_no_more_in_allocatable_and_comes_back(testbed: Testbed, agent: Agent) -> None:
    def offers() -> tuple[str, str]:
        node = testbed.get("node", agent.node)
        assert node is not None
        return node["status"]["allocatable"]["cpu"], node["metadata"]["labels"]["slurmlet.io/physical-nodes"]

    before = offers()
    testbed.run(*agent.inside("scontrol", "update", "nodename=cn4", "state=drain", "reason=test"))
    try:
        wait_until("the drain to show", lambda: offers() == (str(int(before[0]) - 160), str(int(before[1]) - 1)))
    finally:
        testbed.run(*agent.inside("scontrol", "update", "nodename=cn4", "state=resume"))
    wait_until("the node to be back", lambda: offers() == before)


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """One namespace for all tests here."""
    yield from make_pods(testbed, agent)


def test_a_pod_gets_the_partition_and_the_features_that_it_selects(pods: Pods, gpu: Part, testbed: Testbed) -> None:
    pods.run("plain", "sleep", "300")
    low = manifest("low", pods.agent, "sleep", "300")
    low["spec"]["nodeSelector"] |= {"slurmlet.io/partition-low": "true", "slurmlet.io/feature-cpu": "true"}
    fast = manifest("fast", gpu, "sleep", "300")
    fast["spec"]["nodeSelector"]["slurmlet.io/feature-nvlink"] = "true"
    pods.apply(low, fast)
    jobs = {name: show_job(testbed, job_of(pods, name)) for name in ("plain", "low", "fast")}
    assert {name: (job["partition"], job["features"]) for name, job in jobs.items()} == {
        "plain": ("cpu", ""), "low": ("low", "cpu"), "fast": ("gpu", "nvlink"),
    }  # fmt: skip
    pods.wait_phase("fast", "Running")
    pod = wait_until(
        "the nodes", lambda: (p := pods.get("fast")) and "slurmlet.io/job-nodes" in p["metadata"]["annotations"] and p
    )
    assert pod["metadata"]["annotations"]["slurmlet.io/job-nodes"] == "gn1"
    assert pod["metadata"]["annotations"]["slurmlet.io/job-partition"] == "gpu"
    squeue = testbed.run("squeue", "-h", "-j", job_of(pods, "fast"), "-O", "Name:200").stdout.strip()
    assert squeue == f"{pods.namespace}/fast:{pod['metadata']['uid']}"
    pods.kubectl("delete", "pod", "plain", "low", "fast", "--wait=false")


def refused(pods: Pods, name: str, at: Any, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
    pod = manifest(name, at, "true")
    resources = spec.pop("resources", None)
    pod["spec"] |= spec
    pod["metadata"]["annotations"] |= annotations or {}
    if resources:
        pod["spec"]["containers"][0]["resources"] = resources
    pods.apply(pod)


def test_what_can_never_run_is_refused_before_sbatch_in_kubernetes_words(pods: Pods, gpu: Part) -> None:
    bound = {"nodeSelector": {"example.org/no": "such"}, "nodeName": pods.agent.node}
    refused(
        pods,
        "many-cpus",
        gpu,
        annotations={"slurmlet.io/cpus-per-task": "12"},
        resources={"limits": {"memory": "65Gi"}},
    )
    refused(pods, "many-gpus", gpu, resources={"limits": {"nvidia.com/gpu": "5"}})
    refused(pods, "bound", pods.agent, **bound)
    refused(pods, "past-the-policy", pods.agent, resources={"limits": {"cpu": "13"}})
    refused(pods, "whole-node", pods.agent, annotations={"slurmlet.io/exclusive": "true"})
    refused(pods, "elsewhere", pods.agent, annotations={"slurmlet.io/partition": "gpu"})
    refused(pods, "feature", gpu, annotations={"slurmlet.io/constraint": "h100"})
    expected = {
        "many-cpus": ("OutOfmemory", "largest node of partition gpu has (64000)"),
        "many-gpus": ("OutOfnvidia.com/gpu", "5 gpu are more than the largest node of partition gpu has (4)"),
        "bound": ("NodeAffinity", "does not match"),
        "past-the-policy": ("SlurmPolicyDenied", "13 CPUs is more than this namespace may use (12 CPUs)"),
        "whole-node": ("SlurmPolicyDenied", "whole nodes of up to 16 CPUs"),
        "elsewhere": ("SlurmPolicyDenied", "allowed: one of cpu, low"),
        "feature": ("SlurmPolicyDenied", "allowed: one of cpu, a100, nvlink"),
    }
    for name, (reason, words) in expected.items():
        status = pods.wait_phase(name, "Failed")
        assert (status["reason"], words in status["message"]) == (reason, True), (name, status)
        assert pods.jobs(name) == []


def test_a_daemonset_that_tolerates_everything_stays_pending_and_is_told_why(pods: Pods, testbed: Testbed) -> None:
    spec = {"containers": [{"name": "main", "image": "busybox:1.36"}], "tolerations": [{"operator": "Exists"}],
            "nodeSelector": {"kubernetes.io/hostname": pods.agent.node}}  # fmt: skip
    template = {"metadata": {"labels": {"app": "ds"}}, "spec": spec}
    pods.apply({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "ds"},
        "spec": {"selector": {"matchLabels": {"app": "ds"}}, "template": template},
    })  # fmt: skip

    def told() -> str:
        return next((e["involvedObject"]["name"] for e in json.loads(pods.kubectl("get", "events", "--output=json"))["items"]
                     if e["reason"] == "DaemonSetIgnored"), "")  # fmt: skip

    name = wait_until("the event", told)
    status = pods.status(name)
    assert status["phase"] == "Pending"
    assert "does not tolerate the taint" in status["conditions"][0]["message"] + json.dumps(status)
    assert pods.jobs(name) == []
    pods.kubectl("delete", "daemonset", "ds", "--wait=false")


def test_a_pod_waits_for_the_jobs_of_other_pods_on_any_node_of_the_cluster(
    pods: Pods, gpu: Part, testbed: Testbed
) -> None:
    after = manifest("after", pods.agent, "true")
    after["metadata"]["annotations"]["slurmlet.io/dependency"] = "afterok:first,afterany:second"
    never = manifest("never", pods.agent, "true")
    never["metadata"]["annotations"]["slurmlet.io/dependency"] = "afternotok:first"
    pods.apply(after, never)
    pods.wait("after", "to wait for them", lambda s: "waits for a Slurm job of pod first, second" in json.dumps(s))
    pods.apply(manifest("second", gpu, "false"), manifest("first", pods.agent, "sh", "-c", "sleep 6"))
    dependency = wait_until("its job", lambda: show_job(testbed, job_of(pods, "after"))["dependency"])
    assert f"afterok:{job_of(pods, 'first')}" in dependency
    assert pods.wait_phase("first", "Succeeded")["phase"] == "Succeeded"
    pods.wait_phase("after", "Succeeded")
    pods.wait("never", "to never be satisfied", lambda s: "DependencyNeverSatisfied" in json.dumps(s))
    pods.kubectl("delete", "pod", "never", "--timeout=60s")
