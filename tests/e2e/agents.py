"""Node agents under test: `slurmlet vkubelet` processes beside the testbed, started, killed and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from slurmlet.demo import agent_configuration
from testbed.kubernetes.control_plane import ControlPlane
from testbed.kubernetes.kubeconfig import write_kubeconfig
from testbed.paths import Layout
from testbed.ports import Port
from testbed.site import users

from .runtimes import program
from .testbed import PROJECT_ROOT, Testbed
from .waiting import wait_until

SITE_PYTHON = "/opt/slurmlet/venv/bin/python"


def service(user: str, **environment: str) -> tuple[str, ...]:
    """Return what runs Python on the login node as a service of a user, which ends with the tests, however they end."""
    home = {"root": "/root", users.SERVICE: users.SERVICE_HOME}.get(user, f"/home/{user}")
    variables = {"HOME": home, "USER": user, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"} | environment
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--pdeathsig=KILL", "--")
    return *become, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), SITE_PYTHON


class Agent:
    """One agent, with a node of its own. ``host`` is ``ssh`` (it runs on this machine) or ``local`` (on the login node).

    ``user``: whose process it is on the login node. ``identity``: ``account`` is the ServiceAccount of examples/rbac.yaml,
    ``node`` is ``system:node:NAME``, as a kubelet has it. ``node``: whose node it is to be, its own by default.
    ``ssh_port``, ``api_port``: loopback ports that lead to the login node and to the API server. ``environment``: its own, beyond the usual. ``index``: below 50, unique among agents of one test process that run at once; several processes share a testbed.
    """

    def __init__(
        self,
        testbed: Testbed,
        host: str,
        *,
        index: int,
        settings: dict[str, Any] | None = None,
        log_level: str = "INFO",
        ssh_port: int | None = None,
        api_port: int | None = None,
        user: str = "alice",
        identity: str = "account",
        node: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        index += 50 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self.testbed = testbed
        self.host = host
        self.node = node or f"e2e-{host}-{index}"
        self.port = Layout.from_environment().port(Port.AGENT, index)
        self.settings = settings or {}
        self._ssh_port = ssh_port
        self._api_port = api_port
        self._log_level = log_level
        self._user = user
        self._environment = environment or {}
        self.identity = identity
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0
        self.directory = Layout.from_environment().share / "agents" / f"e2e-{host}-{index}"
        self.log = self.directory / "agent.log"

    def __repr__(self) -> str:
        return f"Agent({self.host})"

    def _write_configuration(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = agent_configuration(
            self.testbed.environment, node=self.node, port=self.port, directory=self.directory / "certificates"
        )
        if self.host == "local":
            configuration["slurm"]["host"] = {"kind": "local"}
        elif self._ssh_port is not None:
            configuration["slurm"]["host"] |= {"port": self._ssh_port, "known_hosts_file": str(self._known_hosts())}
        uid = self._uid() if self.host == "local" else os.getuid()
        kubeconfig = self.directory / "kubeconfig"
        control_plane = ControlPlane(Layout.from_environment())
        if self.identity == "node":
            text = control_plane.node_kubeconfig(self.node).read_text()
            write_kubeconfig(kubeconfig, text, uid=uid, gid=uid)
            # It may not read the ConfigMap that the cluster publishes its client CA in.
            configuration["api"]["client_ca_file"] = self.testbed.environment["SLURMLET_TESTBED_KUBELET_CLIENT_CA"]
        else:
            control_plane.write_agent_kubeconfig(kubeconfig, uid=uid, gid=uid)
        if self._api_port is not None:
            own = Layout.from_environment().endpoint(Port.API_SERVER)
            kubeconfig.write_text(
                kubeconfig.read_text().replace(f"https://{own}", f"https://127.0.0.1:{self._api_port}")
            )
        configuration["kubernetes"] = {"kubeconfig": str(kubeconfig)}
        configuration["pods"]["runtime"] = {"executable": program()}
        configuration["slurm"]["images"] = "{home}/.slurmlet-images"  # each agent's own would cost minutes
        for section, values in self.settings.items():
            configuration[section] = configuration.get(section, {}) | values if isinstance(values, dict) else values
        configuration = {section: values for section, values in configuration.items() if values is not None}
        path = self.directory / "slurmlet.yaml"
        path.write_text(yaml.safe_dump(configuration))
        for entry in (self.directory, path):
            os.chown(entry, uid, uid)
        return path

    def _known_hosts(self) -> Path:
        """The login node's key, under the port that leads to it."""
        environment = self.testbed.environment
        known = Path(environment["SLURMLET_TESTBED_SSH_KNOWN_HOSTS"]).read_text()
        path = self.directory / "known_hosts"
        path.write_text(known.replace(f"]:{environment['SLURMLET_TESTBED_SSH_PORT']} ", f"]:{self._ssh_port} "))
        return path

    def _uid(self) -> int:
        return int(self.testbed.run(*self.inside("id", "-u", self._user)).stdout)

    def inside(self, *argv: str) -> tuple[str, ...]:
        """Return the command that runs another one on the login node, as root."""
        return self.testbed.inside(*argv)

    def _argv(self, configuration: Path) -> tuple[str, ...]:
        words = ("-m", "slurmlet", "vkubelet", "--config", str(configuration), "--log-level", self._log_level)
        # It ends with the tests, however they end.
        if self.host == "ssh":
            return ("setpriv", "--pdeathsig=KILL", "--", sys.executable, *words)
        return self.inside(*service(self._user, **self._environment), *words)

    def start(self) -> None:
        """Start it; `wait_ready` waits for its node."""
        assert self._process is None or self._process.poll() is not None, f"{self} is running"
        argv = self._argv(self._write_configuration())
        self._begun = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=PROJECT_ROOT, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT), **self._environment},
            )  # fmt: skip

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait until this agent knows the site's pods and the API server says that the node is Ready."""
        wait_until(f"node {self.node} to be Ready (log: {self.log})", self._ready, seconds=seconds)

    def _ready(self) -> bool:
        assert self._process is not None, f"{self} was not started"
        said = self.log.read_bytes()[self._begun :].decode(errors="replace")
        assert self._process.poll() is None, f"{self} ended: {said[-3000:]}"
        if "the provider knows" not in said:
            return False  # what the API server says is of the agent before
        node = self.testbed.get("node", self.node)
        conditions = node["status"].get("conditions", []) if node else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """End it at once, or by another signal, and wait for that."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal_number)
            self._process.wait(30)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid


def running(agent: Agent, *, seconds: float = 60) -> Iterator[Agent]:
    """Start an agent, wait until its node is Ready, and end it afterwards."""
    agent.start()
    agent.wait_ready(seconds)
    yield agent
    agent.kill()
