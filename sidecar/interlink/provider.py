"""An interLink plugin (Docker, HTCondor, Kubernetes, ARC…) as a provider of pods.

What interLink can't do stays undone and is said: no live volume updates, no grace period (its delete has none), no
exactly-once (its create has no key: an unknown outcome is resolved by asking for the pod's status before creating it).
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable

from slurm_plugin.cluster import Cluster, Partition, SlurmNode
from slurm_plugin.contract import LogOptions, PodContent, PodReport, Report
from slurm_plugin.errors import (
    HostError,
    InvalidQuantityError,
    PodNotFoundError,
    SlurmletError,
    SlurmUnavailableError,
    TransportError,
)
from slurm_plugin.job import JobId, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.quantity import parse_quantity
from slurm_plugin.reporting import Reporting

from .client import InterLinkClient
from .config import InterLinkSettings
from .states import Known, deleted, report, told
from .store import Store

log = logging.getLogger(__name__)

_MEBI = 2**20


class InterLinkProvider:
    """Gives pods to one interLink plugin and watches them there (``contract.Provider``)."""

    def __init__(self, settings: InterLinkSettings) -> None:
        self._settings = settings
        self._client = InterLinkClient(settings)
        self._store = Store(settings.directory)
        self._pods = {known.uid: known for known in self._store.load()}
        self._serial: defaultdict[PodUid, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reporting = Reporting(lambda: tuple(report(known) for known in self._pods.values()), self._report)

    async def cluster(self) -> Cluster:
        """Return what the plugin says that it has, as one node; the configuration's figures where it says nothing."""
        told_of = await self._client.ping()
        try:
            cpus = int(parse_quantity(told_of["cpu"], "cpu")) if "cpu" in told_of else self._settings.cpus
            memory = (
                int(parse_quantity(told_of["memory"], "memory") / _MEBI)
                if "memory" in told_of
                else self._settings.memory_mib
            )
        except InvalidQuantityError as error:
            raise HostError(f"interLink's ping: {error}") from error
        node = SlurmNode(
            "interlink", frozenset({"IDLE"}), cpus, 0, memory, 0, 0, {}, {}, frozenset(), frozenset({"interlink"})
        )
        return Cluster("interlink", "", (Partition("interlink", True, True, None, None),), (node,))

    async def submit(self, pod: Pod, content: PodContent) -> JobId:
        """Create the pod, unless the plugin has it already."""
        uid = PodUid(pod.metadata.uid)
        async with self._serial[uid]:
            known = self._pods.get(uid)
            if known is not None and not known.job_id:
                known = await self._look_for(known)  # created by an earlier attempt whose answer was lost?
            if known is not None and known.job_id:
                return JobId(known.job_id)
            await self._keep(Known(pod))
            try:
                job_id = await self._client.create(pod, content)
            except TransportError:
                raise  # whether it was created is unknown: the next attempt asks first
            except SlurmUnavailableError:
                if known is None:
                    await self._drop(uid)  # nothing was sent, or it takes nothing now
                raise
            except SlurmletError:
                await self._withdraw(pod)
                raise
            await self._keep(Known(pod, job_id))
            return JobId(job_id)

    async def _look_for(self, known: Known) -> Known:
        """Ask about a pod that may not be there, of which the reference plugin says 500 and no more."""
        try:
            return await self._ask(known)
        except HostError as error:
            await self._client.ping()  # it has no trouble of its own
            log.info("%s: it is taken not to be there", error)
            return known

    async def _withdraw(self, pod: Pod) -> None:
        """After a refusal: plugins are known to refuse a pod whose job runs all the same."""
        await self._delete(Known(pod))
        await self._drop(PodUid(pod.metadata.uid))

    async def _delete(self, known: Known) -> None:
        """Delete a pod; the failure is no error where it may not be there, for the reference plugin panics then."""
        try:
            await self._client.delete(known.pod)
        except (HostError, TransportError) as error:
            if known.job_id:
                raise
            await self._client.ping()  # it has no trouble of its own
            log.info("%s: it is taken not to be there", error)

    async def _drop(self, uid: PodUid) -> None:
        self._pods.pop(uid, None)
        await asyncio.to_thread(self._store.remove, uid)

    async def _keep(self, known: Known) -> None:
        await asyncio.to_thread(self._store.write, known)
        self._pods[known.uid] = known
        self._reporting.tell(known.uid)

    async def terminate(self, uid: PodUid, grace_seconds: int) -> None:  # noqa: ARG002
        """Delete the pod. interLink has no grace period."""
        async with self._serial[uid]:
            known = self._pods.get(uid)
            if known is None or known.gone or (known.final and known.job_id):
                return
            await self._delete(known)
            self._pods[uid] = deleted(known, "deleted through interLink", time.time())
            self._reporting.tell(uid)

    async def forget(self, uid: PodUid) -> None:
        """Delete what the plugin keeps of the pod, and forget it."""
        async with self._serial[uid]:
            known = self._pods.get(uid)
            if known is not None:
                if not known.gone:
                    await self._delete(known)
                await self._drop(uid)
        self._serial.pop(uid, None)

    async def update(self, uid: PodUid, content: PodContent) -> None:
        """interLink's volumes are what they were at creation: nothing to be done."""

    async def logs(self, uid: PodUid, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Yield a container's log."""
        known = self._pods.get(uid)
        if known is None:
            raise PodNotFoundError(f"no pod with UID {uid} has run here")
        async with contextlib.aclosing(self._client.logs(known.pod, container, options)) as stream:
            async for chunk in stream:
                yield chunk

    async def reports(self) -> AsyncGenerator[Report, None]:
        """Yield a Snapshot once the plugin answered for the first time, then each change."""
        async with contextlib.aclosing(self._reporting.reports({"interLink": self._poll})) as stream:
            async for item in stream:
                yield item

    def _report(self, uid: PodUid) -> PodReport | None:
        known = self._pods.get(uid)
        return None if known is None else report(known)

    async def _poll(self, well: Callable[[], None]) -> None:
        """Ask about every pod that has not ended, for ever: interLink answers for one pod at a time."""
        while True:
            await self._client.ping()
            await self._ask_all()
            well()
            await asyncio.sleep(self._settings.poll_seconds)

    async def _ask_all(self) -> None:
        """Ask about every pod that has not ended; one pod's trouble is no trouble of the others."""
        room = asyncio.Semaphore(self._settings.concurrent_requests)

        async def one(known: Known) -> None:
            async with room:
                try:
                    await self._ask(known)
                except HostError as error:
                    log.warning("%s", error)

        pods = [known for known in self._pods.values() if not (known.gone or known.final)]
        for outcome in await asyncio.gather(*(one(known) for known in pods), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _ask(self, known: Known) -> Known:
        """Ask about one pod and take in what is new."""
        answer = await self._client.status(known.pod)
        current = self._pods.get(known.uid, known)
        if answer is None or current.gone:
            return current
        new = told(current, answer)
        if new is not current:
            if new.job_id != current.job_id:
                await asyncio.to_thread(self._store.write, new)
            self._pods[new.uid] = new
            self._reporting.tell(new.uid)
        return new

    async def close(self) -> None:
        """Close the connections; the plugin keeps its pods."""
        await self._client.close()
