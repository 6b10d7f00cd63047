"""Fetches what a pod refers to, and makes its PodContent: environments, volumes' files, claims and logins.

Objects are read by ``reads``, tokens come from ``tokens``, Services from a watch.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal

from slurm_plugin.contract import PodContent
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.claims import claim_references, claimed_volumes, volume_references
from slurm_plugin.resolution.environment import MASTER_NAMESPACE, MASTER_SERVICE, environments
from slurm_plugin.resolution.objects import (
    Objects,
    Reference,
    Service,
    TokenRequest,
    content_references,
    references,
    service_of,
    token_requests,
)
from slurm_plugin.resolution.pullsecrets import logins, pull_secrets
from slurm_plugin.resolution.volumes import volume_files

from .errors import UnavailableError
from .kube import Kube, Listed
from .reads import Reads
from .tokens import Tokens

_SERVICES_SECONDS = 15.0


class Content:
    """Resolves pods' content.

    ``default``: what an unset limit is (see ``resolution.fields.resource_value``). ``api_server``: ``HOST:PORT`` that stands for the
    Service ``kubernetes`` in pods, None for that Service as it is.
    """

    def __init__(
        self,
        kube: Kube,
        default: Callable[[], Mapping[str, Decimal]],
        *,
        api_server: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reads = Reads(kube, clock=clock)
        self.tokens = Tokens(kube)
        self.default = default
        self._kube = kube
        self._api_server = api_server
        self._services: dict[tuple[str, str], Service] = {}
        self._services_known = asyncio.Event()

    async def watch_services(self) -> None:
        """Keep the Services' addresses; runs until cancelled."""
        async with aclosing(self._kube.follow("/api/v1/services", service_of)) as changes:
            async for change in changes:
                if isinstance(change, Listed):
                    self._services = {(s.namespace, s.name): s for s in change.items}
                    self._services_known.set()
                elif change.deleted:
                    self._services.pop((change.item.namespace, change.item.name), None)
                else:
                    self._services[change.item.namespace, change.item.name] = change.item

    async def resolve(self, pod: Pod, *, seen_at: float) -> PodContent:
        """Return the pod's content. ``seen_at``: when the pod was first seen, by the monotonic clock.

        Raises MissingContentError (somebody may create what is missing), TranslationError (nobody can), KubeError.
        """
        await self._wait_for_services()
        wanted = references(pod) | pull_secrets(pod) | claim_references(pod)
        objects = await self._read(pod, wanted, seen_at)
        behind = await self._read(pod, volume_references(objects), seen_at)
        objects = Objects(
            objects={**objects.objects, **behind.objects},
            tokens=await self._tokens(pod),
            services=_as_pods_reach_them(self._services.values(), self._api_server),
        )
        default = self.default()
        return PodContent(
            env=environments(pod, objects, default),
            volumes=volume_files(pod, objects, default),
            claims=claimed_volumes(pod, objects),
            logins=logins(pod, objects),
        )

    async def volume_objects(self, pod: Pod, *, seen_at: float) -> Objects:
        """Return what the pod's volumes come from, read at ``seen_at`` or later, its tokens renewed. Raises KubeError."""
        objects = await self._read(pod, content_references(pod), seen_at)
        return replace(objects, tokens=await self._tokens(pod))

    def forget(self, uid: PodUid) -> None:
        """The pod has ended."""
        self.tokens.forget(uid)

    async def _read(self, pod: Pod, wanted: Iterable[Reference], seen_at: float) -> Objects:
        ordered = sorted(wanted, key=lambda ref: (ref.kind, ref.name))
        namespace = pod.metadata.namespace
        bodies = await asyncio.gather(*(self.reads.get(namespace, ref, seen_at=seen_at) for ref in ordered))
        return Objects(objects=dict(zip(ordered, bodies, strict=True)))

    async def _tokens(self, pod: Pod) -> dict[TokenRequest, str]:
        tokens = {}
        for request in token_requests(pod):
            async with self.reads.limit:
                tokens[request] = await self.tokens.get(pod, request)
        return tokens

    async def _wait_for_services(self) -> None:
        """Wait a while for the first list; a right that is missing must not hold every worker for ever."""
        try:
            async with asyncio.timeout(_SERVICES_SECONDS):
                await self._services_known.wait()
        except TimeoutError as error:
            raise UnavailableError("the Services, which a pod's environment names, could not be listed yet") from error


def _as_pods_reach_them(services: Iterable[Service], api_server: str | None) -> tuple[Service, ...]:
    """Return the Services, ``kubernetes`` at the address that the configuration gives it."""
    others = tuple(services)
    if api_server is None:
        return others
    host, _, port = api_server.rpartition(":")
    master = Service(MASTER_NAMESPACE, MASTER_SERVICE, host.strip("[]"), (("https", "TCP", int(port)),))
    return (*(s for s in others if (s.namespace, s.name) != (MASTER_NAMESPACE, MASTER_SERVICE)), master)
