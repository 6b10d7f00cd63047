"""Submissions over a bad line: connections are reset, frozen, delayed and truncated, and every pod runs exactly once.

At the provider, without Kubernetes: what the agent would do after an error (try again, later) is done here.
"""

import asyncio
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from slurm_plugin.contract import PodContent, PodReport, Provider, Snapshot
from slurm_plugin.errors import SlurmUnavailableError, TransportError
from slurm_plugin.pod import Pod
from testbed.paths import Layout

from .badlines import FAULTS, LINES, Line, break_things
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

SUBMISSIONS = int(os.environ.get("SLURMLET_FAULTY_SUBMISSIONS", "105"))
"""Of all lines together; `make test-faults` makes 500."""
EACH = -(-SUBMISSIONS // len(LINES))
AT_ONCE = 6
RUNS = "/scratch/alice/faults"
ROOT = f"/scratch/alice/.faults-{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=LINES)
def root(request: pytest.FixtureRequest) -> str:
    """Where that line's provider keeps its job directories, as the site sees it."""
    return f"{ROOT}-{request.param.replace('/', '-')}"


@pytest.fixture
async def line(request: pytest.FixtureRequest, root: str, testbed: Testbed, tmp_path: Path) -> AsyncIterator[Line]:
    """A line, and the provider at the far end of it; no containers, for what is counted is runs."""
    async with LINES[request.node.callspec.params["root"]](testbed, tmp_path, root) as line:
        yield line
        await line.provider.close()


@pytest.fixture
def runs() -> Path:
    """Where each pod that runs leaves a line; empty."""
    path = Layout.from_environment().site / "scratch" / "alice" / "faults"
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    alice = path.parent.stat()
    os.chown(path, alice.st_uid, alice.st_gid)
    return path


def counting_pod(number: int) -> Pod:
    """A pod that leaves a line for each time it runs, and lasts until a twin would have been seen."""
    uid = f"fault-{uuid.uuid4().hex[:8]}-{number}"
    command = ["sh", "-c", f"echo $SLURM_JOB_ID >> {RUNS}/{uid}; sleep 3"]
    return Pod.model_validate(
        {
            "metadata": {"name": f"fault-{number}", "namespace": "faults", "uid": uid},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "none", "command": command}],
            },
        }
    )


async def submit(provider: Provider, pod: Pod, outcomes: Counter[str]) -> None:
    """Submit a pod as the agent does: again after an error that may pass."""
    while True:
        try:
            await provider.submit(pod, PodContent())
        except (TransportError, SlurmUnavailableError) as error:
            outcomes[type(error).__name__] += 1
            await asyncio.sleep(0.5)
        else:
            outcomes["submitted"] += 1
            return


async def watch(provider: Provider, uids: set[str], all_over: asyncio.Event) -> None:
    """Follow the reports, for ever: a provider looks for twins while it is asked for reports."""
    async with aclosing(provider.reports()) as stream:
        async for item in stream:
            reports = item.reports if isinstance(item, Snapshot) else (item,) if isinstance(item, PodReport) else ()
            uids -= {report.uid for report in reports if report.over}
            if not uids:
                all_over.set()


async def over(watching: asyncio.Task[None], all_over: asyncio.Event) -> None:
    """Wait until all pods are over; fails with what ended the watch."""
    waiting = asyncio.create_task(all_over.wait(), name="all over")
    async with asyncio.timeout(600):
        await asyncio.wait({watching, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not all_over.is_set():
        waiting.cancel()
        watching.result()


def jobs_of(testbed: Testbed, pods: list[Pod]) -> dict[str, list[tuple[str, str, int]]]:
    """Every job that each pod ever had, by uid, as accounting tells: its id, its state, the seconds it ran."""
    names = ",".join(f"faults/{pod.metadata.name}:{pod.metadata.uid}" for pod in pods)
    words = ("-n", "-X", "-P", "-o", "jobid,state,elapsedraw,jobname", "-S", "now-1hours", "--name", names)
    found: dict[str, list[tuple[str, str, int]]] = {}
    for row in testbed.run("sacct", *words).stdout.splitlines():
        job, state, elapsed, name = row.split("|")
        found.setdefault(name.rpartition(":")[2], []).append((job, state.split()[0], int(elapsed)))
    return found


async def test_every_pod_runs_exactly_once_over_a_line_that_breaks_all_the_time(
    line: Line, root: str, runs: Path, testbed: Testbed
) -> None:
    outcomes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    pods = [counting_pod(number) for number in range(EACH)]
    uids = {pod.metadata.uid for pod in pods}
    all_over = asyncio.Event()
    watching = asyncio.create_task(watch(line.provider, set(uids), all_over), name="watch")
    breaking = asyncio.create_task(
        break_things(line.proxies, random.Random(7), faults, lambda: outcomes["submitted"]), name="break things"
    )
    room, dawdling = asyncio.Semaphore(AT_ONCE), random.Random(11)
    begun = time.monotonic()

    async def one(pod: Pod) -> None:
        async with room:
            await asyncio.sleep(dawdling.uniform(0, 1))  # so that there is time for faults
            await submit(line.provider, pod, outcomes)

    await asyncio.gather(*(one(pod) for pod in pods))
    async with asyncio.timeout(60):
        while set(faults) != set(FAULTS):  # noqa: ASYNC110  a quick line is through before: the reports' turn
            await asyncio.sleep(0.1)
    breaking.cancel()
    for proxy in line.proxies:
        proxy.reset()  # of connections that were frozen last nobody would hear for long
        proxy.join()
    submitted = time.monotonic() - begun
    await over(watching, all_over)

    # Each ran once, in the one job that claimed it.
    ran = {path.name: path.read_text().split() for path in await asyncio.to_thread(lambda: list(runs.iterdir()))}
    assert {uid: jobs for uid, jobs in ran.items() if len(jobs) != 1} == {}
    assert set(ran) == uids
    here = Layout.from_environment().site / root.lstrip("/")
    claims = [path.parent.parent.name for path in await asyncio.to_thread(lambda: list(here.glob("**/run/claim")))]
    assert sorted(claims) == sorted(uids)

    # Its twins, where there were any, are cancelled and ran nothing.
    await asyncio.to_thread(
        wait_until, "twins to leave the queue",
        lambda: "faults/" not in testbed.run("squeue", "-h", "-t", "PD,R", "-o", "%j").stdout,
    )  # fmt: skip
    watching.cancel()
    twins = [job for uid, jobs in jobs_of(testbed, pods).items() for job in jobs if job[0] not in ran[uid]]
    print(f"{dict(outcomes)}, {dict(faults)}, {len(twins)} twins, {submitted:.0f} s, {time.monotonic() - begun:.0f} s")
    assert [job for job in twins if job[1:] != ("CANCELLED", 0)] == []

    assert outcomes["TransportError"] + outcomes["SlurmUnavailableError"] > 0, "the faults were too mild"
