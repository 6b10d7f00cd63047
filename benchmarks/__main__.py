"""``python -m benchmarks``: run the experiments, print the table, write the numbers."""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.progress import say, step
from tests.e2e.testbed import Testbed, exported, run_testbed

from . import connections, latency, runner, scale, streams, submission
from .report import Result, table

HOSTS = ("ssh", "local")
EXPERIMENTS = ("runner", "latency", "submission", "scale", "streams", "connections", "bytes")


async def _run(testbed: Testbed, experiment: str, host: str, *, quick: bool) -> Result:
    match experiment:
        case "runner":
            return await runner.measure(testbed, count=3 if quick else 20, idle_seconds=10 if quick else 60)
        case "latency":
            return await latency.measure(testbed, host, count=5 if quick else 30)
        case "submission":
            return await submission.measure(testbed, host, count=50 if quick else 500)
        case "streams":
            size = (5, 8, 10) if quick else (30, 256, 100)
            return await streams.measure(testbed, host, count=size[0], mib=size[1], followers=size[2])
        case "connections":
            return await connections.measure(testbed, host, count=20 if quick else 200, changes=5 if quick else 20)
        case "bytes":
            return await connections.measure_bytes(testbed, levels=(100,) if quick else (1000, 5000))
        case _:
            return await scale.measure(testbed, host, levels=(5, 20) if quick else (10, 100, 500))


def _places(experiment: str, hosts: Sequence[str]) -> Sequence[str]:
    """Return what an experiment is done with, one after the other: where the agent runs, or every connection."""
    if experiment == "connections":
        return tuple(connections.CONNECTIONS)
    # To these it matters little, or not at all, where the agent runs.
    return hosts[:1] if experiment in {"runner", "scale", "bytes"} else hosts


def hardware() -> str:
    """Return the machine in one line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} CPUs ({names[0] if names else platform.machine()}), {memory:.0f} GiB, {platform.system()} {platform.release()}"


def main() -> int:
    """Run what was asked for. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--host", choices=HOSTS, action="append", help="where the agent runs (default: both)")
    parser.add_argument(
        "--only", choices=EXPERIMENTS, action="append", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS)
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args()
    if not run_testbed("status", check=False).stdout.count("running"):
        say("The testbed is not up: python -m testbed up")
        return 1
    testbed = Testbed({**os.environ, **exported(run_testbed("env").stdout)})
    hosts = arguments.host or HOSTS
    results: list[Result] = []
    try:
        for experiment in arguments.only or EXPERIMENTS:
            for host in _places(experiment, hosts):
                with step(f"{experiment}, host {host}", heartbeat_seconds=60):
                    results.append(asyncio.run(_run(testbed, experiment, host, quick=arguments.quick)))
    finally:
        _report(results, arguments.json)
    return 0


def _report(results: list[Result], path: Path | None) -> None:
    """Tell what was measured, also if not all of it could be."""
    machine = hardware()
    print(f"\nOn {machine}, everything on it.\n\n{table(results)}")
    if path is not None:
        path.write_text(json.dumps({"hardware": machine, "results": [r.json() for r in results]}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
