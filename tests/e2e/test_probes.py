"""25: probes of every kind, of a server in a container, by kubectl: one pod that is well, falls ill and recovers."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .agents import Agent
from .pods import Manifest, Pods, make_pods, manifest
from .testbed import Testbed

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("agent", ["ssh"], indirect=True, scope="module")]
KINDS = ("http", "https", "tcp", "grpc")
SERVER = Path(__file__).with_name("probed.py").read_text(encoding="utf-8")
STAYS = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


def probed_pod(agent: Agent) -> Manifest:
    """A server, and beside it one container for each kind of probe: they share the pod's address."""
    http, https, tcp, grpc = free_ports(len(KINDS))
    actions: dict[str, Any] = {
        "http": {"httpGet": {"port": http, "path": "/x", "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}},
        "https": {"httpGet": {"port": "secure", "path": "/x", "scheme": "HTTPS"}},
        "tcp": {"tcpSocket": {"port": tcp}},
        "grpc": {"grpc": {"port": grpc, "service": "good"}},
    }
    made = manifest("probed", agent)
    server = {"name": "server", "image": "python:3.11-slim", "resources": {"requests": {"cpu": "1", "memory": "512Mi"}},
              "command": ["python3", "-c", SERVER, *map(str, (http, https, tcp, grpc))]}  # fmt: skip
    others = [
        {"name": kind, "image": "busybox:1.36", "command": STAYS, "readinessProbe": {"periodSeconds": 1, "timeoutSeconds": 10} | action}
        for kind, action in actions.items()
    ]  # fmt: skip
    others[1]["ports"] = [{"name": "secure", "containerPort": https}]
    made["spec"]["containers"] = [server, *others]
    for each in made["spec"]["containers"]:
        each["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
    made["spec"]["volumes"] = [{"name": "shared", "emptyDir": {}}]
    return made


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    yield from make_pods(testbed, agent)


def test_25_http_https_tcp_and_grpc_probes_follow_a_real_server_down_and_up_again(pods: Pods) -> None:
    def wait_ready(*names: str) -> None:
        def as_told(status: Manifest) -> bool:
            return {each["name"] for each in status["containerStatuses"] if each["ready"]} == set(names)

        pods.wait("probed", f"to be ready in {names}", as_told, seconds=400)

    pods.apply(probed_pod(pods.agent))
    wait_ready("server", *KINDS)
    pods.kubectl("exec", "probed", "--container=server", "--", "touch", "/shared/sick")
    wait_ready("server")
    words = {"http": "statuscode: 500", "https": "statuscode: 500", "tcp": "connection refused", "grpc": "NOT_SERVING"}
    for kind, word in words.items():
        pods.wait_event("probed", "Unhealthy", word, about=f"spec.containers{{{kind}}}")
    pods.kubectl("exec", "probed", "--container=server", "--", "rm", "/shared/sick")
    wait_ready("server", *KINDS)
    assert "GET /x" in pods.kubectl("logs", "probed", "--container=server")
    assert " yes" in pods.kubectl("logs", "probed", "--container=server")
