"""The examples run as they stand, but for the one line that puts them on the node of the tests' own agent."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from testbed.paths import Layout

from .agents import Agent, running
from .pods import Pods, make_pods, manifest
from .testbed import PROJECT_ROOT, Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

VOLUMES = {"nfs": {"server": "nfs.example.org", "path": "/export"}, "path": "/scratch/alice/{rest}"}
NAMES = ("cpu-job", "sweep", "cronjob", "service", "preemptible", "preemptible-service")


@pytest.fixture(scope="module")
def agent(testbed: Testbed) -> Iterator[Agent]:
    """An agent that is two nodes, the other of them for the GPUs' machines alone."""
    agent = Agent(testbed, "ssh", index=18, settings={"pods": {"persistent_volumes": [VOLUMES]}})
    agent.settings["nodes"] = [
        {"name": agent.node, "port": agent.port},
        {"name": f"{agent.node}-gpu", "partitions": ["gpu"], "port": agent.port + 1},
    ]
    yield from running(agent)


def example(name: str, agent: Agent) -> list[dict[str, Any]]:
    text = (PROJECT_ROOT / "examples" / f"{name}.yaml").read_text("utf-8")
    assert text.count("type: virtual-kubelet\n") == 1
    text = text.replace("type: virtual-kubelet\n", f"kubernetes.io/hostname: {agent.node}\n")
    return list(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """One namespace in which all examples begin together."""
    made = make_pods(testbed, agent)
    pods = next(made)
    pods.apply(*(item for name in NAMES for item in example(name, agent)))
    yield pods
    next(made, None)


def pods_of(pods: Pods, selector: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(pods.kubectl("get", "pods", f"--selector={selector}", "--output=json"))[
        "items"
    ]
    return found


def test_a_cpu_job_has_its_cpus(pods: Pods) -> None:
    pods.kubectl("wait", "job/cpu-job", "--for=condition=complete", "--timeout=55s")
    assert "4 of them are mine" in pods.kubectl("logs", "job/cpu-job")


def test_a_sweep_runs_each_of_its_values_once(pods: Pods) -> None:
    wait_until(
        "the sweep",
        lambda: (pods.testbed.get("job", "sweep", pods.namespace) or {}).get("status", {}).get("succeeded") == 6,
        seconds=180,
    )
    names = [pod["metadata"]["name"] for pod in pods_of(pods, "batch.kubernetes.io/job-name=sweep")]
    said = sorted(pods.kubectl("logs", name).strip() for name in names)
    assert said == sorted(f"alpha={value}" for value in ("0.1", "0.2", "0.5", "1", "2", "5"))


@pytest.mark.parametrize("name", ["web", "preemptible-service"])
def test_a_service_is_available_once_it_answers(pods: Pods, name: str) -> None:
    pods.kubectl("wait", f"deployment/{name}", "--for=condition=available", "--timeout=55s")
    (pod,) = pods_of(pods, f"app={name}")
    assert pod["status"]["containerStatuses"][0]["ready"]


def test_work_that_may_be_preempted_ends_where_nobody_does(pods: Pods) -> None:
    wait_until(
        "it to end",
        lambda: (pods.testbed.get("job", "preemptible", pods.namespace) or {}).get("status", {}).get("succeeded") == 1,
        seconds=150,
    )


def test_what_a_job_writes_to_a_claim_is_there_for_a_pod_on_another_node_and_for_everybody_on_the_site(
    pods: Pods, agent: Agent, testbed: Testbed
) -> None:
    shared = Layout.from_environment().site / "scratch" / "alice" / "shared"
    shared.mkdir(exist_ok=True)
    alice = shared.parent.stat()
    os.chown(shared, alice.st_uid, alice.st_gid)
    try:
        volume, *rest = example("claim", agent)
        testbed.apply(volume)
        pods.apply(*rest)
        pods.kubectl("wait", "job/claim", "--for=condition=complete", "--timeout=110s")
        assert (shared / "result").read_text() == "written by a Slurm job\n"
        reader = manifest("reader", agent, "sh", "-c", "cat /data/result; echo $SLURMD_NODENAME")
        reader["spec"]["nodeSelector"]["kubernetes.io/hostname"] = f"{agent.node}-gpu"
        reader["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data", "readOnly": True}]
        reader["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "shared"}}]
        pods.apply(reader)
        pods.wait_phase("reader", "Succeeded", seconds=120)
        read, where = pods.kubectl("logs", "reader").splitlines()
        assert (read, where[:2]) == ("written by a Slurm job", "gn")
    finally:
        testbed.kubectl("delete", "persistentvolume", "slurmlet-example", "--wait=false", "--ignore-not-found")


def test_a_cronjob_makes_a_job_each_minute(pods: Pods) -> None:
    wait_until(
        "a run of the CronJob",
        lambda: (
            (pods.testbed.get("cronjob", "every-minute", pods.namespace) or {})
            .get("status", {})
            .get("lastSuccessfulTime")
        ),
        seconds=200,
    )
