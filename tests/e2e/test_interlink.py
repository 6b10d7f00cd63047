"""A sidecar as interLink's plugin: raw requests as interLink's programs send them, and our own agent as its client."""

import http.client
import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from .agents import Agent, running
from .pods import SMALL, Pods, make_pods, manifest
from .sidecars import Sidecar
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NODE = "e2e-interlink"


class Asking(http.client.HTTPConnection):
    """interLink's side of the wire, on the plugin's unix socket; GET requests have bodies."""

    def __init__(self, sidecar: Sidecar) -> None:
        super().__init__("plugin", timeout=120)
        self._path = str(sidecar.socket)
        self._token = sidecar.tokens.read_text().strip()

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self._token}", "InterLink-Http-Session": "test#1"}
        try:
            self.request(method, path, None if body is None else json.dumps(body), headers)
            with self.getresponse() as answer:
                return answer.status, answer.read().decode()
        finally:
            self.close()


@pytest.fixture(scope="module")
def sidecar(testbed: Testbed) -> Iterator[Sidecar]:
    sidecar = Sidecar(
        testbed,
        NODE,
        serves="interlink",
        slurm={"images": "{home}/.slurmlet-images"},
        pods={"host_paths": ["/scratch"]},
    )
    sidecar.start()
    yield sidecar
    sidecar.kill()


@pytest.fixture(scope="module")
def remote(testbed: Testbed, sidecar: Sidecar) -> Iterator[Agent]:
    """An agent that knows of an interLink plugin only."""
    plugin = {
        "url": f"unix://{sidecar.socket}",
        "token_file": str(sidecar.tokens),
        "directory": str(sidecar.directory / "given"),
        "poll_seconds": 0.5,
    }
    agent = Agent(testbed, "ssh", index=23, node=NODE, settings={"slurm": None, "interlink": plugin})
    yield from running(agent, seconds=120)


@pytest.fixture
def pods(testbed: Testbed, remote: Agent) -> Iterator[Pods]:
    yield from make_pods(testbed, remote)


def sent(uid: str) -> dict[str, Any]:
    """What interLink's API server sends a plugin: the pod as its virtual kubelet has resolved it, and its objects."""
    script = "cat /conf/greeting; echo $WHO; test -e /keys/deep/key -a -d /shared/alice || exit 9; sleep 1000 & trap 'exit 4' TERM; wait"
    mounts = [{"name": "conf", "mountPath": "/conf"}, {"name": "keys", "mountPath": "/keys"}]
    pod = {
        "metadata": {"name": "raw", "namespace": "physics", "uid": uid, "creationTimestamp": None,
                     "annotations": {"slurm-job.vk.io/image-root": "docker://docker.io/library/",
                                     "slurm-job.vk.io/singularity-mounts": "--bind /scratch:/shared:ro"}},
        "spec": {
            "containers": [{
                "name": "main", "image": "busybox:1.36", "command": ["sh", "-c", script], "resources": SMALL,
                "env": [{"name": "WHO", "value": "interlink"}], "volumeMounts": mounts,
            }],
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 20, "nodeName": "interlink",
            "volumes": [
                {"name": "conf", "configMap": {"name": "conf"}},
                {"name": "keys", "projected": {"sources": [{"secret": {"name": "k"}}]}},
            ],
        },
        "status": {"phase": "Pending"},
    }  # fmt: skip
    conf = {"metadata": {"name": "conf", "creationTimestamp": None}, "data": {"greeting": "hello\n"}}
    keys = {"metadata": {"name": "keys", "creationTimestamp": None}, "data": {"deep/key": "secret"}}
    container = {
        "name": "main", "configMaps": [conf], "projectedvolumemaps": [keys], "secrets": None, "emptyDirs": None,
    }  # fmt: skip
    return {"pod": pod, "container": [container], "jobConfig": {}}


def test_the_requests_of_interlinks_programs_run_a_pod_and_end_it(sidecar: Sidecar) -> None:
    plugin, uid = Asking(sidecar), str(uuid.uuid4())
    body = sent(uid)
    pod = body["pod"]
    wait_until("the site to be known", lambda: plugin.ask("GET", "/status", [pod])[0] == 200, seconds=60)
    ping = json.loads(plugin.ask("GET", "/status", [])[1])
    assert (ping["status"], int(ping["resources"]["cpu"]) > 0) == ("ok", True)
    assert json.loads(plugin.ask("GET", "/system-info")[1])["slurm_connected"]

    code, text = plugin.ask("POST", "/create", body)
    assert code == 200, text
    assert json.loads(text)["PodUID"] == uid
    assert plugin.ask("POST", "/create", body) == (200, text)  # once is enough

    def state() -> Any:
        (status,) = json.loads(plugin.ask("GET", "/status", [pod])[1])
        assert status["JID"] == json.loads(text)["PodJID"]
        return status["containers"][0]["state"]

    wait_until("the container to run", lambda: "running" in state(), seconds=180)
    asked = {"Namespace": "physics", "PodUID": uid, "PodName": "raw", "ContainerName": "main"}
    asked |= {"Opts": {"Tail": 0, "Bytes": 0, "Follow": False, "SinceSeconds": 0, "SinceTime": "0001-01-01T00:00:00Z"}}  # type: ignore[dict-item]
    wait_until("its output", lambda: plugin.ask("GET", "/getLogs", asked) == (200, "hello\ninterlink\n"))

    assert (sidecar.pods / uid).exists()
    assert plugin.ask("POST", "/delete", pod)[0] == 200
    wait_until("what it left to go", lambda: not (sidecar.pods / uid).exists(), seconds=90)
    wait_until("it to be forgotten", lambda: plugin.ask("GET", "/status", [pod]) == (200, "null"))


def test_our_own_agent_runs_pods_through_our_own_plugin(pods: Pods, sidecar: Sidecar) -> None:
    script = "cat /s/word; echo; cat /d/name; echo; echo $LEVEL $WORD; sleep 1000 & trap 'exit 0' TERM; wait"
    pod = manifest("through", pods.agent, "sh", "-c", "exit 0")
    pod["spec"]["containers"] = [
        {
            "name": "main", "image": "busybox:1.36", "resources": SMALL, "command": ["sh", "-c", script],
            "env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "words", "key": "word"}}}],
            "envFrom": [{"configMapRef": {"name": "levels"}}],
            "volumeMounts": [{"name": "s", "mountPath": "/s"}, {"name": "d", "mountPath": "/d"}],
        }
    ]  # fmt: skip
    pod["spec"]["volumes"] = [
        {"name": "s", "secret": {"secretName": "words"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    pods.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "words"}, "stringData": {"word": "sesame"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "levels"}, "data": {"LEVEL": "7"}},
        pod,
    )
    pods.run("ends", "sh", "-c", "exit 3")
    pods.wait_phase("through", "Running", seconds=180)
    wait_until("its output", lambda: pods.kubectl("logs", "through") == "sesame\nthrough\n7 sesame\n")
    pods.wait_phase("ends", "Failed", seconds=180)
    assert pods.terminated("ends")["exitCode"] == 3
    uids = [pods.get(name)["metadata"]["uid"] for name in ("through", "ends")]  # type: ignore[index]
    pods.kubectl("delete", "pod", "through", "ends", "--wait=false")
    for name in ("through", "ends"):
        pods.wait_gone(name, seconds=120)
    wait_until("the directories to go", lambda: not any((sidecar.pods / uid).exists() for uid in uids), seconds=90)
