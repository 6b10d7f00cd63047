"""Pod created → container running, one pod at a time on an idle cluster with the image in its cache.

Each pod alternates with one plain sbatch, and with one of a script that executes Apptainer itself. The steps between
come from the agent's log (its own steps), from the files of the job directory (what happens on the compute node: when
Slurm opened the job's output, when the runner claimed the pod, when it started the container) and from a watch (what a
user sees).
"""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.testbed import Testbed

from .agentlog import AgentLog
from .plain import Plain, Started
from .report import Measure, Result, quantile
from .setting import Setting, setting
from .sight import bound, started, succeeded

INDEX = 11
_PARTITION = "cpu"
_AIM_SECONDS = 0.25
_AIM = f"plain + {_AIM_SECONDS} s"
_POD_SECONDS = 60.0
_GONE_SECONDS = 0.4
_STEPS = (
    "created → bound",
    "bound → agent begins to submit",
    "job directory staged",
    "sbatch",
    "accepted → script starts (Slurm's)",
    "script → runner claims the pod",
    "claim → container started (Apptainer executed)",
    "started → agent sees it",
    "seen → status in the API",
)
_ACCEPTED, _SCRIPT, _CONTAINER = 4, 5, 7  # the moments before and after some of these steps


async def measure(testbed: Testbed, host: str, *, count: int) -> Result:
    """Run ``count`` pods, as many plain jobs, and as many whose script executes Apptainer itself, by turns."""
    moments: list[tuple[float, ...]] = []
    jobs: list[Started] = []
    contained: list[Started] = []
    async with setting(testbed, host, index=INDEX) as place:
        with Plain(testbed) as plain:
            image = await _image(place)
            for number in range(count):
                moment = 0.37 * number % 1
                await _quiet_until(moment)
                moments.append(await _one(place, f"latency-{number}"))
                await _quiet_until(moment)
                jobs.append(await plain.start(_PARTITION))
                await _quiet_until(moment)
                contained.append(await plain.start(_PARTITION, image=image))
    return _result(host, moments, jobs, contained)


async def _image(place: Setting) -> str:
    """Have the pods' image in the cache; its path."""
    await place.create([place.pod("warm-up", _PARTITION, "true")])
    await place.sight.wait(["warm-up"], succeeded, seconds=_POD_SECONDS)
    return place.cached_image("warm-up")


async def _quiet_until(moment: float) -> None:
    """Wait until the job before is gone, then for this part of a second.

    slurmctld starts batch jobs once a second: a pod and its plain job begin equally long before that, and all pods
    together at every distance from it.
    """
    await asyncio.sleep(_GONE_SECONDS)
    await asyncio.sleep((moment - time.time()) % 1)


async def _one(place: Setting, name: str) -> tuple[float, ...]:
    """Run one pod; the moments (seconds since the epoch) that its steps lie between."""
    log = AgentLog(place.agent.log)
    created = await place.create([place.pod(name, _PARTITION, "sleep", "0.3")])
    seen = (await place.sight.wait([name], started, seconds=_POD_SECONDS))[name]
    await place.sight.wait([name], succeeded, seconds=_POD_SECONDS)
    uid, directory = place.sight.uid(name), place.job_directory(name)
    state = json.loads((directory / "state.json").read_text())["containers"][0]["state"]["terminated"]
    begun: float = state["started_at"]
    path = f"/api/v1/namespaces/{place.namespace}/pods/{name}"
    told = min((at for at in log.times("directory changed", uid) if at >= begun), default=seen)
    moments = (
        created,
        place.sight.first(name, bound) or created,
        log.times("staging", uid)[0],
        log.times("staged", uid)[0],
        log.times("accepted", uid)[0],
        _born(place, directory / "job.log"),
        (directory / "run" / "claim").stat().st_mtime,
        begun,
        told,
        seen,
    )
    await place.kube.delete(path, uid=uid, grace_seconds=0)
    return moments


def _born(place: Setting, path: Path) -> float:
    """Return when a file was made; Python 3.11 can't tell."""
    return float(place.testbed.run("stat", "--format=%.9W", str(path)).stdout)


def _result(
    host: str, moments: Sequence[tuple[float, ...]], jobs: Sequence[Started], contained: Sequence[Started]
) -> Result:
    measures = []
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        base = quantile([job.started - job.begun for job in jobs], share)
        shown = quantile([pod[-1] - pod[0] for pod in moments], share)
        ran = quantile([pod[_CONTAINER] - pod[0] for pod in moments], share)
        met = shown <= base + _AIM_SECONDS if label == "p50" else None
        measures.append(Measure(f"created → Running in the API, {label}", shown, "s", base, _AIM, met))
        measures.append(Measure(f"created → container started, {label}", ran, "s", base))
        base = quantile([job.started - job.begun for job in contained], share)
        met = shown <= base + _AIM_SECONDS if label == "p50" else None
        measures.append(
            Measure(f"created → Running; plain: sbatch of `apptainer exec`, {label}", shown, "s", base, _AIM, met)
        )
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        base = quantile([job.accepted - job.begun for job in jobs], share)
        own = quantile([pod[-1] - pod[0] - (pod[_SCRIPT] - pod[_ACCEPTED]) for pod in moments], share)
        met = own <= base + _AIM_SECONDS if label == "p50" else None
        measures.append(Measure(f"the same without accepted → script starts, {label}", own, "s", base, _AIM, met))
    measures.append(Measure("of it, at the median of each step:", quantile([p[-1] - p[0] for p in moments], 0.5), "s"))
    of_plain = {
        _ACCEPTED - 1: [job.accepted - job.begun for job in jobs],
        _ACCEPTED: [job.started - job.accepted for job in jobs],
    }
    for number, name in enumerate(_STEPS):
        value = quantile([pod[number + 1] - pod[number] for pod in moments], 0.5)
        beside = quantile(of_plain[number], 0.5) if number in of_plain else None
        measures.append(Measure(name, value, "s", beside, part=True))
    title = f"One pod at a time, idle cluster, cached image: {len(moments)} pods; plain: sbatch → script starts"
    samples = {
        "pods, the moments between their steps": [[moment - pod[0] for moment in pod] for pod in moments],
        "plain jobs, accepted and started": [[job.accepted - job.begun, job.started - job.begun] for job in jobs],
        "plain jobs with Apptainer, the same": [
            [job.accepted - job.begun, job.started - job.begun] for job in contained
        ],
    }
    return Result("latency", host, title, tuple(measures), samples)
