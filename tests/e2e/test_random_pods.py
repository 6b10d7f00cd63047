"""Random pods through the API server, Slurm and Apptainer end as the reference model of the rules says."""

import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.slurm_plugin.runner.model import INIT, SIDECAR, Container, End, PodSpec, phase, pod_specs, predicted

from .agents import Agent
from .pods import Manifest, Pods, make_pods, manifest
from .testbed import Testbed

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("agent", ["ssh"], indirect=True, scope="session")]
COUNT = 15
# One restart comes at once, a second after ten seconds; probes have their own tests.
SPECS = st.lists(pod_specs(restarts=1, probes=False, deletions=False), min_size=COUNT, max_size=COUNT)


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    yield from make_pods(testbed, agent)


def manifest_of(name: str, spec: PodSpec, agent: Agent) -> Manifest:
    def one(container: Container) -> Manifest:
        made = {
            "name": container.name,
            "image": "busybox:1.36",
            "command": ["sh", "-c", container.script("/files").replace("$(", "$$(")],
            "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        }
        return made | ({"restartPolicy": "Always"} if container.kind == SIDECAR else {})

    pod = manifest(name, agent, "true")
    pod["spec"] |= {
        "restartPolicy": spec.policy,
        "initContainers": [one(each) for each in spec.kind(INIT, SIDECAR)],
        "containers": [one(each) for each in spec.containers if each.kind not in {INIT, SIDECAR}],
        "volumes": [{"name": "files", "emptyDir": {}}],
    }
    return pod


def ended(status: Manifest) -> End:
    return End(status["restartCount"], status["state"].get("terminated", {}).get("exitCode"))


def test_random_pods_end_as_the_model_says(pods: Pods) -> None:
    @settings(
        max_examples=2,  # the first is the simplest there is
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SPECS)
    def together(specs: list[PodSpec]) -> None:
        names = [f"random-{secrets.token_hex(4)}" for _ in specs]
        pods.apply(*(manifest_of(name, spec, pods.agent) for name, spec in zip(names, specs, strict=True)))
        for name, spec in zip(names, specs, strict=True):
            status = pods.wait_phase(name, "Succeeded", "Failed", seconds=240)
            statuses = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
            ends = {each["name"]: ended(each) for each in statuses}
            expected = predicted(spec)
            assert {name: ends[name] for name in expected} == expected, spec
            assert status["phase"] == phase(spec, ends), spec

    together()
