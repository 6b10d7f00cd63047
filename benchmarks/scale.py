"""Hundreds of running pods: what they cost slurmctld, and how soon a change in one of them shows.

The pods wait on a FIFO, so they take no CPU, and run without a container (runtime ``process``): hundreds of container
starters would measure this machine's memory. What is measured is the same for both: state file → agent → API.
"""

import asyncio
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.paths import Layout
from testbed.site import users
from tests.e2e.testbed import Testbed

from .report import Measure, Result, quantile
from .setting import Setting, no_sampling, setting
from .sight import ended, started, succeeded

INDEX = 13
_PARTITION = "many"
_AIM_SECONDS = 0.5
_CHANGES = 40
_CHANGE_SECONDS = 60.0
_START_SECONDS = 120.0
_STARTS_AT_A_TIME = 25  # more than that at once only fight for the two CPUs
_WINDOW_SECONDS = 30.0
_SETTINGS = {"pods": {"runtime": {"kind": "process"}}}
# "	alice           (    2001) count:1240   ave_time:316    total_time:392567", sdiag(1)
_BY_USER = re.compile(r"^\s+(\S+)\s+\(\s*\d+\)\s+count:(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Fifos:
    """One FIFO for each pod, on the site's shared file system; writing to one ends its pod's container."""

    outside: Path
    inside: str

    def make(self, name: str) -> str:
        """Make a pod's FIFO; its path inside."""
        path = self.outside / name
        os.mkfifo(path, 0o600)
        os.chown(path, users.ALICE.uid, users.ALICE.uid)
        return f"{self.inside}/{name}"

    def release(self, name: str) -> None:
        """Let a pod's container end. OSError (ENXIO) if nobody waits there."""
        descriptor = os.open(self.outside / name, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)


async def measure(testbed: Testbed, host: str, *, levels: Sequence[int]) -> Result:
    """Run as many pods as each level says, one level after the other; then end some of them."""
    with no_sampling(testbed):
        return await _measure(testbed, host, levels)


async def _measure(testbed: Testbed, host: str, levels: Sequence[int]) -> Result:
    measures = []
    async with setting(testbed, host, index=INDEX, settings=_SETTINGS) as place:
        directory = f"{users.ALICE.name}/{place.namespace}"
        fifos = Fifos(Layout.from_environment().site / "scratch" / directory, f"/scratch/{directory}")
        fifos.outside.mkdir()
        os.chown(fifos.outside, users.ALICE.uid, users.ALICE.uid)
        place.leavings.append(fifos.outside)
        names: list[str] = []
        for level in levels:
            begun = time.monotonic()
            more = [f"scale-{number}" for number in range(len(names), level)]
            names += more
            for first in range(0, len(more), _STARTS_AT_A_TIME):
                batch = more[first : first + _STARTS_AT_A_TIME]
                await place.create([_waiting(place, name, fifos) for name in batch])
                await place.sight.wait(batch, started, seconds=_START_SECONDS)
            measures.append(Measure(f"{level} pods running after", time.monotonic() - begun, "s"))
            measures.append(await _rpcs(place, level))
        measures[3::2] = [_flat(m, measures[1]) for m in measures[3::2]]
        seen, over = await _changes(place, fifos, names[:: max(1, len(names) // _CHANGES)])
    p50 = quantile(seen, 0.5)
    measures += [
        Measure("container ends → status in the API, p50", p50, "s", None, f"≤ {_AIM_SECONDS} s", p50 <= _AIM_SECONDS),
        Measure("container ends → status in the API, p99", quantile(seen, 0.99), "s"),
        Measure("container ends → phase Succeeded (job gone), p50", quantile(over, 0.5), "s"),
        Measure("container ends → phase Succeeded (job gone), p99", quantile(over, 0.99), "s"),
    ]
    title = f"{levels[-1]} pods that run, and {len(seen)} of them that end"
    samples = {"container ends → status, → phase": list(zip(seen, over, strict=True))}
    return Result("scale", host, title, tuple(measures), samples)


def _waiting(place: Setting, name: str, fifos: Fifos) -> dict[str, object]:
    return place.pod(name, _PARTITION, "cat", fifos.make(name))


async def _rpcs(place: Setting, level: int) -> Measure:
    """Count what the agent's user asks of slurmctld while nothing happens."""
    await asyncio.sleep(5)  # what follows the last start
    before, begun = _asked(place), time.monotonic()
    await asyncio.sleep(_WINDOW_SECONDS)
    after, seconds = _asked(place), time.monotonic() - begun
    return Measure(f"slurmctld RPCs, {level} pods", 60 * (after - before) / seconds, "/min")


def _asked(place: Setting) -> int:
    counts = dict(_BY_USER.findall(place.as_root("sdiag")))
    return int(counts.get(users.ALICE.name, 0))


def _flat(measure: Measure, least: Measure) -> Measure:
    """Hold a level's RPCs against those of the first."""
    met = measure.value <= 1.2 * least.value
    return Measure(measure.name, measure.value, measure.unit, aim="as with the fewest", met=met)


async def _changes(place: Setting, fifos: Fifos, names: Sequence[str]) -> tuple[list[float], list[float]]:
    """End containers one by one; the seconds until their status, and until their pods' phase, were to be seen."""
    released = {}
    for number, name in enumerate(names):
        await asyncio.sleep(0.3 + 0.37 * number % 0.4)  # at any moment of the agent's own intervals
        released[name] = time.time()
        fifos.release(name)
    seen = await place.sight.wait(names, ended, seconds=_CHANGE_SECONDS)
    over = await place.sight.wait(names, succeeded, seconds=_CHANGE_SECONDS)
    return [seen[n] - released[n] for n in names], [over[n] - released[n] for n in names]
