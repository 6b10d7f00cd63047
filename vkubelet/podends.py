"""How a pod's job is brought to its end, whatever the reason: asked for once, again with less grace, again when nothing came."""

import logging
import re
import time

from slurm_plugin.contract import PodReport, Provider
from slurm_plugin.job import PodUid

from .errors import ForbiddenError, NotFoundError
from .kube import Kube
from .podwork import Work
from .turns import AGAIN_SECONDS, Turns

log = logging.getLogger(__name__)

# When to ask again for an end that was asked for and did not come, beyond the grace period.
_END_SECONDS = 60.0
_SILENCE_SECONDS = 15.0
# RFC 1123: what namespaces and pods can be called. A forged report says anything, and this becomes a path.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


class PodEnds:
    """Ends jobs of pods, ``turns`` at a time: a slow scancel must not take every worker."""

    def __init__(self, kube: Kube, provider: Provider, turns: Turns[PodUid]) -> None:
        self._kube = kube
        self._provider = provider
        self._turns = turns

    async def ensure_over(self, uid: PodUid, work: Work, *, grace: int) -> float | None:
        """Ask for the end of a job that should not be; returns None once there is none, else when to look again."""
        if work.over:
            self._turns.forget(uid)
            return None
        now = time.monotonic()
        if work.grace is None or grace < work.grace or now >= work.grace_at + work.grace + _END_SECONDS:
            if not self._turns.take(uid):
                return AGAIN_SECONDS
            try:
                await self._provider.terminate(uid, grace)
            finally:
                self._turns.give_back()
            work.grace, work.grace_at = grace, now
            log.info("end asked for, with %d s of grace", grace, extra={"uid": uid, "job_id": work.job_id})
        if work.report is None and not work.submitted:
            # Doubtful: what the provider knows it tells; if it says nothing there never was a job.
            silent = now - work.grace_at
            return None if silent >= _SILENCE_SECONDS else _SILENCE_SECONDS - silent
        return work.grace_at + work.grace + _END_SECONDS - now

    async def is_elsewhere(self, report: PodReport) -> bool:
        """Whether a pod that was never seen here exists all the same: then it is not ours to end."""
        if not (_NAME.fullmatch(report.namespace) and _NAME.fullmatch(report.name)):
            return False
        try:
            found = await self._kube.get(f"/api/v1/namespaces/{report.namespace}/pods/{report.name}")
        except (NotFoundError, ForbiddenError):
            return False  # a node's own credential may not read pods that are not bound to it: gone, for us
        return bool(found["metadata"]["uid"] == report.uid)
