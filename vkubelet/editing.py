"""Edits of a pod that has its job: the images and ``activeDeadlineSeconds`` that the API server lets users change.

What a running pod has taken up is in its runner's state, so that this agent need not remember it; of one that queues
the plan is looked at, once in an agent's life, if the pod was ever edited.
"""

import logging

from slurm_plugin.contract import Editable, Provider
from slurm_plugin.editing import wanted
from slurm_plugin.errors import PodNotFoundError, SlurmletError, TranslationError, UnsupportedFieldError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.runner.plan import Edition
from slurm_plugin.runner.state import RunnerState

from .podevents import PodEvents
from .podlog import about
from .podwork import Work

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
_UNEDITED = 1  # metadata.generation of an object whose spec nobody has changed


class Editing:
    """Has pods take up their edits. What was refused is told once, and not tried again."""

    def __init__(self, provider: Provider, events: PodEvents) -> None:
        self._provider = provider
        self._events = events
        self._given: dict[PodUid, tuple[str, int, Edition]] = {}  # by which run of which job, -1 before the first

    def submitted(self, pod: Pod) -> None:
        """The pod's job was made of what the pod is now."""
        self._given[PodUid(pod.metadata.uid)] = ("", -1, wanted(pod))

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        self._given.pop(uid, None)

    async def edit(self, pod: Pod, work: Work) -> float | None:
        """Have the pod take up what it has not; after how many seconds to try again, None if that is not needed."""
        uid, runner = PodUid(pod.metadata.uid), work.report.runner if work.report is not None else None
        if not self._differs(pod, runner):
            return None
        edition = wanted(pod)
        run = ("", -1, edition) if runner is None else (runner.job_id, runner.restart, edition)
        if self._given.get(uid) == run:
            return None
        try:
            await self._give(pod)
        except TranslationError as error:
            log.warning("not edited: %s", error, extra=about(pod))
            self._events.warn(pod, "Failed", f"Error: {error}")
        except SlurmletError as error:
            # Its runner is just starting, or Slurm is away.
            if not isinstance(error, PodNotFoundError):
                self._events.warn(pod, "Failed", f"Error: {error}")
            return _RETRY_SECONDS
        self._given[uid] = run
        return None

    def _differs(self, pod: Pod, runner: RunnerState | None) -> bool:
        """Whether the pod may have something that its job has not."""
        if runner is not None and runner.edition is not None:
            return not runner.final and runner.edition != wanted(pod)
        return (runner is None or not runner.final) and pod.metadata.generation != _UNEDITED

    async def _give(self, pod: Pod) -> None:
        if not isinstance(self._provider, Editable):
            raise UnsupportedFieldError("spec", "the pods of this node take up no edits")
        await self._provider.edit(pod)
        log.info("edited", extra=about(pod))
