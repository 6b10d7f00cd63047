"""The virtual node as the control plane sees it: registered, alive, trusted, and the same one after a restart."""

import contextlib
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from .agents import Agent
from .pods import Pods
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

PATHS = ("/healthz", "/containerLogs/default/p/c", "/exec/default/p/c", "/pods", "/metrics", "/no/such/path", "/")


@pytest.fixture(scope="module")
def mortal(testbed: Testbed) -> Iterator[Agent]:
    """An agent that may be killed."""
    agent = Agent(testbed, "ssh", index=7)
    agent.start()
    agent.wait_ready()
    yield agent
    agent.kill(signal.SIGTERM)
    testbed.kubectl("delete", "node", agent.node, "--ignore-not-found")


def node(testbed: Testbed, agent: Agent) -> dict[str, Any]:
    found = testbed.get("node", agent.node)
    assert found is not None
    return found


def conditions(testbed: Testbed, agent: Agent) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in node(testbed, agent)["status"]["conditions"]}


def renewed(testbed: Testbed, agent: Agent) -> str:
    lease = testbed.get("lease", agent.node, "kube-node-lease")
    assert lease is not None
    return str(lease["spec"]["renewTime"])


def test_the_node_offers_what_slurm_has(testbed: Testbed, agent: Agent) -> None:
    wait_until("capacity", lambda: node(testbed, agent)["status"]["allocatable"].get("cpu", "0") != "0")
    status = node(testbed, agent)["status"]
    assert int(status["allocatable"]["cpu"]) == 10 * int(status["capacity"]["cpu"])
    assert int(status["capacity"]["nvidia.com/gpu"]) > 0
    assert status["nodeInfo"]["kubeletVersion"].startswith("v1.")
    assert status["nodeInfo"]["osImage"].startswith("Slurm ")
    assert set(conditions(testbed, agent)) >= {
        "Ready",
        "MemoryPressure",
        "DiskPressure",
        "PIDPressure",
        "SlurmReachable",
    }
    wait_until("Slurm to answer", lambda: conditions(testbed, agent)["SlurmReachable"]["status"] == "True")
    taints = [taint["key"] for taint in node(testbed, agent)["spec"]["taints"]]
    assert "virtual-kubelet.io/provider" in taints
    wait_until(
        "the taint to go",
        lambda: "slurmlet.io/slurm-unreachable" not in [t["key"] for t in node(testbed, agent)["spec"]["taints"]],
    )


def test_the_lease_is_renewed_and_belongs_to_the_node(testbed: Testbed, agent: Agent) -> None:
    before = renewed(testbed, agent)
    wait_until("a renewal", lambda: renewed(testbed, agent) > before, seconds=20)
    lease = testbed.get("lease", agent.node, "kube-node-lease")
    assert lease is not None
    assert lease["spec"]["leaseDurationSeconds"] == 40
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node(testbed, agent)["metadata"]["uid"]


def answer(agent: Agent, path: str, token: str = "") -> int:
    """The status of a GET on the kubelet's port. Who we speak to is not the matter here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://127.0.0.1:{agent.port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def wait_for_port(agent: Agent) -> None:
    """A node is Ready before its serving certificate is issued."""

    def listens() -> bool:
        with contextlib.suppress(urllib.error.URLError):
            return answer(agent, "/healthz") == 401
        return False

    wait_until("the kubelet's port to be open", listens, seconds=30)


def test_every_path_of_the_port_is_closed_to_strangers_and_to_tokens_without_the_right(
    testbed: Testbed, agent: Agent
) -> None:
    wait_for_port(agent)
    token = testbed.kubectl("create", "token", "default", "--namespace=kube-public").strip()
    assert {path: answer(agent, path) for path in PATHS} == dict.fromkeys(PATHS, 401)
    assert {path: answer(agent, path, "not.a.token") for path in PATHS} == dict.fromkeys(PATHS, 401)
    assert {path: answer(agent, path, token) for path in PATHS} == dict.fromkeys(PATHS, 403)


def test_a_token_with_the_right_gets_in(testbed: Testbed, agent: Agent) -> None:
    wait_for_port(agent)
    name = f"{agent.node}-reader"
    testbed.kubectl("create", "serviceaccount", name, "--namespace=default")
    testbed.kubectl(
        "create",
        "clusterrolebinding",
        name,
        "--clusterrole=system:kubelet-api-admin",
        f"--serviceaccount=default:{name}",
    )
    try:
        token = testbed.kubectl("create", "token", name, "--namespace=default").strip()
        wait_until("the right to be known", lambda: answer(agent, "/healthz", token) == 200, seconds=60, every=1)
        assert answer(agent, "/containerLogs/default/no-such-pod/c", token) == 404
    finally:
        testbed.kubectl("delete", "clusterrolebinding", name)
        testbed.kubectl("delete", "serviceaccount", name, "--namespace=default")


def test_what_others_write_on_the_node_survives_a_restart_and_so_does_the_node(testbed: Testbed, mortal: Agent) -> None:
    testbed.kubectl("label", "node", mortal.node, "example.org/rack=7", "--overwrite")
    testbed.kubectl("annotate", "node", mortal.node, "example.org/note=mine", "--overwrite")
    testbed.kubectl("taint", "node", mortal.node, "example.org/t=1:PreferNoSchedule", "--overwrite")
    before = node(testbed, mortal)
    mortal.kill()
    mortal.start()
    renewal = renewed(testbed, mortal)
    wait_until("the lease to be renewed", lambda: renewed(testbed, mortal) > renewal, seconds=30)
    after = node(testbed, mortal)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["labels"]["example.org/rack"] == "7"
    assert after["metadata"]["annotations"]["example.org/note"] == "mine"
    assert "example.org/t" in [taint["key"] for taint in after["spec"]["taints"]]


def test_a_cordoned_node_stays_cordoned_after_a_restart(testbed: Testbed, mortal: Agent) -> None:
    testbed.kubectl("cordon", mortal.node)
    mortal.kill()
    mortal.start()
    renewal = renewed(testbed, mortal)
    wait_until("the lease to be renewed", lambda: renewed(testbed, mortal) > renewal, seconds=30)
    assert node(testbed, mortal)["spec"]["unschedulable"] is True
    testbed.kubectl("uncordon", mortal.node)


def test_a_deleted_node_is_registered_again(testbed: Testbed, mortal: Agent) -> None:
    before = node(testbed, mortal)["metadata"]["uid"]
    testbed.kubectl("delete", "node", mortal.node)

    def again() -> bool:
        found = testbed.get("node", mortal.node)
        return found is not None and found["metadata"]["uid"] != before

    wait_until("the node to be back", again, seconds=30)


def test_events_carry_the_container_they_are_about(pods: Pods) -> None:
    pods.run("eventful", "true")
    pods.wait_phase("eventful", "Succeeded")
    started = pods.wait_event("eventful", "Started")
    assert started["involvedObject"]["fieldPath"] == "spec.containers{main}"
    assert started["source"]["component"] == "kubelet"
