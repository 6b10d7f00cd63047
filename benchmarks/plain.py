"""Plain sbatch, inside the site as the same user: what everything is compared with.

Times are taken inside, by bash's own clock, so that entering the site counts for nothing.
"""

import asyncio
import os
import secrets
import time
from dataclasses import dataclass
from types import TracebackType

from testbed.paths import Layout
from testbed.site import users
from tests.e2e.testbed import Testbed

_POLL_SECONDS = 0.005
_START_SECONDS = 60.0
SUBMISSIONS_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Started:
    """One job: when sbatch was called, when it had answered, when the script began (seconds since the epoch)."""

    begun: float
    accepted: float
    started: float


class Plain:
    """A directory of scripts and their output on the site's shared file system, removed at the end."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self.name = f"bench-{secrets.token_hex(4)}"
        self._outside = Layout.from_environment().site / "scratch" / users.ALICE.name / self.name
        self._inside = f"/scratch/{users.ALICE.name}/{self.name}"

    def __enter__(self) -> "Plain":
        self._outside.mkdir()
        os.chown(self._outside, users.ALICE.uid, users.ALICE.uid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._outside.iterdir():
            path.unlink()
        self._outside.rmdir()

    def _script(self, partition: str, output: str, *commands: str) -> str:
        """Write a script that asks for what the benchmarks' pods ask for; its path inside."""
        options = ("nodes=1", "ntasks=1", "cpus-per-task=1", "mem=128M", f"partition={partition}", f"output={output}")
        lines = ["#!/bin/bash", *(f"#SBATCH --{option}" for option in options), *commands, ""]
        (self._outside / "job.sh").write_text("\n".join(lines))
        return f"{self._inside}/job.sh"

    async def _bash(self, command: str, *words: str) -> list[str]:
        """Run a line of bash inside as the user; the lines that it printed."""
        enter = ("nsenter", "-t", self._testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
        become = ("setpriv", f"--reuid={users.ALICE.name}", f"--regid={users.ALICE.name}", "--init-groups")
        clean = ("env", "-i", f"HOME={users.ALICE.home}", "PATH=/usr/bin:/bin")
        argv = (*enter, *become, *clean, "bash", "-c", command, "bash", *words)
        done = await asyncio.to_thread(self._testbed.run, *argv, timeout_seconds=300)
        return done.stdout.split()

    async def start(self, partition: str, *, image: str = "") -> Started:
        """Submit one job and wait until its script runs; with an image, until the script's Apptainer runs a command in it."""
        contained = f"apptainer --silent exec --containall --writable-tmpfs {image} cat /proc/uptime"
        command = contained if image else "echo $EPOCHREALTIME"
        script = self._script(partition, f"{self._inside}/%j.out", command)
        begun, job, accepted = await self._bash(
            'echo $EPOCHREALTIME; sbatch --parsable "$1" || exit; echo $EPOCHREALTIME', script
        )
        output = self._outside / f"{job}.out"
        async with asyncio.timeout(_START_SECONDS):
            while not (output.exists() and output.read_text().endswith("\n")):  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(_POLL_SECONDS)
        started = float(output.read_text().split()[0])
        # A container knows no clock that tells less than whole seconds but the time since the machine's boot.
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) if image else 0.0
        return Started(float(begun), float(accepted), booted + started)

    async def submit(self, partition: str, count: int) -> float:
        """Submit so many jobs that do nothing, eight at a time; the seconds from the first sbatch to the last answer."""
        script = self._script(partition, "/dev/null", ":")
        begun, ended = await self._bash(
            "echo $EPOCHREALTIME; seq $1 | xargs -P $2 -I{} sbatch --job-name=$3-{} $4 >/dev/null; echo $EPOCHREALTIME",
            str(count), str(SUBMISSIONS_AT_A_TIME), self.name, script,
        )  # fmt: skip
        return float(ended) - float(begun)
