"""Whose pod a UID is, and what is believed of it, where several Slurm users share a node. No I/O.

A pod's directory is its user's to write, and its UID stands in its job's name: any user can make a directory for
anybody's pod. So whose a pod is, the site's policy says by the Pod object (``contract.Tenanted``), never who speaks of
it first, and of a pod its own user's provider alone is heard.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .config import PolicyRule
from .contract import PodIdentity, PodReport, Provider
from .errors import PolicyError, SlurmUnavailableError
from .job import PodUid
from .policy import rule_of

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tenant:
    """One Slurm user. ``error``: why nothing can be done as this user; ``reports``: None until the first Snapshot."""

    user: str | None
    provider: Provider
    error: str | None = None
    reports: dict[PodUid, PodReport] | None = None
    accused: set[PodUid] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The user, in words."""
        return f"user {self.user}" if self.user else "the default user"

    @property
    def well(self) -> bool:
        """Whether pods can be submitted as this user."""
        return self.error is None and self.reports is not None

    def heard(self, uid: PodUid) -> PodReport | None:
        """Return what this user's provider says of a pod."""
        return None if self.reports is None else self.reports.get(uid)

    def check_known(self) -> None:
        """Raise SlurmUnavailableError while it is not known which jobs this user has."""
        if self.reports is None:
            raise SlurmUnavailableError(f"as {self.name}: {self.error or 'not every job is known yet'}")

    def check_well(self) -> None:
        """Raise SlurmUnavailableError while nothing can be submitted as this user."""
        self.check_known()
        if self.error is not None:
            raise SlurmUnavailableError(f"as {self.name}: {self.error}")


class Tenancy:
    """The users and their pods. ``providers`` has one for each user that ``policy`` names."""

    def __init__(self, policy: Sequence[PolicyRule], providers: Mapping[str | None, Provider]) -> None:
        self._policy = policy
        self._tenants = {user: Tenant(user, provider) for user, provider in providers.items()}
        self._pods: dict[PodUid, tuple[PodIdentity, Tenant | None]] = {}

    @property
    def tenants(self) -> tuple[Tenant, ...]:
        """Every user, in the policy's order."""
        return tuple(self._tenants.values())

    @property
    def error(self) -> str | None:
        """Why Slurm can't be reached as anybody; None as long as one user is well, or nobody has said anything."""
        errors = {tenant.name: tenant.error for tenant in self.tenants if tenant.error is not None}
        return (
            "; ".join(f"as {name}: {error}" for name, error in errors.items())
            if len(errors) == len(self.tenants)
            else None
        )

    @property
    def ready(self) -> bool:
        """Whether all has been heard that is to be waited for: somebody's jobs, and of each other user these or a trouble."""
        known = [tenant for tenant in self.tenants if tenant.reports is not None]
        return bool(known) and all(tenant in known or tenant.error is not None for tenant in self.tenants)

    def restart(self) -> None:
        """Know nothing of anybody's jobs any more; whose the pods are stays."""
        for tenant in self.tenants:
            tenant.error = tenant.reports = None

    # --- whose pod it is ------------------------------------------------------------------------------------------

    def tenant_of(self, pod: PodIdentity) -> Tenant:
        """Return the user that the policy gives a pod. Raises PolicyError if there is none."""
        return self._tenants[rule_of(self._policy, pod.namespace, pod.service_account).user]

    def introduce(self, pod: PodIdentity) -> bool:
        """Note whose pod it is; whether what was said of it before is to be said anew."""
        new = pod.uid not in self._pods
        try:
            self._pods[pod.uid] = pod, self.tenant_of(pod)
        except PolicyError:
            self._pods[pod.uid] = pod, None
        for tenant in self.tenants:
            if tenant.heard(pod.uid) is not None:
                self._accuse(tenant, pod.uid)
        return new and self.report(pod.uid) is not None

    def forget(self, uid: PodUid) -> None:
        """Drop a pod; what somebody has under its UID is nobody's from now on."""
        self._pods.pop(uid, None)
        for tenant in self.tenants:
            tenant.accused.discard(uid)

    def owner(self, uid: PodUid) -> Tenant | None:
        """Return the user whose pod it is; None if it was not introduced, or the policy names nobody."""
        return self._pods[uid][1] if uid in self._pods else None

    def holder(self, uid: PodUid) -> Tenant | None:
        """Return the user as whom a pod is ended: its own, or one who has something left of a pod that is not there."""
        if uid in self._pods:
            return self.owner(uid)
        return next((tenant for tenant in self.tenants if tenant.heard(uid) is not None), None)

    def _accuse(self, tenant: Tenant, uid: PodUid) -> None:
        """Say once that a user has a directory that is another's pod's by its name."""
        if uid in self._pods and self.owner(uid) is not tenant and uid not in tenant.accused:
            tenant.accused.add(uid)
            log.error("%s has a directory for pod %s, which is not theirs by the policy: not believed", tenant.name, uid,
                      extra={"uid": uid})  # fmt: skip

    # --- what is known of it --------------------------------------------------------------------------------------

    def hear(self, tenant: Tenant, reports: Iterable[PodReport]) -> None:
        """Take what a user's provider says of pods, after its first Snapshot."""
        assert tenant.reports is not None  # noqa: S101  the contract: a Snapshot comes first
        for report in reports:
            tenant.reports[report.uid] = report
            self._accuse(tenant, report.uid)

    def report(self, uid: PodUid) -> PodReport | None:
        """Return what is known of a pod's job: its own user's word, an empty report while that can't be had."""
        if uid not in self._pods:
            holder = self.holder(uid)
            heard = None if holder is None else holder.heard(uid)
            return None if heard is None else replace(heard, stray=True)
        pod, owner = self._pods[uid]
        if owner is not None and owner.reports is None:
            return PodReport(uid, pod.namespace, pod.name, None, None, None)
        return None if owner is None else owner.heard(uid)

    def reports(self) -> tuple[PodReport, ...]:
        """Return what is known of every pod's job."""
        uids = dict.fromkeys(self._pods)
        for tenant in self.tenants:
            uids.update(dict.fromkeys(tenant.reports or ()))
        return tuple(report for uid in uids if (report := self.report(uid)) is not None)
