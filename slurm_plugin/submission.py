"""Exactly once: Slurm has no idempotency key, and a submission may be accepted after its client died.

Three layers. The job's name holds the pod's UID, so that an unknown outcome is found out by exact name, owner and
working directory. ``--dependency=singleton`` makes a twin wait instead of run. And the runner claims the pod by an
atomic link() before anything else, so that of two jobs of a pod at most one ever runs it.
"""

import json
import logging
from collections.abc import Sequence

from .clients.base import SlurmClient
from .errors import HostError, SlurmUnavailableError, SubmissionRejectedError, shorten
from .hosts.base import Host, StagedEntry
from .job import JobId, JobKey, JobState, JobStatus
from .jobdir import NO_JOB_ID, JobDir
from .records import NOBODY, WITHDRAWN

log = logging.getLogger(__name__)

_LINK_TIMEOUT = 30.0
# More than a claim or a job's id ever takes.
_MOST_BYTES = 4096
_LONGEST_JOB_ID = 10


class Submission:
    """Submits jobs, at most one per job directory, as one Slurm user."""

    def __init__(self, host: Host, client: SlurmClient) -> None:
        self._host = host
        self._client = client

    async def submit(
        self, directory: JobDir, name: str, script: str, entries: Sequence[StagedEntry], *, since: int
    ) -> tuple[JobId, bool]:
        """Submit the job of a directory, or find the one that was submitted before.

        Returns the job id, and whether an earlier attempt's outcome was ever in doubt. ``since``: epoch seconds before
        which no such job can exist. Raises as ``Provider.submit`` does; after TransportError call again.
        """
        pod = {"uid": directory.uid}
        log.debug("staging", extra=pod)
        fresh = await self._host.stage(directory.path, entries)
        if not fresh and await self._holder(directory) == NOBODY:
            # Whoever withdrew the earlier attempt (below) died before the directory was gone.
            await self._host.remove_tree(directory.path)
            fresh = await self._host.stage(directory.path, entries)
        log.debug("staged", extra=pod)
        if not fresh:
            known = await self._read_job_id(directory) or await self._find(directory, name, since=since)
            if known is not None:
                return known, True
        try:
            job_id = await self._client.submit(script, directory=directory.path)
        except (SubmissionRejectedError, SlurmUnavailableError):
            if not fresh and not await self.forbid(directory, restart=WITHDRAWN):
                return await self.claimant(directory), True  # the earlier attempt was accepted after all, and runs
            # No job exists, and one that is still to appear finds nothing to run. The next attempt stages what then is true.
            await self._host.remove_tree(directory.path)
            raise
        log.debug("accepted", extra=pod | {"job_id": job_id})
        await self._host.write(directory.job_id, job_id.encode())
        return job_id, not fresh

    async def _read_job_id(self, directory: JobDir) -> JobId | None:
        data = await self._host.read(directory.job_id, limit=_MOST_BYTES)
        text = (data or b"").strip()
        return JobId(text.decode()) if _is_job_id(text) else None

    async def _find(self, directory: JobDir, name: str, *, since: int) -> JobId | None:
        """Find an earlier attempt's job, one that is alive if there is any, and write its id down."""
        found = await self._client.find(name, directory=directory.path, since=since)
        if not found:
            return None
        job_id = next((job for job in found if not job.ended), found[0]).job_id
        log.info("found job %s of an earlier submission of %s", job_id, name)
        await self._host.write(directory.job_id, job_id.encode())
        return job_id

    async def cancel_all(self, directory: JobDir, name: str) -> None:
        """Cancel every job of a pod that is forbidden (``forbid``): only the queue has any that could still run."""
        key = JobKey(name, directory.path)
        await self.cancel_others(directory, None, (await self._client.queued([key])).get(key, ()))

    async def cancel_others(self, directory: JobDir, keep: JobId | None, found: Sequence[JobStatus]) -> None:
        """Cancel every job of those found for a pod but the one that claimed it, or ``keep`` where none did yet.

        Without a claim only those that wait are cancelled: one that runs may be about to claim, and if not ends itself.
        """
        alive = [job for job in found if not job.ended]
        if all(job.job_id == keep for job in alive):
            return
        holder = await self._holder(directory)
        for job in alive:
            started = holder is None and job.state is not JobState.PENDING
            if job.job_id != (holder or keep) and not started:
                kept = holder or keep or "none any more"
                log.warning("cancelling job %s of %s: the pod's job is %s", job.job_id, directory.path, kept)
                await self._client.cancel(job.job_id)

    async def forbid(self, directory: JobDir, *, restart: int = 0) -> bool:
        """Claim the pod for nobody, so that a job that is still to appear can't run it; False if a job was quicker.

        ``restart`` is 0 for good, ``WITHDRAWN`` where the directory goes at once and the pod is still wanted.
        """
        await self._host.stage(directory.run, ())
        nobody = f"{directory.run}/nobody"
        await self._host.write(nobody, json.dumps({"job_id": NOBODY, "restart": restart}).encode())
        done = await self._host.run(["ln", "--", nobody, directory.claim], timeout=_LINK_TIMEOUT)
        holder = await self._holder(directory)  # may be we ourselves, by a call whose answer was lost
        if holder is None:
            raise HostError(f"can't claim {directory.claim}: {shorten(done.stderr.decode(errors='replace').strip())}")
        return holder == NOBODY

    async def claimant(self, directory: JobDir) -> JobId:
        """Return the job that runs the pod, and write its id down."""
        holder = await self._holder(directory)
        if holder is None:
            raise HostError(f"{directory.claim} has vanished")
        await self._host.write(directory.job_id, holder.encode())
        return holder

    async def _holder(self, directory: JobDir) -> JobId | None:
        """Return the job that holds the pod's claim, None while there is none."""
        data = await self._host.read(directory.claim, limit=_MOST_BYTES)
        if data is None:
            return None
        try:
            holder = str(json.loads(data)["job_id"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise HostError(f"{directory.claim} is not a claim: {shorten(repr(data), 200)}") from error
        if not _is_job_id(holder.encode(errors="replace")):
            raise HostError(f"{directory.claim} names no job: {shorten(repr(data), 200)}")
        return JobId(holder)


def _is_job_id(text: bytes) -> bool:
    """Whether it can be the id of a job: the file is the job's own to write, and Slurm's commands get what it says."""
    return text.isdigit() and len(text) <= _LONGEST_JOB_ID and int(text) < NO_JOB_ID
