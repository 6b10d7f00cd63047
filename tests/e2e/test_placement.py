"""Several virtual nodes in one agent, one for each part of Slurm: what they offer, whom they take, where jobs go."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slurmlet.demo import agent_configuration

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


def by_rest(testbed: Testbed, agent: Agent, *, url: str | None = None) -> dict[str, Any]:
    """A cluster of an agent's configuration that is spoken to by slurmrestd."""
    slurm = agent_configuration(testbed.environment, node="", port=0, directory=Path())["slurm"]
    rest = {"kind": "rest", "url": url or testbed.environment["SLURMLET_TESTBED_SLURMRESTD"]}
    return {"slurm": slurm | {"client": rest, "images": "{home}/.slurmlet-images"}, "policy": [{}]}


@pytest.fixture(scope="module")
def agent(testbed: Testbed) -> Iterator[Agent]:
    """An agent that is two nodes."""
    agent = Agent(testbed, "ssh", index=15, settings={"policy": [POLICY]})
    agent.settings["nodes"] = [
        {"name": agent.node, "partitions": ["cpu", "low"], "port": agent.port, "capacity": {"refresh_seconds": 2}},
        {"name": f"{agent.node}-gpu", "partitions": ["gpu"], "port": agent.port + 1},
        {"name": f"{agent.node}-other", "cluster": "other", "partitions": ["high"], "port": agent.port + 2},
        {"name": f"{agent.node}-away", "cluster": "away", "port": agent.port + 3},
    ]
    agent.settings["clusters"] = {
        "other": by_rest(testbed, agent),
        "away": by_rest(testbed, agent, url="http://127.0.0.1:1"),
    }
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


def cores_of(testbed: Testbed, job: str) -> set[int]:
    """The CPUs of the one node that a job has."""
    said = testbed.run("scontrol", "show", "job", "-d", job).stdout
    (ids,) = re.findall(r"CPU_IDs=(\S+)", said)
    ranges = [part.partition("-") for part in ids.split(",")]
    return {cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)}


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
    enforced = {what: there[f"slurmlet.io/enforces-{what}"] for what in ("cores", "memory", "devices")}
    assert enforced == {"cores": "false", "memory": "true", "devices": "false"}, "no cgroups here, but OverMemoryKill"
    node = testbed.get("node", gpu.node)
    assert node is not None
    assert node["status"]["capacity"]["cpu"] == "32"
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "6"


def test_a_drained_node_is_no_more_in_allocatable_within_a_minute_and_comes_back(
    testbed: Testbed, agent: Agent, gpu: Part
) -> None:
    def offers(name: str) -> tuple[int, int]:
        node = testbed.get("node", name)
        assert node is not None
        return int(node["status"]["allocatable"]["cpu"]), int(node["metadata"]["labels"]["slurmlet.io/physical-nodes"])

    before, before_there = offers(agent.node), offers(gpu.node)
    testbed.run(*agent.inside("scontrol", "update", "nodename=cn4,gn2", "state=drain", "reason=test"))
    try:
        wait_until("the drain to show", lambda: offers(agent.node) == (before[0] - 320, before[1] - 2))
        # Of the other node, which asks as often as is the default, gn2 alone is a part.
        wait_until("the other drain to show", lambda: offers(gpu.node) == (before_there[0] - 160, 1), seconds=60)
    finally:
        testbed.run(*agent.inside("scontrol", "update", "nodename=cn4,gn2", "state=resume"))
    wait_until("the node to be back", lambda: offers(agent.node) == before)


def test_clusters_of_one_agent_are_told_apart_and_one_that_is_away_is_away_alone(
    pods: Pods, testbed: Testbed, agent: Agent
) -> None:
    """The same slurmctld, reached as another cluster by slurmrestd; and one that nobody answers for."""

    def conditions(name: str) -> dict[str, str]:
        node = testbed.get("node", name) or {"status": {}}
        return {each["type"]: each["status"] for each in node["status"].get("conditions", ())}

    other, away = Part(f"{agent.node}-other"), Part(f"{agent.node}-away")
    pods.apply(manifest("by-rest", other, "true"), manifest("by-nobody", away, "true"))
    assert pods.wait_phase("by-rest", "Succeeded", seconds=120)["phase"] == "Succeeded"
    assert show_job(testbed, job_of(pods, "by-rest"))["partition"] == "high"
    partitions = [key for key in labels(testbed, other.node) if key.startswith("slurmlet.io/partition-")]
    assert partitions == ["slurmlet.io/partition-high"]
    wait_until("one to be away", lambda: conditions(away.node).get("SlurmReachable") == "False")
    found = {name: conditions(name) for name in (agent.node, other.node, away.node)}
    assert {name: (each["Ready"], each["SlurmReachable"]) for name, each in found.items()} == {
        agent.node: ("True", "True"), other.node: ("True", "True"), away.node: ("True", "False"),
    }  # fmt: skip
    assert pods.status("by-nobody")["phase"] == "Pending"
    # Slurm's commands tell what jobs are kept to, slurmrestd does not.
    enforcing = {name: each["SlurmEnforcesResources"] for name, each in found.items()}
    assert enforcing == {agent.node: "False", other.node: "Unknown", away.node: "Unknown"}
    pods.kubectl("delete", "pod", "by-nobody", "--grace-period=0", "--force", "--wait=false")


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """One namespace for all tests here."""
    yield from make_pods(testbed, agent)


def test_a_pod_gets_the_partition_and_the_features_that_it_selects(pods: Pods, gpu: Part, testbed: Testbed) -> None:
    pods.run("plain", "sleep", "300")
    low = manifest("low", pods.agent, "sleep", "300")
    low["spec"]["nodeSelector"] |= {"slurmlet.io/partition-low": "true", "slurmlet.io/feature-cpu": "true"}
    fast = manifest("fast", gpu, "sleep", "300")
    same = manifest("same", gpu, "sleep", "300")
    for pod in (fast, same):
        pod["spec"]["nodeSelector"]["slurmlet.io/feature-nvlink"] = "true"
        pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "2", "memory": "64Mi"}}
    pods.apply(low, fast, same)
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
    pods.wait_phase("same", "Running")
    # Both are Guaranteed, and on one node: neither has a core of the other's.
    assert {pods.status(name)["qosClass"] for name in ("fast", "same")} == {"Guaranteed"}
    cores = [cores_of(testbed, job_of(pods, name)) for name in ("fast", "same")]
    assert ([len(each) for each in cores], cores[0] & cores[1]) == ([2, 2], set())
    pods.kubectl("delete", "pod", "plain", "low", "fast", "same", "--wait=false")


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
