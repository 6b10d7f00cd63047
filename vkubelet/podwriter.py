"""Writes what a pod has become: its status and, beside it, the annotations that name its job.

Both go through ``pods/status``, the one part of a Pod that a node may write.
"""

import logging
import time

from slurm_plugin.annotations import job_annotations
from slurm_plugin.pod import Pod

from .errors import InvalidError, NotFoundError, ReplacedError
from .kube import Json, Kube
from .podcache import CachedPod, PodCache, cached_pod
from .podevents import PodEvents
from .podlog import about
from .podwork import Work
from .statuses import differs, status_patch

log = logging.getLogger(__name__)

# Two writes of a pod that is Pending before and after are at least this far apart: most pods pass through it quickly.
_PENDING_SECONDS = 2.0


def pod_path(pod: CachedPod) -> str:
    """Return the Pod's path in the API."""
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


def _notes(pod: Pod, work: Work) -> dict[str, str]:
    """Return the annotations about the job that the pod does not have yet. They alone are not written while it waits."""
    if work.report is None or work.report.job_id is None:
        return {}
    wanted = job_annotations(work.report.job_id, work.report.job, work.report.user)
    return {key: value for key, value in wanted.items() if pod.metadata.annotations.get(key) != value}


class PodWriter:
    """Writes pods' statuses, and tells of the change of a phase."""

    def __init__(self, kube: Kube, cache: PodCache, events: PodEvents) -> None:
        self._kube = kube
        self._cache = cache
        self._events = events

    async def write(
        self, cached: CachedPod, pod: Pod, work: Work, status: Json, *, at_once: bool = False
    ) -> float | None:
        """Write a status if it says anything new; returns how long to wait first, if it is too soon."""
        notes = _notes(pod, work)
        if not differs(status, pod.status) and (status["phase"] == "Pending" or not notes):
            return None
        now = time.monotonic()
        pending = status["phase"] == cached.phase == "Pending" and work.written_at is not None and not at_once
        if pending and work.written_at is not None and (early := work.written_at + _PENDING_SECONDS - now) > 0:
            return early
        try:
            written = await self._kube.patch(f"{pod_path(cached)}/status", status_patch(cached.uid, status, notes))
        except (NotFoundError, ReplacedError):
            return None  # its deletion is on the way to us
        except InvalidError:
            log.exception("the API server does not accept our status", extra=about(pod))
            return None
        work.written_at = now
        self._cache.update(cached_pod(written))
        if status["phase"] != cached.phase:
            log.info("%s", status["phase"], extra=about(pod, work.job_id))
            if status["phase"] == "Failed" and status.get("reason"):
                self._events.warn(pod, status["reason"], status.get("message") or status["reason"])
        return None
