"""``run <job directory>``: claim the pod, live its life, leave nothing behind. Wiring only."""

import json
import os
import signal
import sys
import time
from typing import Optional

from slurm_plugin.jobdir import JobDir

from .backoff import KUBELET, Timings
from .book import Book, Facts
from .bytecode import keep
from .claim import Run, take_claim
from .leftovers import clear
from .lifecycle import DEADLINE_EXCEEDED, TIME_LIMIT_WORDS, PodLife
from .loop import Loop
from .node import addresses, node_name
from .output import outlive_a_full_disk
from .plan import Plan
from .planfile import read_plan
from .process import adopt_orphans
from .proctree import descendants
from .state import RunnerState, state_from_json
from .statefile import StateFile
from .timelimit import seconds_left

_SWEEP_SECONDS = 5.0


def this_run() -> Run:
    """Return which start of which job this process is."""
    return Run(os.environ.get("SLURM_JOB_ID", ""), int(os.environ.get("SLURM_RESTART_COUNT") or 0))


def earlier_state(directory: JobDir, run: Run) -> Optional[RunnerState]:
    """Return what an earlier start of this job left; None if this is the first, or it left nothing readable."""
    if run.restart == 0:
        return None
    try:
        with open(directory.state, encoding="utf-8") as stream:
            return state_from_json(json.load(stream))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        sys.stderr.write("slurmlet: no state of the earlier run: %s\n" % error)
        return None


def run_pod(path: str, timings: Timings = KUBELET) -> int:
    """Run the pod of a job directory; return the exit code."""
    outlive_a_full_disk()
    directory = JobDir(path)
    run = this_run()
    holder = take_claim(directory, run)
    if holder is not None:
        sys.stdout.write(
            "slurmlet: the pod of %s is run by job %s (start %d); job %s (start %d) ends without touching it\n"
            % (path, holder.job_id, holder.restart, run.job_id, run.restart)
        )
        return 0
    pod = read_plan(directory)
    found = addresses()
    book = Book(pod, Facts(run, node_name(), found, found), earlier_state(directory, run))
    loop = Loop()
    state = StateFile(loop, directory.state, book.snapshot)
    book.on_change = state.changed
    state.changed()
    adopt_orphans()
    life = PodLife(loop, directory, pod, book, timings)
    loop.on_signal(signal.SIGTERM, life.terminate)
    loop.on_signal(signal.SIGUSR1, lambda: _end_in_time(loop, life, pod))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        code = int(loop.run(life.run()))
    except BaseException:
        book.terminate("RunnerFailed", "the pod runner failed; its last words are in the job's output")
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(
                number, signal.SIG_IGN
            )  # its end is decided: one that comes while Python exits is not its code
        sweep()
        book.finish()
        state.write_last()
    keep()
    clear(life.scratch_base, run)  # last, for it may take its time
    return code


def _end_in_time(loop: Loop, life: PodLife, pod: Plan) -> None:
    """Slurm has warned of the time limit: let the pod run for as long as its grace period allows, then end it."""
    left = seconds_left(os.environ, time.time(), pod.grace_seconds)
    loop.call_later(left, lambda: life.terminate(DEADLINE_EXCEEDED, TIME_LIMIT_WORDS))


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def sweep() -> None:
    """Kill every process below this one, and wait for it: whatever a container left behind is our child by now."""
    deadline = time.monotonic() + _SWEEP_SECONDS
    while time.monotonic() < deadline:
        _reap()
        left = [process.pid for process in descendants(os.getpid())]
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.02)
    sys.stderr.write("slurmlet: processes that can't be killed are left behind\n")
