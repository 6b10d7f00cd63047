"""Random pods through the API server, Slurm and Apptainer end as the reference model of the rules says.

With probes, every restart policy and deletions at random moments; all of them are in flight at once. Two hundred more run
without Kubernetes (``tests/slurm_plugin/runner``); SLURMLET_RANDOM_PODS=N makes N other ones here.
"""

import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.slurm_plugin.runner.model import (
    INIT,
    SIDECAR,
    Container,
    End,
    PodSpec,
    phase,
    pod_specs,
    possible,
    predicted,
)

from .agents import Agent
from .pods import Manifest, Pods, make_pods, manifest
from .testbed import Testbed

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("agent", ["ssh"], indirect=True, scope="session")]
TOGETHER = 15
ASKED = os.environ.get("SLURMLET_RANDOM_PODS", "")
SLOWER = 6  # than without Kubernetes, Slurm and Apptainer is everything that a deletion may meet
FINALIZER = "slurmlet.io/test"  # keeps the object, for its last status


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    yield from make_pods(testbed, agent)


def drawn() -> list[PodSpec]:
    """Return the pods: always the same ones, unless others are asked for."""
    found: list[PodSpec] = []

    @settings(
        max_examples=1 + max(2, -(-int(ASKED or 0) // TOGETHER)),
        deadline=None,
        database=None,
        derandomize=not ASKED,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(pod_specs(restarts=1), min_size=TOGETHER, max_size=TOGETHER))  # a second one comes after 10 s
    def draw(specs: list[PodSpec]) -> None:
        found.extend(specs)

    draw()
    return found[TOGETHER:]  # the first example is the simplest there is, so many times


def manifest_of(name: str, spec: PodSpec, agent: Agent) -> Manifest:
    def one(container: Container) -> Manifest:
        made = {
            "name": container.name,
            "image": "busybox:1.36",
            "command": ["sh", "-c", container.script("/files").replace("$(", "$$(")],
            "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        }
        if container.probed:
            healthy = {"command": ["sh", "-c", container.healthy("/files")]}
            made["livenessProbe"] = {"exec": healthy, "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 1}
        return made | ({"restartPolicy": "Always"} if container.kind == SIDECAR else {})

    pod = manifest(name, agent, "true")
    if spec.delete_after is not None:
        pod["metadata"]["finalizers"] = [FINALIZER]
    pod["spec"] |= {
        "restartPolicy": spec.policy,
        "initContainers": [one(each) for each in spec.kind(INIT, SIDECAR)],
        "containers": [one(each) for each in spec.containers if each.kind not in {INIT, SIDECAR}],
        "volumes": [{"name": "files", "emptyDir": {}}],
    }
    return pod


def ended(status: Manifest) -> End:
    return End(status["restartCount"], status["state"].get("terminated", {}).get("exitCode"))


def judge(spec: PodSpec, status: Manifest) -> list[str]:
    """Return what did not go as the model says."""
    statuses = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
    ends = {each["name"]: ended(each) for each in statuses}
    wrong = [] if status["phase"] == phase(spec, ends) else [f"its phase is {status['phase']}: {ends}"]
    exact = predicted(spec) if spec.delete_after is None else {}
    for each in spec.containers:
        if each.name in exact and ends[each.name] != exact[each.name]:
            wrong.append(f"{each.name}: {ends[each.name]} in place of {exact[each.name]}")
        elif ends[each.name] not in possible(spec, each):
            wrong.append(f"{each.name}: {ends[each.name]} is impossible")
    return wrong


def delete_in_time(pods: Pods, moments: list[tuple[float, str]]) -> None:
    """Delete each pod so many seconds after its first status: before it there may be no room for it on the node."""

    def delete(moment: float, name: str) -> None:
        pods.wait(name, "to have a job", lambda status: status["containerStatuses"], seconds=240)
        time.sleep(moment * SLOWER)
        pods.kubectl("delete", "pod", name, "--wait=false")

    with ThreadPoolExecutor(len(moments)) as kubectls:
        list(kubectls.map(delete, *zip(*moments, strict=True)))


@pytest.mark.timeout(3600)
def test_random_pods_end_as_the_model_says(pods: Pods) -> None:
    drawn_pods = drawn()
    for begin in range(0, len(drawn_pods), 2 * TOGETHER):
        specs = {f"random-{secrets.token_hex(4)}": spec for spec in drawn_pods[begin : begin + 2 * TOGETHER]}
        pods.apply(*(manifest_of(name, spec, pods.agent) for name, spec in specs.items()))
        deleted = [(spec.delete_after, name) for name, spec in specs.items() if spec.delete_after is not None]
        delete_in_time(pods, deleted)
        for name, spec in specs.items():
            status = pods.wait_phase(name, "Succeeded", "Failed", seconds=240)
            assert not judge(spec, status), f"{spec}\n{status}"
        for _, name in deleted:
            pods.kubectl("patch", "pod", name, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
        for _, name in deleted:
            pods.wait_gone(name)
