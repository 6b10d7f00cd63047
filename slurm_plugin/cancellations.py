"""Who cancelled a job: the queue says only that somebody did."""

from collections.abc import Sequence
from dataclasses import replace

from .clients.base import SlurmClient
from .hosts.base import Host
from .job import JobState
from .records import PodRecord


async def say_who_cancelled(host: Host, client: SlurmClient, records: Sequence[PodRecord], *, since: int) -> None:
    """Complete the records of ended jobs that somebody else cancelled: only accounting knows by whom. One query for all
    jobs, and one for each who cancelled any.

    Where accounting has not heard of the end yet, what the queue said stays: a job does not come back to life.
    ``since``: seconds since the epoch, before the first of these ends. Raises what the client and the Host raise.
    """
    jobs = {
        record.job.job_id: record
        for record in records
        if record.job is not None and record.job.state == JobState.CANCELLED and record.job.ended
    }
    unknown = {job_id: record for job_id, record in jobs.items() if record.job and not record.job.cancelled_by}
    if unknown:
        ended = await client.ended_jobs(tuple(unknown), since=since)
        for job_id, status in ended.items():
            if not status.ended:
                continue
            unknown[job_id].job = replace(status, restart_count=unknown[job_id].restart_count)
    cancelled_by = {record.job.cancelled_by for record in jobs.values() if record.job is not None}
    names = {uid: await _user_name(host, uid) for uid in cancelled_by if uid.isdigit()}
    for record in jobs.values():
        if record.job is not None and record.job.cancelled_by in names:
            record.job = replace(record.job, cancelled_by=names[record.job.cancelled_by])


async def _user_name(host: Host, uid: str) -> str:
    answer = await host.run(["id", "-nu", uid], timeout=30)
    return answer.stdout.decode(errors="replace").strip() if answer.exit_code == 0 else f"user {uid}"
