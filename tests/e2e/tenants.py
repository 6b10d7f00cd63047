"""Several Slurm users behind one agent: every way in which a pod's job becomes its own user's, side by side."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from slurmlet.demo import agent_configuration
from testbed.paths import Layout
from testbed.site import users

from .agents import Agent
from .pods import Manifest, Pods, make_pods, manifest
from .sidecars import Sidecar
from .testbed import Testbed
from .waiting import wait_until

USERS = tuple(person.name for person in users.PEOPLE)
BECOME = ["setpriv", "--reuid={user}", "--regid={user}", "--init-groups", "--"]
SUDO = ["sudo", "-n", "-u", "{user}", "--"]
WAYS = ("root", "sudo", "ssh", "rest")
"""A sidecar as root with setpriv; one as an ordinary service with sudo; a login for each user; a login and a token for each."""
SECRET = secrets.token_hex(8)
"""In the environment of agent and sidecars alone."""

_PROCESSES = {"runtime": {"kind": "process"}}  # no container: what is tried is whose the job is


@contextmanager
def private_jobs(testbed: Testbed) -> Iterator[None]:
    """Let Slurm show everybody their own jobs only, in the queue and in accounting."""
    files = "/etc/slurm/slurm.conf /etc/slurm/slurmdbd.conf"
    reread = "scontrol reconfigure && sacctmgr -i reconfigure"
    add = f"for file in {files}; do printf '\\nPrivateData=jobs\\n' >> $file; done"
    testbed.run(*testbed.inside("sh", "-ec", f"{add}; {reread}"))
    try:
        yield
    finally:
        testbed.run(*testbed.inside("sh", "-ec", f"sed -i '/^PrivateData=jobs$/d' {files}; {reread}"))


class EveryWay:
    """One agent with a node for each way, and a namespace for each user. Use it as ``running`` gives it."""

    def __init__(self, testbed: Testbed, agent: Agent, namespaces: dict[str, Pods]) -> None:
        self._testbed = testbed
        self.agent = agent
        self.pods = namespaces
        self._policy = [{"namespaces": [pods.namespace], "user": user} for user, pods in namespaces.items()]
        self._directory = Layout.from_environment().share / "tenancy"
        self._directory.mkdir(exist_ok=True)
        self.sidecars = {
            way: Sidecar(
                testbed, self.node(way), user=user, policy=self._policy, pods=_PROCESSES, environment={"SECRET": SECRET},
                slurm={"host": {"kind": "local", "prefix": prefix}},
            )
            for way, user, prefix in (("root", "root", BECOME), ("sudo", users.SERVICE, SUDO))
        }  # fmt: skip
        agent.settings = self._nodes()

    @staticmethod
    def node(way: str) -> str:
        return f"e2e-tenancy-{way}"

    def _nodes(self) -> dict[str, Any]:
        there = agent_configuration(self._testbed.environment, node="x", port=1, directory=self._directory)["slurm"]
        keys = Path(self._testbed.environment["SLURMLET_TESTBED_SSH_KEY"]).with_name("{user}")
        there["host"] |= {"key_file": str(keys), "user": "nobody"}
        rest = {"kind": "rest", "url": self._testbed.environment["SLURMLET_TESTBED_SLURMRESTD"]}
        slurm = {"ssh": there, "rest": there | {"client": rest | {"token_file": self._tokens()}}}
        nodes: list[dict[str, Any]] = []
        for way in WAYS:
            place: dict[str, Any] = {"cluster": way}
            if way in self.sidecars:
                served = self.sidecars[way]
                place = {"sidecar": {"url": f"unix:{served.socket}", "token_file": str(served.tokens)}}
            nodes.append({"name": self.node(way), **place})
        return {"nodes": nodes, "pods": _PROCESSES, "policy": self._policy,
                "clusters": {way: {"slurm": section | {"root": "{home}/.slurmlet/{node}"}} for way, section in slurm.items()},
                "slurm": {"root": "{home}/.slurmlet/{node}"}}  # fmt: skip

    def _tokens(self) -> str:
        """Have a token for each user, as somebody who keeps them fresh would; returns the template of their files."""
        for user in USERS:
            asked = self._testbed.inside("scontrol", "token", f"username={user}", "lifespan=1800")
            path = self._directory / f"{user}.jwt"
            path.touch(mode=0o600)
            path.write_text(self._testbed.run(*asked).stdout)
        return str(self._directory / "{user}.jwt")

    def pod(self, way: str, user: str, name: str, script: str) -> Manifest:
        """A pod of a user's whose job becomes the user's this way."""
        pod = manifest(name, self.agent, "/bin/sh", "-c", script)
        pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": self.node(way)}
        pod["metadata"]["namespace"] = self.pods[user].namespace
        return pod

    def start(self) -> None:
        for sidecar in self.sidecars.values():
            sidecar.start()
        self.agent.start()
        for way in WAYS:
            wait_until(f"node {self.node(way)} to be Ready", lambda way=way: self._ready(self.node(way)))  # type: ignore[misc]

    def _ready(self, node: str) -> bool:
        found = self._testbed.get("node", node)
        conditions = found["status"].get("conditions", []) if found else []
        well = {condition["type"]: condition["status"] for condition in conditions}
        return (well.get("Ready"), well.get("SlurmReachable")) == ("True", "True")

    def stop(self) -> None:
        self.agent.kill()
        for sidecar in self.sidecars.values():
            sidecar.kill()
        for way in WAYS:
            self._testbed.kubectl("delete", "node", self.node(way), "--ignore-not-found", "--wait=false")


@contextmanager
def every_way(testbed: Testbed) -> Iterator[EveryWay]:
    """Every way at once, up."""
    with ExitStack() as stack:
        makes = contextmanager(make_pods)
        agent = Agent(testbed, "ssh", index=25, environment={"SECRET": SECRET})
        ways = EveryWay(testbed, agent, {user: stack.enter_context(makes(testbed, agent)) for user in USERS})
        stack.callback(ways.stop)
        ways.start()
        yield ways


def environments(testbed: Testbed, user: str) -> Iterator[dict[str, str]]:
    """The environment of every process of a user's on the site; other sites on this machine have users of the same numbers."""
    uid = uid_of(testbed, user)
    site = os.readlink(f"/proc/{testbed.environment['SLURMLET_TESTBED_SITE_PID']}/ns/mnt")
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid and os.readlink(entry / "ns" / "mnt") == site:
                words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                yield dict(word.split("=", 1) for word in words if "=" in word)
        except (FileNotFoundError, ProcessLookupError):
            continue


def uid_of(testbed: Testbed, user: str) -> int:
    """A user's number on the site."""
    return int(testbed.run(*testbed.inside("id", "-u", user)).stdout)


def mode_of(path: Path) -> tuple[int, int]:
    """Whose a directory is, and its permissions."""
    found = os.lstat(path)
    return found.st_uid, found.st_mode & 0o777
