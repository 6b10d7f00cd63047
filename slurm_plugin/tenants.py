"""Several Slurm users behind one node: the provider contract, each pod with the provider of its own user.

The site's policy decides who a pod is; a provider acts as exactly one user. What is known of a pod (its job, its
directory) is with the provider that reported it, whatever the policy says by now.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing

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
    PodReport,
    PodUsage,
    Provider,
    Reachable,
    Report,
    Snapshot,
)
from .errors import HostError, PodNotFoundError, UnsupportedFieldError
from .job import JobId, PodUid
from .pod import Pod
from .policy import rule_for

log = logging.getLogger(__name__)


class TenantProvider:
    """One provider per Slurm user. ``providers`` has one for each user that ``policy`` names.

    A pod's directory is its user's to write, so that a user can make one for anybody's pod: whose pod is submitted is
    decided by the policy alone, and of a pod that another provider has nothing is believed.
    """

    def __init__(self, policy: Sequence[PolicyRule], providers: Mapping[str | None, Provider]) -> None:
        self._policy = policy
        self._providers = providers
        self._home: dict[PodUid, Provider] = {}

    async def cluster(self) -> Cluster:
        """Return what the cluster has, as the first user sees it."""
        return await next(iter(self._providers.values())).cluster()

    async def submit(self, pod: Pod, content: PodContent) -> JobId:
        """Submit the pod's job as the user that the policy gives it."""
        uid = PodUid(pod.metadata.uid)
        provider = self._home[uid] = self._providers[rule_for(self._policy, pod).user]
        return await provider.submit(pod, content)

    async def terminate(self, uid: PodUid, grace_seconds: int) -> None:
        """Ask for the end of the pod; one that no provider knows is a no-op."""
        if (provider := self._home.get(uid)) is not None:
            await provider.terminate(uid, grace_seconds)

    async def forget(self, uid: PodUid) -> None:
        """Remove what is left of an ended pod."""
        if (provider := self._home.get(uid)) is not None:
            await provider.forget(uid)
            self._home.pop(uid, None)

    async def update(self, uid: PodUid, content: PodContent) -> None:
        """Swap a live pod's volume content."""
        if (provider := self._home.get(uid)) is not None:
            await provider.update(uid, content)

    async def logs(self, uid: PodUid, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Yield a container's log."""
        provider = self._home.get(uid)
        if provider is None:
            raise PodNotFoundError(f"no pod with UID {uid} has run here")
        async with aclosing(provider.logs(uid, container, options)) as stream:
            async for data in stream:
                yield data

    async def usage(self) -> tuple[PodUsage, ...]:
        """Return the usage of every running pod, of a pod only what its own user's provider says."""
        found: list[PodUsage] = []
        for provider in self._providers.values():
            if isinstance(provider, Measurable):
                found += [pod for pod in await provider.usage() if self._home.get(pod.uid) is provider]
        return tuple(found)

    async def extend(self, pod: Pod, content: PodContent) -> None:
        """Start the pod's ephemeral containers."""
        provider = self._home.get(PodUid(pod.metadata.uid))
        if provider is None:
            raise PodNotFoundError(f"no pod with UID {pod.metadata.uid} runs here")
        if not isinstance(provider, Extendable):
            raise HostError("the pods of this node can't be given containers")
        await provider.extend(pod, content)

    async def edit(self, pod: Pod) -> None:
        """Have the pod take up what was edited of it."""
        provider = self._home.get(PodUid(pod.metadata.uid))
        if provider is None:
            raise PodNotFoundError(f"no pod with UID {pod.metadata.uid} runs here")
        if not isinstance(provider, Editable):
            raise UnsupportedFieldError("spec", "the pods of this node take up no edits")
        await provider.edit(pod)

    def _enterable(self, uid: PodUid) -> Enterable:
        """Return the provider that has the pod. Raises PodNotFoundError; HostError where its pods can't be entered."""
        provider = self._home.get(uid)
        if provider is None:
            raise PodNotFoundError(f"no pod with UID {uid} runs here")
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
        """Yield one Snapshot of all users' pods, once each user's is there, then every change."""
        queue: asyncio.Queue[tuple[str | None, Report]] = asyncio.Queue(maxsize=100)
        sources = [
            asyncio.create_task(self._forward(user, provider, queue), name=f"reports of {user or 'the default user'}")
            for user, provider in self._providers.items()
        ]
        errors: dict[str | None, str] = {}
        snapshots: dict[str | None, tuple[PodReport, ...]] = {}
        try:
            while True:
                user, item = await _next(queue, sources)
                if isinstance(item, Reachable):
                    errors.pop(user, None)
                    if item.error is not None:
                        errors[user] = item.error
                    words = [f"as {name}: {error}" if name else error for name, error in errors.items()]
                    yield Reachable("; ".join(words) or None)
                elif isinstance(item, Snapshot):
                    snapshots[user] = item.reports
                    if len(snapshots) == len(self._providers):
                        yield Snapshot(tuple(report for reports in snapshots.values() for report in reports))
                elif len(snapshots) == len(self._providers):
                    yield item
                else:  # newer than that user's snapshot, older than the common one
                    old = snapshots.get(user, ())
                    snapshots[user] = (*(report for report in old if report.uid != item.uid), item)
        finally:
            for source in sources:
                source.cancel()
            await asyncio.gather(*sources, return_exceptions=True)

    async def _forward(
        self, user: str | None, provider: Provider, queue: asyncio.Queue[tuple[str | None, Report]]
    ) -> None:
        async with aclosing(provider.reports()) as stream:
            async for item in stream:
                if isinstance(item, Snapshot):
                    item = Snapshot(tuple(report for report in item.reports if self._believed(user, provider, report)))
                elif isinstance(item, PodReport) and not self._believed(user, provider, item):
                    continue
                await queue.put((user, item))

    def _believed(self, user: str | None, provider: Provider, report: PodReport) -> bool:
        if self._home.setdefault(report.uid, provider) is provider:
            return True
        log.error("user %s has a directory for pod %s, which is another user's", user or "by default", report.uid)
        return False

    async def close(self) -> None:
        """Let go of all connections."""
        for provider in self._providers.values():
            await provider.close()


async def _next(
    queue: asyncio.Queue[tuple[str | None, Report]], sources: Sequence[asyncio.Task[None]]
) -> tuple[str | None, Report]:
    """Return the next item; raise a source's error if one has failed."""
    getter = asyncio.create_task(queue.get(), name="next report")
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
