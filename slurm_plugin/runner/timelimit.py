"""How long a pod may still run once Slurm has warned it of its time limit. Pure.

Slurm sends the warning (``--signal=B:USR1@…``) up to a minute early, and with a short limit right at the start. The
containers need their grace period before the end, no more: the rest of the time is the pod's.
"""

from typing import Mapping

# Slurm looks for jobs over their limit twice a minute; so much is enough to write the last state.
MARGIN_SECONDS = 5.0
# The warning was asked for 90 s before the grace period: if the limit was shortened since, the end is no farther.
LONGEST_SECONDS = 80.0


def seconds_left(environment: Mapping[str, str], now: float, grace_seconds: float) -> float:
    """Return after how many seconds the pod must be told to end; 0 is at once, also where Slurm names no end.

    ``environment`` is the job's (``SLURM_JOB_END_TIME``: epoch seconds, Slurm 22.05 and later); ``now`` is epoch seconds.
    """
    end = environment.get("SLURM_JOB_END_TIME", "")
    if not end.isdigit():
        return 0.0
    return min(LONGEST_SECONDS, max(0.0, int(end) - now - grace_seconds - MARGIN_SECONDS))
