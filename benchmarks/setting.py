"""Where an experiment takes place: an agent with a node of its own, a namespace, a watch, and nothing left behind."""

import asyncio
import json
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from testbed.site import users
from testbed.site.configuration import SLURM_CONF
from tests.e2e.agents import Agent
from tests.e2e.pods import Manifest, manifest
from tests.e2e.testbed import Testbed
from tests.e2e.waiting import wait_until
from vkubelet.credentials import load_access
from vkubelet.kube import Kube

from .sight import Sight

_CREATIONS_AT_A_TIME = 16
_ENDS_AT_A_TIME = 25
_PARTITION = "slurmlet.io/partition"


class Setting:
    """One experiment's place. ``agent`` runs with DEBUG records; ``sight`` has seen every pod since the beginning.

    ``leavings``: directories to remove at the end.
    """

    def __init__(self, testbed: Testbed, agent: Agent, kube: Kube, namespace: str) -> None:
        self.testbed = testbed
        self.agent = agent
        self.kube = kube
        self.namespace = namespace
        self.sight = Sight(kube, namespace)
        self.leavings: list[Path] = []
        self._watching: asyncio.Task[None] | None = None

    @property
    def root(self) -> Path:
        """The node's root directory on the site, as this machine reaches it."""
        pid = self.testbed.environment["SLURMLET_TESTBED_SITE_PID"]
        return Path(f"/proc/{pid}/root{users.ALICE.home}/.slurmlet/{self.agent.node}")

    def job_directory(self, name: str) -> Path:
        """A pod's job directory."""
        return self.root / "pods" / self.sight.uid(name)

    def cached_image(self, name: str) -> str:
        """The site's path of the image that a running pod's container is of."""
        state = json.loads((self.job_directory(name) / "state.json").read_text())
        plan = json.loads((self.job_directory(name) / "plan.json").read_text())
        digest = state["containers"][0]["image_id"].rpartition("@")[2]
        return f"{plan['images']}/sif/{digest.replace(':', '-')}.sif"

    def pod(self, name: str, partition: str, *command: str) -> Manifest:
        """Return a pod of one container in a partition."""
        pod = manifest(name, self.agent, *command)
        pod["metadata"]["annotations"][_PARTITION] = partition
        return pod

    async def create(self, pods: Sequence[Manifest]) -> float:
        """Create pods, many at a time; returns when the first request was sent."""
        limit = asyncio.Semaphore(_CREATIONS_AT_A_TIME)

        async def one(pod: Manifest) -> None:
            async with limit:
                await self.kube.create(f"/api/v1/namespaces/{self.namespace}/pods", pod)

        begun = time.time()
        await asyncio.gather(*(one(pod) for pod in pods))
        return begun

    def open_eyes(self) -> None:
        """Begin to watch the pods."""
        self._watching = asyncio.create_task(self.sight.run(), name="watch")

    async def close_eyes(self) -> None:
        """Watch no more: it takes CPU that may be what is measured."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def start_agent(self) -> None:
        """Start the agent and wait until its node is Ready."""
        self.agent.start()
        await asyncio.to_thread(self.agent.wait_ready)

    def as_root(self, *argv: str) -> str:
        """Run one of the site's commands as its root; what it printed."""
        return _as_root(self.testbed, *argv)

    def cancel(self, beginning: str) -> None:
        """Cancel every job whose name begins so and wait for that; few at a time, for their ends take CPU too."""

        def none_left() -> bool:
            lines = self.as_root("squeue", "--noheader", "--format=%i %j").splitlines()
            jobs = [line.split()[0] for line in lines if line.split()[1].startswith(beginning)]
            if jobs:
                self.as_root("scancel", *jobs[:_ENDS_AT_A_TIME])
            return not jobs

        wait_until("the benchmark's jobs to end", none_left, seconds=240, every=0.3)

    def stop(self) -> None:
        """End the agent and every job of its pods."""
        self.agent.kill()
        self.cancel(f"{self.namespace}/")

    def resume(self) -> None:
        """Take nodes back that Slurm drained because ending many jobs at once took it too long."""
        for line in self.as_root("sinfo", "--noheader", "--Node", "--states=drain", "--format=%N %E").splitlines():
            node, _, reason = line.partition(" ")
            if "Kill task failed" in reason:
                self.as_root("scontrol", "update", f"nodename={node}", "state=resume")

    def clear(self) -> None:
        """End everything without letting the agent do it, which would take minutes; nothing is left."""
        self.stop()
        self.resume()
        kubectl = self.testbed.kubectl
        kubectl(
            "delete", "pods", "--all", f"--namespace={self.namespace}", "--grace-period=0", "--force", "--wait=false"
        )
        kubectl("delete", "namespace", self.namespace, "--wait=false")
        kubectl("delete", "node", self.agent.node, "--ignore-not-found")
        for directory in (self.root, *self.leavings):
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def partition_down(place: Setting, name: str) -> Iterator[None]:
    """Have no job of a partition start; at the end the agent is dead and the jobs are cancelled before any starts."""
    place.as_root("scontrol", "update", f"partitionname={name}", "state=down")
    try:
        yield
    finally:
        place.stop()
        place.as_root("scontrol", "update", f"partitionname={name}", "state=up")


@contextmanager
def no_sampling(testbed: Testbed) -> Iterator[None]:
    """Have slurmstepd not sample its job's processes for a while.

    Each looks at every process of the machine, here every 10 s; with hundreds of jobs on one machine that alone takes
    more than two CPUs.
    """
    path = Path(f"/proc/{testbed.environment['SLURMLET_TESTBED_SITE_PID']}/root{SLURM_CONF}")
    before = path.read_text()
    path.write_text(re.sub(r"(?m)^(JobAcctGatherFrequency)=.*", r"\1=task=0", before))
    _as_root(testbed, "scontrol", "reconfigure")
    try:
        yield
    finally:
        path.write_text(before)
        _as_root(testbed, "scontrol", "reconfigure")


def _as_root(testbed: Testbed, *argv: str) -> str:
    enter = ("nsenter", "-t", testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
    return testbed.run(*enter, *argv).stdout


@asynccontextmanager
async def setting(
    testbed: Testbed, host: str, *, index: int, settings: dict[str, Any] | None = None
) -> AsyncIterator[Setting]:
    """Set an experiment up and, whatever happens in it, clear it away."""
    agent = Agent(testbed, host, index=index, settings=settings, log_level="DEBUG")
    shutil.rmtree(agent.directory, ignore_errors=True)
    kube = Kube(lambda: load_access(Path(testbed.environment["KUBECONFIG"]), None))
    namespace = f"bench-{secrets.token_hex(4)}"
    place = Setting(testbed, agent, kube, namespace)
    testbed.kubectl("create", "namespace", namespace)
    try:
        await asyncio.to_thread(
            wait_until, "the default service account", lambda: testbed.get("serviceaccount", "default", namespace)
        )
        place.open_eyes()
        try:
            await place.start_agent()
            yield place
        finally:
            await place.close_eyes()
    finally:
        await kube.close()
        await asyncio.to_thread(place.clear)
