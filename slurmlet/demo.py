"""``slurmlet demo``: a real Kubernetes, a real Slurm, and a pod that runs as a job, on this machine.

The testbed brings up the two systems; what stands between them is started here as a user would start it: the command
``slurmlet vkubelet`` with a configuration file, speaking SSH to the login node as the ordinary user ``alice``.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from testbed import __main__ as testbed_command
from testbed import processes
from testbed.errors import TestbedError
from testbed.kubernetes.account import Kubectl
from testbed.locking import locked
from testbed.paths import Layout
from testbed.ports import Port
from testbed.progress import say, step

AGENT = "slurmlet-vkubelet"
NODE = "slurm"
_PROJECT = Path(__file__).resolve().parents[1]
_PACKAGES = ("slurmlet", "vkubelet", "sidecar", "slurm_plugin")
_EXAMPLE = _PROJECT / "examples" / "hello.yaml"
_POD_SECONDS = 180.0
_READY_SECONDS = 60.0


def agent_configuration(environment: Mapping[str, str], *, node: str, port: int, directory: Path) -> dict[str, Any]:
    """Return a configuration for an agent beside the testbed: SSH to its login node, images from its registry.

    ``environment`` is the testbed's; ``directory`` is where the agent keeps its serving certificate.
    """
    address = environment.get("SLURMLET_TESTBED_AGENT_ADDRESS", "127.0.0.1")
    return {
        "kubernetes": {"kubeconfig": environment["SLURMLET_TESTBED_NODE_KUBECONFIG"]},
        "node": {"name": node, "address": address},
        "api": {"listen": address, "port": port, "certificate_directory": str(directory)},
        "slurm": {
            "host": {
                "kind": "ssh",
                "address": environment["SLURMLET_TESTBED_SSH_HOST"],
                "port": int(environment["SLURMLET_TESTBED_SSH_PORT"]),
                "user": environment["SLURMLET_TESTBED_SSH_USER"],
                "key_file": environment["SLURMLET_TESTBED_SSH_KEY"],
                "known_hosts_file": environment["SLURMLET_TESTBED_SSH_KNOWN_HOSTS"],
            },
        },
        "pods": {
            "registries": [
                {"registry": "docker.io", "mirror": environment["SLURMLET_TESTBED_REGISTRY"], "insecure": True},
                {"registry": environment["SLURMLET_TESTBED_REGISTRY"], "insecure": True},
            ],
        },
    }


def testbed_environment(layout: Layout) -> dict[str, str]:
    """Return the environment in which kubectl and Slurm's commands reach the testbed."""
    variables: dict[str, str] = {}
    for part in testbed_command.components(layout).values():
        variables |= part.environment()
    return {**os.environ, **variables, "PATH": f"{layout.bin}:{os.environ.get('PATH', '/usr/bin:/bin')}"}


def _started_from(configuration: str) -> str:
    """Name all that an agent is started from: its configuration and the project's code, as they are now."""
    files = (path for package in _PACKAGES for path in (_PROJECT / package).rglob("*.py"))
    code = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sorted(files))
    return hashlib.sha256(code + configuration.encode()).hexdigest()


def start_agent(layout: Layout, environment: Mapping[str, str]) -> None:
    """Start the agent; one that lives already is kept if it would be started the same, and replaced if not."""
    directory = layout.state / "agent"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "slurmlet.yaml"
    port = layout.port(Port.AGENT)
    configuration = yaml.safe_dump(agent_configuration(environment, node=NODE, port=port, directory=directory))
    path.write_text(configuration)
    marker, now = directory / "started-from", _started_from(configuration)
    if not marker.exists() or marker.read_text() != now:
        processes.stop(layout, AGENT)
        marker.write_text(now)
    processes.start(
        layout, AGENT, [sys.executable, "-m", "slurmlet", "vkubelet", "--config", str(path)],
        env={**environment, "PYTHONPATH": str(_PROJECT)}, cwd=_PROJECT,
    )  # fmt: skip


def _wait_for_node(layout: Layout, kubectl: Kubectl) -> None:
    def ready() -> bool:
        processes.require(layout, AGENT)
        nodes = json.loads(kubectl("get", "nodes", "--output=json"))["items"]
        status: dict[str, Any] = {"conditions": []}
        status = next((node["status"] for node in nodes if node["metadata"]["name"] == NODE), status)
        true = {condition["type"] for condition in status["conditions"] if condition["status"] == "True"}
        # Slurm's own facts come with its first answer.
        return {"Ready", "SlurmReachable"} <= true and not status["nodeInfo"]["containerRuntimeVersion"].endswith(
            "unknown"
        )

    processes.wait_until("the node to be Ready", ready, timeout_seconds=_READY_SECONDS, log=layout.log(AGENT))


def _follow_pod(kubectl: Kubectl) -> str:
    """Print each change of the pod until it has ended; its phase then."""
    deadline, seen = time.monotonic() + _POD_SECONDS, ""
    while time.monotonic() < deadline:
        pod = json.loads(kubectl("get", "pod", "hello", "--output=json"))
        phase, states = pod["status"]["phase"], pod["status"].get("containerStatuses", [])
        detail = ", ".join(next(iter(state["state"])) for state in states)
        if f"{phase} {detail}" != seen:
            seen = f"{phase} {detail}"
            say(f"  pod/hello  {phase:<10} {detail}")
        if phase in {"Succeeded", "Failed"}:
            return str(phase)
        time.sleep(0.1)
    raise TestbedError("pod/hello did not end; see `kubectl describe pod hello` and the agent's log")


def start() -> int:
    """Bring everything up, run the example and say what to try next. Returns the exit status.

    May be repeated at once, and beside another one: the second waits until the first has shown its pod.
    """
    layout = Layout.from_environment()
    if status := testbed_command.main(["up"]):
        return status
    with locked(layout.lock.with_suffix(".demo")):
        return _show(layout)


def _show(layout: Layout) -> int:
    """Run the example on the testbed that is up, as `start` says."""
    environment = testbed_environment(layout)
    kubectl = Kubectl(layout.bin / "kubectl", Path(environment["KUBECONFIG"]))
    try:
        with step("Registering the Slurm cluster as a node"):
            start_agent(layout, environment)
            _wait_for_node(layout, kubectl)
        say(kubectl("get", "nodes", "--output=wide"))
        kubectl("delete", "pod", "hello", "--ignore-not-found", "--timeout=60s")
        say("$ kubectl apply -f examples/hello.yaml")
        say(kubectl("apply", f"--filename={_EXAMPLE}").rstrip())
        phase = _follow_pod(kubectl)
        say("$ kubectl logs hello")
        say(kubectl("logs", "hello").rstrip())
    except TestbedError as error:
        say(f"demo: {error}\nThe agent's log: {layout.log(AGENT)}")
        return 1
    say(_NEXT)
    return 0 if phase == "Succeeded" else 1


_NEXT = """
Everything is still running. In another shell, from this directory:

    eval "$(.venv/bin/python -m testbed env)"      # sets KUBECONFIG, PATH and SLURM_CONF
    kubectl get nodes -o wide
    kubectl describe node slurm                    # what Slurm offers
    kubectl get pods -o wide                       # the same work, seen from both sides:
    squeue -O JobID,Name:60,State,NodeList; sacct -X -o JobID,JobName%60,State,ExitCode
    kubectl logs -f hello
    kubectl describe pod hello

To stop it all: make down
"""


def stop() -> int:
    """Stop the agent; the testbed has its own ``down``."""
    layout = Layout.from_environment()
    if layout.state.exists():
        with redirect_stdout(StringIO()):
            processes.stop(layout, AGENT)
    return 0
