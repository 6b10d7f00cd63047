"""Several Slurm users behind one node: the provider contract, each pod with the provider of its own user.

Who that is, the site's policy decides (``tenancy``); a provider acts as exactly one user. Each is well or not by itself:
a user whose home is full, or whose key has expired, has pods that wait, and nobody else has.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from enum import Enum

from .cluster import Cluster
from .config import PolicyRule
from .contract import (
    ContainerProcess,
    Editable,
    Enterable,
    Extendable,
    LogOptions,
    Measurable,
    PodConnection,
    PodContent,
    PodIdentity,
    PodReport,
    PodUsage,
    Provider,
    Reachable,
    Report,
    Snapshot,
)
from .errors import HostError, PodNotFoundError, SlurmletError, UnsupportedFieldError
from .job import JobId, PodUid
from .mailbox import Mailbox
from .pod import Pod
from .tenancy import Tenancy, Tenant

log = logging.getLogger(__name__)


class _News(Enum):
    """What is to be told beside single pods."""

    SNAPSHOT = "snapshot"
    REACHABLE = "reachable"


class TenantProvider:
    """One provider per Slurm user. ``providers`` has one for each user that ``policy`` names."""

    def __init__(self, policy: Sequence[PolicyRule], providers: Mapping[str | None, Provider]) -> None:
        self._tenancy = Tenancy(policy, providers)
        self._mailbox: Mailbox[PodUid | _News, Report] = Mailbox(self._read)
        self._introduced = False
        self._begun = False

    async def introduce(self, pods: Sequence[PodIdentity]) -> None:
        """Tell which pods there are (``contract.Tenanted``)."""
        for pod in pods:
            if self._tenancy.introduce(pod):
                self._mailbox.tell(pod.uid)
        if not self._introduced:
            self._introduced = True
            self._mailbox.tell(_News.SNAPSHOT)

    async def cluster(self) -> Cluster:
        """Return what the cluster has, as the first user sees it for whom Slurm answers."""
        failure: SlurmletError | None = None
        for tenant in sorted(self._tenancy.tenants, key=lambda tenant: tenant.error is not None):
            try:
                return await tenant.provider.cluster()
            except SlurmletError as error:
                failure = failure or error
        assert failure is not None  # noqa: S101  there is a user
        raise failure

    async def submit(self, pod: Pod, content: PodContent) -> JobId:
        """Submit the pod's job as the user that the policy gives it. Raises PolicyError if that is nobody."""
        identity = PodIdentity.of(pod)
        uid = identity.uid
        await self.introduce((identity,))
        if (job_id := self._tenancy.submitted(uid)) is not None:
            return job_id
        try:
            tenant = self._tenancy.submitter(uid)
            tenant.check_well()
            job_id = await tenant.provider.submit(pod, content)
        except SlurmletError as error:
            if not error.transient and self._tenancy.report(uid) is None:
                self._tenancy.forget(uid)  # it has no job, and nobody will say when it is gone
            raise
        if tenant.heard(uid) is None:  # a Snapshot that comes now is to have it
            self._tenancy.hear(tenant, [PodReport(uid, identity.namespace, identity.name, job_id, None, None)])
        return job_id

    async def terminate(self, uid: PodUid, grace_seconds: int) -> None:
        """Ask for the end of the pod; one that no provider knows is a no-op."""
        self._tenancy.check_decided(uid)
        if (tenant := self._tenancy.holder(uid)) is not None:
            tenant.check_known()
            await tenant.provider.terminate(uid, grace_seconds)

    async def forget(self, uid: PodUid) -> None:
        """Remove what is left of an ended pod; what another user has under its UID is told after that."""
        self._tenancy.check_decided(uid)
        if (tenant := self._tenancy.holder(uid)) is not None:
            tenant.check_known()
            await tenant.provider.forget(uid)
            if tenant.reports is not None:
                tenant.reports.pop(uid, None)
        self._tenancy.forget(uid)
        self._mailbox.tell(uid)

    async def update(self, uid: PodUid, content: PodContent) -> None:
        """Swap a live pod's volume content. One that must be left as it is is."""
        if (tenant := self._tenancy.owner(uid)) is not None and not self._tenancy.trouble(uid):
            tenant.check_known()
            await tenant.provider.update(uid, content)

    def _provider(self, uid: PodUid) -> Provider:
        """Return the provider of the user whose pod it is. Raises PodNotFoundError, SlurmUnavailableError."""
        self._tenancy.check_decided(uid)
        owner = self._tenancy.owner(uid)
        if owner is None:
            raise PodNotFoundError(f"no pod with UID {uid} has run here")
        return owner.provider

    async def logs(self, uid: PodUid, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Yield a container's log."""
        async with aclosing(self._provider(uid).logs(uid, container, options)) as stream:
            async for data in stream:
                yield data

    async def usage(self) -> tuple[PodUsage, ...]:
        """Return the usage of every running pod, of a pod only what its own user's provider says."""
        found: list[PodUsage] = []
        for tenant in self._tenancy.tenants:
            if isinstance(tenant.provider, Measurable):
                found += [pod for pod in await tenant.provider.usage() if self._tenancy.owner(pod.uid) is tenant]
        return tuple(found)

    async def extend(self, pod: Pod, content: PodContent) -> None:
        """Start the pod's ephemeral containers."""
        provider = self._provider(PodUid(pod.metadata.uid))
        if not isinstance(provider, Extendable):
            raise HostError("the pods of this node can't be given containers")
        await provider.extend(pod, content)

    async def edit(self, pod: Pod) -> None:
        """Have the pod take up what was edited of it."""
        provider = self._provider(PodUid(pod.metadata.uid))
        if not isinstance(provider, Editable):
            raise UnsupportedFieldError("spec", "the pods of this node take up no edits")
        await provider.edit(pod)

    def _enterable(self, uid: PodUid) -> Enterable:
        """Return the provider that has the pod. Raises PodNotFoundError; HostError where its pods can't be entered."""
        provider = self._provider(uid)
        if not isinstance(provider, Enterable):
            raise HostError("the pods of this node can't be entered")
        return provider

    def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AbstractAsyncContextManager[ContainerProcess]:
        """Run a command in a running container."""
        return self._enterable(uid).exec(uid, container, argv, stdin=stdin, tty=tty)

    def attach(self, uid: PodUid, container: str, *, stdin: bool) -> AbstractAsyncContextManager[ContainerProcess]:
        """Join the streams of a running container's own process."""
        return self._enterable(uid).attach(uid, container, stdin=stdin)

    def connect(self, uid: PodUid, port: int) -> AbstractAsyncContextManager[PodConnection]:
        """Connect to a TCP port on the pod's compute node."""
        return self._enterable(uid).connect(uid, port)

    async def reports(self) -> AsyncGenerator[Report, None]:
        """Yield a Snapshot of all users' pods, another one as each further user is heard, and every change.

        The first comes once pods were introduced and a user is well. A user in trouble is not waited for: of that user's
        pods there are empty reports, so that nothing is concluded of them.
        """
        self._mailbox.clear()
        self._begun = False
        self._tenancy.restart()
        sources = [
            asyncio.create_task(self._listen(tenant), name=f"reports of {tenant.name}")
            for tenant in self._tenancy.tenants
        ]
        try:
            while True:
                yield await self._next(sources)
        finally:
            for source in sources:
                source.cancel()
            await asyncio.gather(*sources, return_exceptions=True)

    def _read(self, key: PodUid | _News) -> Report | None:
        if key is _News.REACHABLE:
            return Reachable(self._tenancy.error)
        if key is _News.SNAPSHOT:
            self._begun = self._begun or (self._introduced and self._tenancy.ready)
            return Snapshot(self._tenancy.reports()) if self._begun else None
        return self._tenancy.report(key) if self._begun else None

    async def _listen(self, tenant: Tenant) -> None:
        """Hear one user's provider, for ever."""
        async with aclosing(tenant.provider.reports()) as stream:
            async for item in stream:
                self._take(tenant, item)

    def _take(self, tenant: Tenant, item: Report) -> None:
        match item:
            case Reachable(error=error):
                if tenant.error != error:
                    log.warning("as %s: %s", tenant.name, error or "Slurm is reached again")
                tenant.error = error
                self._mailbox.tell(_News.REACHABLE)
                if not self._begun:  # others may have waited for this user's word
                    self._mailbox.tell(_News.SNAPSHOT)
            case Snapshot(reports=reports):
                tenant.reports = {}
                self._tenancy.hear(tenant, reports)
                self._mailbox.tell(_News.SNAPSHOT)
            case PodReport():
                self._tenancy.hear(tenant, [item])
                if self._tenancy.holder(item.uid) is tenant:
                    self._mailbox.tell(item.uid)

    async def _next(self, sources: Sequence[asyncio.Task[None]]) -> Report:
        """Return the next thing to tell; raise a source's error if one has failed."""
        getter = asyncio.create_task(self._mailbox.take(), name="next report")
        try:
            await asyncio.wait({getter, *sources}, return_when=asyncio.FIRST_COMPLETED)
            if getter.done():
                return getter.result()
            for source in sources:
                if source.done():
                    source.result()
            raise RuntimeError("a provider's reports ended, which they never do")
        finally:
            getter.cancel()

    async def close(self) -> None:
        """Let go of all connections."""
        for tenant in self._tenancy.tenants:
            await tenant.provider.close()
