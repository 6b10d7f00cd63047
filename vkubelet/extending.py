"""Ephemeral containers: what ``kubectl debug`` adds to a running pod, given to the provider once the pod can take it."""

import logging
import time

from slurm_plugin.contract import Extendable, Provider
from slurm_plugin.errors import PodNotFoundError, SlurmletError, TranslationError, UnsupportedFieldError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod

from .content import Content
from .podevents import PodEvents
from .podlog import about
from .podwork import Work

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


class Extending:
    """Gives pods their ephemeral containers. What was refused is told once, and not tried again."""

    def __init__(self, provider: Provider, content: Content, events: PodEvents) -> None:
        self._provider = provider
        self._content = content
        self._events = events
        self._given: dict[PodUid, frozenset[str]] = {}

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        self._given.pop(uid, None)

    async def extend(self, pod: Pod, work: Work) -> float | None:
        """Give the pod what it does not have yet; after how many seconds to try again, None if that is not needed."""
        uid, runner = PodUid(pod.metadata.uid), work.report.runner if work.report is not None else None
        if not pod.spec.ephemeral_containers or runner is None or runner.final:
            return None
        there = {state.name for state in runner.containers} | self._given.get(uid, frozenset())
        wanted = frozenset(container.name for container in pod.spec.ephemeral_containers)
        if wanted <= there:
            return None
        try:
            await self._give(pod)
        except TranslationError as error:
            log.warning("not extended: %s", error, extra=about(pod))
            self._events.warn(pod, "Failed", f"Error: {error}")
        except SlurmletError as error:
            # Its runner is just starting, Slurm is away, or somebody may create what is missing.
            if not isinstance(error, PodNotFoundError):
                self._events.warn(pod, "Failed", f"Error: {error}")
            return _RETRY_SECONDS
        self._given[uid] = self._given.get(uid, frozenset()) | wanted
        return None

    async def _give(self, pod: Pod) -> None:
        if not isinstance(self._provider, Extendable):
            raise UnsupportedFieldError("spec.ephemeralContainers", "the pods of this node can't be given containers")
        content = await self._content.resolve(_alone(pod), seen_at=time.monotonic())
        await self._provider.extend(pod, content)
        targets = [c for c in pod.spec.ephemeral_containers if c.target_container_name]
        if targets:
            words = "sees only its own processes: a job's containers share no process namespace"
            self._events.warn(pod, "TargetNotShared", f"Container {targets[0].name} {words}")
        log.info("extended by %s", ", ".join(c.name for c in pod.spec.ephemeral_containers), extra=about(pod))


def _alone(pod: Pod) -> Pod:
    """Return the pod as if its ephemeral containers were all of it: only what they refer to is to be fetched."""
    claims = tuple(v for v in pod.spec.volumes if v.persistent_volume_claim is not None or v.ephemeral is not None)
    spec = pod.spec.model_copy(
        update={"containers": pod.spec.ephemeral_containers, "init_containers": (), "volumes": claims}
    )
    return pod.model_copy(update={"spec": spec})
