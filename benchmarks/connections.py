"""The ways to Slurm side by side, at the provider, without Kubernetes: what each costs to submit, to watch and to ask.

Submissions are compared with plain sbatch into the same partition, which is down, so that no job starts. Bytes are counted
on the line itself (a proxy), while one user has a thousand and more jobs in the queue.
"""

import asyncio
import re
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.clients.command import CommandClient
from slurm_plugin.clients.rest.client import RestClient
from slurm_plugin.clients.rest.connection import Address, Connection
from slurm_plugin.clients.rest.tokens import HostTokens
from slurm_plugin.contract import PodContent, PodReport, Provider, Snapshot
from slurm_plugin.hosts.base import Host
from slurm_plugin.pod import Pod
from slurm_plugin.runner.state import Running, Terminated
from testbed.site import users
from tests.e2e import ways
from tests.e2e.test_command_client import on_the_login_node
from tests.e2e.testbed import Testbed

from .plain import SUBMISSIONS_AT_A_TIME, Plain
from .report import Measure, Result, quantile
from .scale import Fifos

CONNECTIONS = {
    "local": partial(ways.slurm, client="command", host="local"),
    "ssh": partial(ways.slurm, client="command", host="ssh"),
    "slurmrestd": partial(ways.slurm, client="rest", host="local"),
    "sidecar": ways.sidecar,
}
_PARTITION = "many"
_ANNOTATION = "slurmlet.io/partition"
_WINDOW_SECONDS = 20.0
_PATIENCE_SECONDS = 300.0
_LOOKS = 10
_BY_USER = re.compile(r"^\s+(\S+)\s+\(\s*\d+\)\s+count:(\d+)", re.MULTILINE)


async def measure(testbed: Testbed, connection: str, *, count: int, changes: int) -> Result:
    """Submit ``count`` pods to a partition that is down; let ``changes`` others run, and end them one by one."""
    with (
        tempfile.TemporaryDirectory() as directory,
        CONNECTIONS[connection](testbed, directory=Path(directory)) as way,
    ):
        measures = [*await _submissions(testbed, way, count), *await _watching(testbed, way, changes)]
    return Result("connections", connection, f"{count} submissions, {changes} pods that run", tuple(measures))


async def measure_bytes(testbed: Testbed, *, levels: Sequence[int]) -> Result:
    """Ask for all jobs of a user who has so many, over SSH and through slurmrestd; count what that takes."""
    measures = []
    with tempfile.TemporaryDirectory() as directory, _down(testbed), Plain(testbed) as plain:
        there = 0
        for level in levels:
            await plain.submit(_PARTITION, level - there)
            there = level
            for name in ("ssh", "slurmrestd"):
                size, seconds = await _looks(testbed, name, Path(directory))
                measures.append(Measure(f"{level} jobs, {name}: a look at all of them", size / 1024, "KiB"))
                measures.append(Measure(f"{level} jobs, {name}: it takes", seconds, "s"))
    return Result("bytes", "ssh and slurmrestd", f"up to {levels[-1]} jobs of one user in the queue", tuple(measures))


# --- submissions ------------------------------------------------------------------------------------------------------


async def _submissions(testbed: Testbed, way: ways.Way, count: int) -> list[Measure]:
    with _down(testbed), Plain(testbed) as plain:
        before = await plain.submit(_PARTITION, count)
        async with _provider(way) as provider:
            await provider.submit(_pod("first", "true"), PodContent())  # the connection, the root and the archive
            room = asyncio.Semaphore(SUBMISSIONS_AT_A_TIME)

            async def one(number: int) -> None:
                async with room:
                    await provider.submit(_pod(str(number), "true"), PodContent())

            begun = time.monotonic()
            await asyncio.gather(*(one(number) for number in range(count)))
            seconds = time.monotonic() - begun
        after = await plain.submit(_PARTITION, count)
    return [Measure("submissions", count / seconds, "/s", 2 * count / (before + after))]


@contextmanager
def _down(testbed: Testbed) -> Iterator[None]:
    """Have no job of the partition start; at the end its jobs are cancelled before any does."""
    _as_root(testbed, "scontrol", "update", f"partitionname={_PARTITION}", "state=down")
    try:
        yield
    finally:
        _as_root(testbed, "scancel", f"--partition={_PARTITION}", "--state=PENDING", f"--user={users.ALICE.name}")
        _as_root(testbed, "scontrol", "update", f"partitionname={_PARTITION}", "state=up")


