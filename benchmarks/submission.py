"""Submissions per second: hundreds of short pods that are all there before the agent is.

The agent is away while the pods are created and bound, so that the scheduler's rate and ours are seen apart. The
partition is down meanwhile, for plain sbatch too: jobs are accepted and wait, and what is measured is not how fast two
CPUs run hundreds of jobs beside it.
"""

import asyncio
from statistics import mean

from tests.e2e.testbed import Testbed

from . import cpu
from .agentlog import AgentLog
from .plain import SUBMISSIONS_AT_A_TIME, Plain
from .report import Measure, Result
from .setting import Setting, partition_down, setting
from .sight import bound

INDEX = 12
_PARTITION = "many"
_AIM = 0.9
_SECONDS = 240.0
_POLL_SECONDS = 0.25


async def measure(testbed: Testbed, host: str, *, count: int) -> Result:
    """Submit ``count`` pods, and as many plain jobs before and after."""
    async with setting(testbed, host, index=INDEX) as place:
        with Plain(testbed) as plain, partition_down(place, _PARTITION):
            runs = [await _plain(place, plain, count)]
            place.agent.kill()
            names = [f"submission-{number}" for number in range(count)]
            created = await place.create([place.pod(name, _PARTITION, "true") for name in names])
            binding = max((await place.sight.wait(names, bound, seconds=_SECONDS)).values()) - created
            submitting, used = await _submit(place, count)
            runs.append(await _plain(place, plain, count))
    ours, theirs = count / submitting, count / mean(run[0] for run in runs)
    measures = [
        Measure("created → bound (Kubernetes' own)", count / binding, "/s"),
        Measure("bound → sbatch answered", ours, "/s", theirs, f"≥ {_AIM} of plain", ours >= _AIM * theirs),
        Measure(
            "CPU per submission:", 1000 * sum(used.values()) / count, "ms", 1000 * mean(r[1] for r in runs) / count
        ),
        *(Measure(part, 1000 * seconds / count, "ms", part=True) for part, seconds in used.items()),
    ]
    title = f"{count} short pods at once; plain: sbatch {SUBMISSIONS_AT_A_TIME} at a time"
    return Result("submission", host, title, tuple(measures))


async def _plain(place: Setting, plain: Plain, count: int) -> tuple[float, float]:
    """Submit plain jobs and cancel them; the seconds it took, and the CPU seconds of sbatch and of Slurm's daemons."""
    before, clients = cpu.seconds(place.agent.pid), cpu.children()
    seconds = await plain.submit(_PARTITION, count)
    used = cpu.since(before, cpu.seconds(place.agent.pid))[cpu.SLURM] + cpu.children() - clients
    await asyncio.to_thread(place.cancel, plain.name)
    return seconds, used


async def _submit(place: Setting, count: int) -> tuple[float, dict[str, float]]:
    """Start the agent; the seconds from the first job directory begun to the last sbatch answered, and the CPU used."""
    log = AgentLog(place.agent.log)
    await place.close_eyes()
    place.agent.start()
    async with asyncio.timeout(_SECONDS):
        while not log.times("staging"):  # noqa: ASYNC110  a file tells nobody
            await asyncio.sleep(_POLL_SECONDS / 5)
        before = cpu.seconds(place.agent.pid)
        while len(accepted := log.times("accepted")) < count:  # noqa: ASYNC110  a file tells nobody
            await asyncio.sleep(_POLL_SECONDS)
    used = cpu.since(before, cpu.seconds(place.agent.pid))
    return max(accepted) - min(log.times("staging")), used
