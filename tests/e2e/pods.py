"""Pods of the tests: manifests, and what happens to them."""

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from .agents import Agent
from .testbed import PROJECT_ROOT, Testbed
from .waiting import wait_until

Manifest = dict[str, Any]


def manifest(name: str, agent: Agent, *command: str, **container: Any) -> Manifest:
    """Return a pod of one busybox container on the agent's node; restartPolicy Never, no token, a small job."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            **placed(agent),
            "containers": [
                {"name": "main", "image": "busybox:1.36", "command": list(command), "resources": SMALL} | container
            ],
        },
    }


SMALL = {"requests": {"cpu": "1", "memory": "64Mi"}}


def placed(agent: Agent) -> dict[str, Any]:
    """Return what puts a pod on the agent's node, and there alone."""
    return {
        "nodeSelector": {"kubernetes.io/hostname": agent.node},
        "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
    }


class Pods:
    """The pods of one test, in a namespace of its own."""

    def __init__(self, testbed: Testbed, agent: Agent, namespace: str) -> None:
        self.testbed = testbed
        self.agent = agent
        self.namespace = namespace

    def kubectl(self, *words: str, **options: Any) -> str:
        """What kubectl prints, in this namespace."""
        return self.testbed.kubectl(f"--namespace={self.namespace}", *words, **options)

    def apply(self, *objects: Manifest) -> None:
        """Create or change objects in this namespace."""
        for item in objects:
            item["metadata"]["namespace"] = self.namespace
        self.testbed.apply(*objects)

    def run(self, name: str, *command: str, **container: Any) -> None:
        """Create a pod of one busybox container."""
        self.apply(manifest(name, self.agent, *command, **container))

    def run_example(self, file: str, name: str) -> None:
        """Create the pod of examples/FILE on this agent's node."""
        pod = yaml.safe_load((PROJECT_ROOT / "examples" / file).read_text(encoding="utf-8"))
        assert pod["metadata"]["name"] == name
        pod["spec"]["nodeSelector"] |= placed(self.agent)["nodeSelector"]
        self.apply(pod)

    def get(self, name: str) -> Manifest | None:
        """The pod, None if there is none."""
        return self.testbed.get("pod", name, self.namespace)

    def status(self, name: str) -> Manifest:
        """The pod's status."""
        pod = self.get(name)
        assert pod is not None, f"no pod {name}"
        status: Manifest = pod["status"]
        return status

    def container(self, name: str, container: str = "main") -> Manifest:
        """The status of one container, {} while there is none."""
        status = self.status(name)
        statuses = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        return next((item for item in statuses if item["name"] == container), {})

    def wait(self, name: str, what: str, check: Callable[[Manifest], Any], *, seconds: float = 60) -> Manifest:
        """Wait until a pod's status is as `check` wants it; the status then.

        A new pod's status says nothing yet of containers: what `check` looks up and does not find is not yet so.
        """

        def checked() -> Manifest | None:
            status = self.status(name)
            try:
                return status if check(status) else None
            except (KeyError, IndexError):
                return None

        try:
            return wait_until(f"pod {name} {what}", checked, seconds=seconds) or {}
        except AssertionError as error:
            pytest.fail(f"{error}\n{json.dumps(self.status(name), indent=1)}\n{self.kubectl('describe', 'pod', name)}")

    def wait_phase(self, name: str, *phases: str, seconds: float = 60) -> Manifest:
        """Wait for a phase; the status then."""
        return self.wait(name, f"to be {' or '.join(phases)}", lambda s: s.get("phase") in phases, seconds=seconds)

    def wait_gone(self, name: str, *, seconds: float = 60) -> None:
        """Wait until the pod object is gone."""
        wait_until(f"pod {name} to be gone", lambda: self.get(name) is None, seconds=seconds)

    def terminated(self, name: str, container: str = "main") -> Manifest:
        """How a container ended."""
        ending: Manifest = self.container(name, container)["state"]["terminated"]
        return ending

    def events(self, name: str) -> list[Manifest]:
        """The pod's events, oldest first."""
        found = self.testbed.looker.items("event", self.namespace, involvedObject__name=name)
        return sorted(found, key=lambda event: event.get("firstTimestamp") or "")

    def wait_event(self, name: str, reason: str, words: str = "", *, about: str = "", seconds: float = 60) -> Manifest:
        """Wait for an event with these words about a pod, or that part (fieldPath) of it: they come after statuses."""

        def wanted(event: Manifest) -> bool:
            part = event["involvedObject"].get("fieldPath", "")
            return event["reason"] == reason and words in event["message"] and about in {"", part}

        return wait_until(
            f"event {reason} {words} of {name} {about}",
            lambda: next(filter(wanted, self.events(name)), {}),
            seconds=seconds,
        )

    def wait_events(self, name: str, *reasons: str, seconds: float = 60) -> None:
        """Wait until a pod has events of all these reasons."""
        wait_until(
            f"events {', '.join(reasons)} of {name}",
            lambda: {*reasons} <= {event["reason"] for event in self.events(name)},
            seconds=seconds,
        )

    def jobs(self, name: str) -> list[str]:
        """The ids of all Slurm jobs that the pod ever had, from the queue and from accounting."""
        pod = self.get(name)
        return [] if pod is None else self.jobs_named(f"{self.namespace}/{name}:{pod['metadata']['uid']}")

    def jobs_named(self, job_name: str) -> list[str]:
        """The ids of all Slurm jobs of one name, from the queue and from accounting."""
        queue = self.testbed.run("squeue", "-h", "-t", "all", "-o", "%i", "--name", job_name).stdout.split()
        accounting = self.testbed.run(
            "sacct", "-n", "-X", "-P", "-o", "jobid", "-S", "now-1hours", "--name", job_name
        ).stdout.split()
        return sorted({*queue, *accounting}, key=int)


def make_pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """A namespace for one test, deleted afterwards."""
    name = f"t-{secrets.token_hex(4)}"
    testbed.looker.make_namespace(name)
    wait_until("the default service account", lambda: testbed.get("serviceaccount", "default", name))
    yield Pods(testbed, agent, name)
    testbed.looker.remove_namespace(name)
