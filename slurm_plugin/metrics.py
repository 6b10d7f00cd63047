"""What is counted of Slurm's commands, for Prometheus (the default registry; whoever serves HTTP shows it)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Histogram

COMMAND_SECONDS = Histogram(
    "slurmlet_slurm_command_duration_seconds",
    "Slurm's commands and slurmrestd's resources, by outcome: ok, error (it said so), none (no answer).",
    ["command", "outcome"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
)


@contextmanager
def counted_command(name: str) -> Iterator[list[int]]:
    """Count one command; the block puts its exit status into the list it is given."""
    begun, statuses = time.monotonic(), list[int]()
    try:
        yield statuses
    finally:
        outcome = "none" if not statuses else "error" if statuses[0] else "ok"
        COMMAND_SECONDS.labels(name, outcome).observe(time.monotonic() - begun)