# --- watching ---------------------------------------------------------------------------------------------------------


async def _watching(testbed: Testbed, way: ways.Way, changes: int) -> list[Measure]:
    fifos = Fifos(way.area, way.site_area)
    pods = [_pod(name := f"fifo-{number}", "cat", fifos.make(name)) for number in range(changes)]
    seen: dict[str, dict[type, float]] = {pod.metadata.name: {} for pod in pods}
    async with _provider(way) as provider:
        watching = asyncio.create_task(_see(provider, seen), name="reports")
        for pod in pods:
            await provider.submit(pod, PodContent())
        await _until(lambda: all(Running in kinds for kinds in seen.values()))
        before, begun = _asked(testbed), time.monotonic()
        await asyncio.sleep(_WINDOW_SECONDS)
        asked, window = _asked(testbed) - before, time.monotonic() - begun
        released = {}
        for number, name in enumerate(seen):
            await asyncio.sleep(0.3 + 0.37 * number % 0.4)  # at any moment of the provider's own intervals
            released[name] = time.monotonic()
            fifos.release(name)
        await _until(lambda: all(Terminated in kinds for kinds in seen.values()))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    told = [seen[name][Terminated] - released[name] for name in seen]
    return [
        Measure("container ends → told, p50", quantile(told, 0.5), "s"),
        Measure("container ends → told, p99", quantile(told, 0.99), "s"),
        Measure("slurmctld RPCs, a look each second", 60 * asked / window, "/min"),
    ]


async def _see(provider: Provider, seen: dict[str, dict[type, float]]) -> None:
    async with aclosing(provider.reports()) as stream:
        async for item in stream:
            reports = item.reports if isinstance(item, Snapshot) else (item,) if isinstance(item, PodReport) else ()
            for report in reports:
                for container in report.runner.containers if report.runner is not None else ():
                    seen.get(report.name, {}).setdefault(type(container.state), time.monotonic())


async def _until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not check():  # noqa: ASYNC110  what is measured is written by another task
            await asyncio.sleep(0.05)


# --- bytes ------------------------------------------------------------------------------------------------------------


async def _looks(testbed: Testbed, name: str, directory: Path) -> tuple[float, float]:
    """Return the bytes and the seconds of one look, after the first."""
    with ExitStack() as stack:
        proxy = stack.enter_context((ways.ssh_proxy if name == "ssh" else ways.rest_proxy)(testbed).running())
        host: Host = ways.over_ssh(testbed, proxy, directory) if name == "ssh" else on_the_login_node(testbed)
        client: SlurmClient = CommandClient(host, user=users.ALICE.name)
        if name != "ssh":
            tokens = HostTokens(host, lifespan_seconds=600)
            connection = Connection(Address(f"http://127.0.0.1:{proxy.port}"), tokens, user=users.ALICE.name)
            client = RestClient(connection, user=users.ALICE.name)
        await client.jobs()
        before, begun = proxy.carried, time.monotonic()
        for _ in range(_LOOKS):
            await client.jobs()
        seconds = time.monotonic() - begun
        carried = proxy.carried - before
        await client.close()
        await host.close()
        return carried / _LOOKS, seconds / _LOOKS


# --- what both need ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _provider(way: ways.Way) -> AsyncIterator[Provider]:
    provider = way.make()
    try:
        yield provider
    finally:
        await provider.close()


def _pod(name: str, *command: str) -> Pod:
    uid = f"bench-{secrets.token_hex(6)}"
    metadata = {"name": name, "namespace": "bench", "uid": uid, "annotations": {_ANNOTATION: _PARTITION}}
    container = {"name": "main", "image": "none", "command": list(command)}
    return Pod.model_validate({"metadata": metadata, "spec": {"restartPolicy": "Never", "containers": [container]}})


def _asked(testbed: Testbed) -> int:
    return int(dict(_BY_USER.findall(_as_root(testbed, "sdiag"))).get(users.ALICE.name, 0))


def _as_root(testbed: Testbed, *argv: str) -> str:
    enter = ("nsenter", "-t", testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
    return testbed.run(*enter, *argv).stdout
