"""What the pod runner itself costs on a compute node: its start, its memory, and its CPU while nothing happens.

Runners are started as ``job.sh`` starts them (``python3 -I -S -B ARCHIVE run DIRECTORY``) on the testbed's site, without
Slurm. With the runtime ``process`` a container is executed as it is: what goes by before that is the runner's own. With
``apptainer`` plain ``apptainer exec`` of the same image is what it is compared with.
"""

import asyncio
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm_plugin.runner import plan
from testbed.paths import Layout
from tests.e2e.runnersite import Site, SiteJob
from tests.e2e.testbed import Testbed
from tests.slurm_plugin.runner.jobs import Job, container, exec_action, pod, probe, shell

from . import cpu
from .report import Measure, Result, quantile

_START_AIM, _MEMORY_AIM, _CPU_AIM = 150.0, 25.0, 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
_NOW = "cat /proc/uptime"  # busybox's date has whole seconds only


async def measure(testbed: Testbed, *, count: int, idle_seconds: float) -> Result:
    """Run ``count`` runners of each kind, and one that is left alone for so many seconds."""
    return await asyncio.to_thread(_measure, testbed, count, idle_seconds)


def _measure(testbed: Testbed, count: int, idle_seconds: float) -> Result:
    share = Layout.from_environment(testbed.environment).share / f"benchmark-{secrets.token_hex(4)}"
    site = Site(testbed, share)
    image = site.image("library/busybox:1.36")
    try:
        SiteJob(site, pod(container("a", "true", image=image)), None, "apptainer").run()  # pulls, and keeps bytecode
        before = cpu.children()
        own = [_until_executed(site, plan.Runtime("process", "", ()), image) for _ in range(count)]
        each = (cpu.children() - before) / count
        contained = [_until_executed(site, plan.Runtime("apptainer", "apptainer", ()), image) for _ in range(count)]
        plain = [_plain(site) for _ in range(count)]
        with _idle(site, image) as pid:
            time.sleep(2.0)
            memory = _memory_mib(pid)
            before = _cpu_seconds(pid)
            time.sleep(idle_seconds)
            idle = 100 * (_cpu_seconds(pid) - before) / idle_seconds
    finally:
        shutil.rmtree(share)
    return _result(own, contained, plain, used=(each, memory, idle))


def _result(
    own: list[float], contained: list[float], plain: list[float], *, used: tuple[float, float, float]
) -> Result:
    each, memory, idle = used

    def aimed(name: str, value: float, unit: str, aim: float) -> Measure:
        return Measure(name, value, unit, aim=f"≤ {aim:g} {unit}", met=value <= aim)

    return Result(
        "runner",
        "none",
        "the pod runner by itself",
        (
            aimed("started → first container's exec, runtime process, p50", 1000 * quantile(own, 0.5), "ms", _START_AIM),
            Measure("the same, slowest", 1000 * max(own), "ms"),
            Measure("CPU of such a runner, all of its life", 1000 * each, "ms"),
            Measure("started → command executes, runtime apptainer, p50", 1000 * quantile(contained, 0.5), "ms",
                    plain=1000 * quantile(plain, 0.5)),
            aimed("resident memory, three probes", memory, "MiB", _MEMORY_AIM),
            aimed("CPU of a core while nothing happens, three probes", idle, "%", _CPU_AIM),
        ),
        {"own": [own], "contained": [contained], "plain": [plain]},
    )  # fmt: skip


def _until_executed(site: Site, runtime: plan.Runtime, image: plan.Image) -> float:
    """Return the seconds from a runner's start to what its container says of the time."""
    job = SiteJob(site, pod(shell("a", _NOW, image=image)), None, runtime.executable)
    if runtime.kind == "process":
        _use(job, runtime)
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)
    job.run()
    return float(job.log("a")[0].split()[2]) - begun


def _use(job: Job, runtime: plan.Runtime) -> None:
    path = Path(job.directory.plan)
    data = json.loads(path.read_text())
    data["runtime"] = plan.to_json(runtime)
    path.write_text(json.dumps(data))


def _plain(site: Site) -> float:
    """Return the seconds that Apptainer takes for the same command, without a runner."""
    (image,) = list(site.images.glob("**/*.sif"))[:1]
    argv = ["env", "-i", "PATH=/usr/bin:/bin", f"HOME=/home/{site.user}", "apptainer", "--silent", "exec", "--containall",
            "--writable-tmpfs", str(image), "cat", "/proc/uptime"]  # fmt: skip
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)
    said, _ = site.start(argv).communicate(timeout=60)
    return float(said.split()[0]) - begun


@contextmanager
def _idle(site: Site, image: plan.Image) -> Iterator[int]:
    """A runner whose container sleeps and has three probes, each every 10 seconds as by default: its process id."""
    every = probe(exec_action("true"), period=10, timeout=5)
    probes = {"startup_probe": every, "liveness_probe": every, "readiness_probe": every}
    job = SiteJob(site, pod(shell("a", "sleep 600", image=image, **probes), grace_seconds=2), None, "apptainer")
    process = job.start()
    try:
        job.wait_until(lambda job: job.container("a").ready, seconds=60)
        yield process.pid  # what started it became it by exec
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of the runner and of the probes that it has run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS
