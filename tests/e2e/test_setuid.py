"""Pods on a node whose Apptainer is installed setuid root: entered where the runner decides, and not where the site forbids it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .agents import Agent
from .daemons import setuid_apptainer
from .pods import Manifest, Pods, make_pods, manifest
from .test_probes import free_ports
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

NODE, FEATURE = "gn2", "h100"
POLICY = {"policy": [{"constraints": [FEATURE]}]}
NO_USERNS = "--userns=false"
WHOSE = "echo of $(readlink /proc/self/ns/user)"
STAYS = f"{WHOSE}; trap 'echo ended; exit 4' TERM; while :; do sleep 0.2; done"
FORBIDDEN = "a setuid installation made it without a user namespace, for pods.runtime.options has --userns=false"


def placed_pod(name: str, agent: Agent, *containers: dict[str, Any]) -> Manifest:
    made = manifest(name, agent)
    made["metadata"]["annotations"] |= {"slurmlet.io/partition": "gpu", "slurmlet.io/constraint": FEATURE}
    made["spec"]["containers"] = [made["spec"]["containers"][0] | container for container in containers]
    return made


def shell(name: str, script: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "command": ["sh", "-c", script], **fields}


def run(script: str) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", script]}}


def entered_pod(agent: Agent) -> Manifest:
    container = shell(
        "main",
        STAYS,
        lifecycle={"postStart": run("touch /post"), "preStop": run("echo before > /proc/1/fd/1")},
        readinessProbe=run("test -e /post") | {"periodSeconds": 1},
    )
    return placed_pod("entered", agent, container)


def shut_pod(agent: Agent) -> Manifest:
    (port,) = free_ports(1)
    served = {"httpGet": {"port": port, "path": "/bin/true"}, "periodSeconds": 1}
    return placed_pod(
        "shut",
        agent,
        shell("served", f"{WHOSE}; httpd -f -p {port}", readinessProbe=served),
        shell("probed", STAYS, readinessProbe=run("true") | {"periodSeconds": 1}),
        shell("ends", "echo bye > /dev/termination-log; exit 3"),
    )


@pytest.fixture(scope="module")
def places(testbed: Testbed) -> Iterator[dict[str, Pods]]:
    """Two agents, by the options that the site gives Apptainer, each with its pod."""
    agents = {
        option: Agent(testbed, "ssh", index=35 + index, settings=POLICY | {"pods": {"runtime": {"options": options}}})
        for index, (option, options) in enumerate({"": [], NO_USERNS: [NO_USERNS]}.items())
    }
    with ExitStack() as stack:
        for agent in agents.values():
            stack.callback(agent.kill)
            agent.start()
        stack.enter_context(setuid_apptainer(NODE))
        made = {}
        for (option, agent), pod in zip(agents.items(), (entered_pod, shut_pod), strict=True):
            agent.wait_ready()
            made[option] = stack.enter_context(contextmanager(make_pods)(testbed, agent))
            made[option].apply(pod(agent))
        yield made


def own_user_namespace() -> str:
    return f"of {os.readlink('/proc/self/ns/user')}"


def test_a_pod_is_entered_where_apptainer_is_installed_setuid(places: dict[str, Pods], tmp_path: Path) -> None:
    pods = places[""]
    pods.wait("entered", "to be ready", lambda status: status["containerStatuses"][0]["ready"])
    assert pods.kubectl("logs", "entered").startswith("of user:[")
    assert own_user_namespace() not in pods.kubectl("logs", "entered"), "its user namespace is the user's own"
    assert pods.kubectl("exec", "entered", "--", "sh", "-c", f"test -e /post && {WHOSE}") in pods.kubectl(
        "logs", "entered"
    )
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(100_000))
    pods.kubectl("cp", str(sent), "entered:/tmp/sent")
    pods.kubectl("cp", "entered:/tmp/sent", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == sent.read_bytes()
    follow = ("kubectl", f"--namespace={pods.namespace}", "logs", "--follow", "--tail=2", "entered")
    with subprocess.Popen(follow, env=pods.testbed.environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith("of ")
        pods.kubectl("delete", "pod", "entered", "--wait=false")
        said, _ = following.communicate(timeout=60)
    assert said.split() == ["before", "ended"]
    pods.wait_gone("entered")


def test_where_the_site_forbids_it_a_pod_runs_and_what_would_enter_says_why(places: dict[str, Pods]) -> None:
    pods = places[NO_USERNS]

    def as_told(status: Manifest) -> bool:
        found = {each["name"]: each for each in status["containerStatuses"]}
        return bool(found["served"]["ready"] and found["ends"]["state"]["terminated"])

    pods.wait("shut", "to be ready by http, and a container of it to have ended", as_told)
    ending = pods.terminated("shut", "ends")
    assert (ending["exitCode"], ending["message"]) == (3, "bye\n")
    assert pods.kubectl("logs", "shut", "--container=served").strip() == own_user_namespace()
    assert not pods.container("shut", "probed")["ready"]

    def said() -> list[str]:  # of that container: the other's server may not have listened yet when it was first asked
        events = [event for event in pods.events("shut") if "{probed}" in event["involvedObject"].get("fieldPath", "")]
        return [event["message"] for event in events if event["reason"] == "Unhealthy"]

    assert wait_until("the probe's word", said) == [
        f"Readiness probe failed: the container can't be entered: {FORBIDDEN}"
    ]
    words = ("exec", "shut", "--container=served", "--", "true")
    done = pods.testbed.run("kubectl", f"--namespace={pods.namespace}", *words, check=False)
    assert done.returncode != 0
    assert FORBIDDEN in done.stderr
    pods.kubectl("delete", "pod", "shut", "--wait=false")
    pods.wait_gone("shut")
