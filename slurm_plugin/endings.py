"""How a job ended, in Kubernetes' words, when its containers alone do not say it. Pure.

Every ending of Slurm's has a reason of its own, so that a user, and a Job's ``podFailurePolicy``, can tell them apart.
"""

import signal
from dataclasses import dataclass

from .job import JobFlag, JobState, JobStatus
from .runner import plan
from .runner.state import RunnerState, Terminated

# By how much a compute node's clock may be behind slurmctld's; Slurm's own times are whole seconds.
_CLOCKS_SECONDS = 3.0
_ROOT = frozenset({"0", "root"})


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a job's end, and not its containers' own, decided the pod's. ``oom``, ``disrupted`` and ``lost`` mark kinds."""

    reason: str
    message: str
    oom: bool = False
    disrupted: bool = False
    lost: bool = False


def ending_of(job: JobStatus | None, runner: RunnerState | None, *, job_id: str) -> Ending:
    """Return Kubernetes' words for a job that ended without the runner having said so."""
    if job is None:
        message = f"Slurm job {job_id} is neither in the queue nor in accounting, and its runner left no end"
        return Ending("SlurmJobLost", message, lost=True)
    what = f"Slurm job {job.job_id}"
    where = f" on {job.node_list}" if job.node_list else ""
    code = "" if job.exit_code is None else f" with exit code {job.exit_code.status}:{job.exit_code.signal}"
    if JobFlag.LAUNCH_FAILED in job.flags:
        return Ending("SlurmLaunchFailed", f"{what} could not be launched{where}", disrupted=True)
    match job.state:
        case JobState.TIMEOUT:
            return Ending("DeadlineExceeded", f"{what} reached its time limit")
        case JobState.DEADLINE:
            return Ending("DeadlineExceeded", f"{what} reached its deadline")
        case JobState.OUT_OF_MEMORY:
            return Ending("OutOfMemory", f"{what} used more memory than it asked for", oom=True)
        case JobState.PREEMPTED:
            return Ending("SlurmPreempted", f"{what} was preempted by Slurm", disrupted=True)
        case JobState.NODE_FAIL | JobState.BOOT_FAIL:
            return Ending("SlurmNodeFail", f"{what} ended because of a failed node{where}", disrupted=True)
        case JobState.CANCELLED if runner is None and job.cancelled_by in _ROOT and job.node_list:
            # What slurmd can't start it has cancelled (24.11, a job that may not be requeued); so can an administrator.
            words = "before its runner started: the node could not launch it, or root cancelled it"
            return Ending("SlurmLaunchFailed", f"{what} was ended{where} {words}", disrupted=True)
        case JobState.CANCELLED:
            by = f" by {job.cancelled_by}" if job.cancelled_by else ""
            return Ending("SlurmCancelled", f"{what} was cancelled{by}")
        case _:
            message = f"{what} ended as {job.state}{code} without its runner having finished{_hint(job, runner)}"
            return Ending("SlurmJobFailed", message)


def _hint(job: JobStatus, runner: RunnerState | None) -> str:
    """Return what may be behind an end that neither Slurm nor the runner explains."""
    if runner is None:
        return "; its runner never started (see job.log in the job's directory)"
    if job.exit_code is not None and job.exit_code.signal == signal.SIGKILL:
        # So ends a job above its memory where JobAcctGatherParams=OverMemoryKill looks after it (slurm.conf(5)).
        return "; it was killed: if for its memory, job.log in the job's directory says so"
    return ""


def ended_from_outside(job: JobStatus | None, runner: RunnerState) -> bool:
    """Whether Slurm or a person ended the job, and not the runner, which had the time to tell the end of everything.

    Slurm signals all processes of a job at once. A container may end of that before its runner hears of it, with any
    exit code: what ended when the job did, or after, is no end of its own, lest half a result be taken for a whole one.
    """
    outside = {JobState.CANCELLED, JobState.PREEMPTED, JobState.TIMEOUT, JobState.DEADLINE, JobState.NODE_FAIL}
    if job is None or job.state not in outside:
        return False
    if runner.terminating or job.end_time is None:
        return True
    apps = (state.state for state in runner.containers if state.kind == plan.APP)
    last = max((app.finished_at for app in apps if isinstance(app, Terminated)), default=0.0)
    return last >= job.end_time - _CLOCKS_SECONDS
