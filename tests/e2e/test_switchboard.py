"""Two sites that let nothing in: their sidecars call one agent, which has a node for each."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from tests.sidecar.calls import Lines

from .agents import Agent, running
from .pods import Pods, make_pods, manifest
from .sidecars import Sidecar
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.last, pytest.mark.timeout(600)]

SITES = ("e2e-calls-a", "e2e-calls-b")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return Lines(tmp_path_factory.mktemp("lines"))


@pytest.fixture(scope="module")
def sidecars(testbed: Testbed, lines: Lines) -> Iterator[dict[str, Sidecar]]:
    found = {site: Sidecar(testbed, site, slurm={}, calls=partial(lines.dial, site)) for site in SITES}
    for sidecar in found.values():
        sidecar.start()
    yield found
    for sidecar in found.values():
        sidecar.kill()


@pytest.fixture(scope="module")
def called(testbed: Testbed, sidecars: dict[str, Sidecar], lines: Lines) -> Iterator[Agent]:
    agent = Agent(testbed, "ssh", index=24, node=SITES[0])
    token = str(sidecars[SITES[0]].tokens)
    agent.settings |= {
        "slurm": None,
        "switchboard": lines.settings.model_dump(exclude_none=True),
        "nodes": [
            {"name": site, "port": agent.port + number, "sidecar": {"name": site, "token_file": token}}
            for number, site in enumerate(SITES)
        ],
    }
    yield from running(agent, seconds=120)


@pytest.fixture
def pods(testbed: Testbed, called: Agent) -> Iterator[Pods]:
    yield from make_pods(testbed, called)


def reachable(pods: Pods, site: str) -> tuple[str, str]:
    node = json.loads(pods.kubectl("get", "node", site, "--output=json"))
    found = next((c for c in node["status"].get("conditions", ()) if c["type"] == "SlurmReachable"), {})
    return found.get("status", ""), found.get("message", "")


def helper_ended(pods: Pods, name: str) -> bool:
    statuses = pods.status(name).get("ephemeralContainerStatuses", ())
    return any(status["state"].get("terminated", {}).get("exitCode") == 3 for status in statuses)


def test_pods_run_behind_two_sidecars_and_a_line_that_breaks_loses_nothing(
    pods: Pods, sidecars: dict[str, Sidecar], called: Agent
) -> None:
    waits = "echo begun; until test -e /tmp/go; do sleep 0.2; done; echo went on; exit 3"
    for site in SITES:
        pod = manifest(site, called, "sh", "-c", waits)
        pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] = site
        pods.apply(pod)
    for site in SITES:
        pods.wait_phase(site, "Running", seconds=180)
        wait_until("its first words", lambda site=site: "begun" in pods.kubectl("logs", site))
        assert pods.kubectl("exec", "--stdin", site, "--", "cat", stdin="through\n") == "through\n"
        assert (sidecars[site].pods / pods.get(site)["metadata"]["uid"]).exists()  # type: ignore[index]

    words = ("--image=busybox:1.36", "--container=look", "--", "sh", "-c", "echo seen; exit 3")
    pods.kubectl("debug", SITES[1], *words)
    wait_until("the helper to end", lambda: helper_ended(pods, SITES[1]))
    assert pods.kubectl("logs", SITES[1], "-c", "look") == "seen\n"

    # One line is half open: its sidecar hears nothing and says nothing; then it is killed.
    first, second = SITES
    os.kill(sidecars[first].pid, signal.SIGSTOP)
    wait_until("the node to say so", lambda: reachable(pods, first)[0] == "False", seconds=180)
    assert first in reachable(pods, first)[1]
    assert reachable(pods, second)[0] == "True"
    assert pods.status(first)["phase"] == "Running"
    sidecars[first].kill()
    sidecars[first].start()
    wait_until("the node to say so", lambda: reachable(pods, first)[0] == "True", seconds=180)

    for site in SITES:
        pods.kubectl("exec", site, "--", "touch", "/tmp/go")
    for site in SITES:
        pods.wait_phase(site, "Failed", seconds=120)
        assert pods.terminated(site)["exitCode"] == 3
        assert pods.kubectl("logs", site).split("\n") == ["begun", "went on", ""]
        assert len(pods.jobs(site)) == 1
