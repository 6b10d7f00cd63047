"""The SlurmClient contract: one user's view of one Slurm cluster."""

from collections.abc import Collection, Mapping
from typing import Protocol

from ..cluster import Cluster
from ..job import JobId, JobKey, JobStatus


class SlurmClient(Protocol):
    """Speaks to Slurm as exactly one user.

    Every method raises SlurmUnavailableError when slurmctld (or slurmdbd, where accounting is asked) does not answer,
    TransportError when the connection to the place it is asked from fails, UnparsableOutputError for nonsense.
    """

    async def submit(self, script: str, *, directory: str) -> JobId:
        """Submit a batch script with this working directory.

        Raises SubmissionRejectedError (no job exists), SlurmUnavailableError (no job exists), TransportError
        (unknown: also when sbatch ran into its time-out).
        """

    async def jobs(self) -> Mapping[JobId, JobStatus]:
        """Return every job of this user that slurmctld still knows: one query, whatever their number."""

    async def ended_jobs(self, job_ids: Collection[JobId], *, since: int) -> Mapping[JobId, JobStatus]:
        """Ask accounting for jobs that left the queue; absent ones are missing from the result. ``since``: epoch seconds."""

    async def find(self, name: str, *, directory: str, since: int) -> tuple[JobStatus, ...]:
        """Return this user's jobs of exactly this name and, where Slurm still knows it, working directory, oldest first.

        Asks the queue, then accounting from ``since`` (epoch seconds) on. What the queue knows is enough where
        accounting does not answer.
        """

    async def queued(self, wanted: Collection[JobKey]) -> Mapping[JobKey, tuple[JobStatus, ...]]:
        """Return this user's jobs that slurmctld still knows, by these keys: one query, whatever their number.

        A key of which there is no job is missing from the result.
        """

    async def signal_batch(self, job_id: JobId, signal: str) -> None:
        """Send a signal to the batch process alone. A job that has ended or never started is a no-op."""

    async def cancel(self, job_id: JobId) -> None:
        """Cancel a job: every process of it is signalled by Slurm. A job that has ended is a no-op."""

    async def cluster(self) -> Cluster:
        """Return what the cluster has."""

    async def close(self) -> None:
        """Let go of connections of its own; those of its Host stay."""
