"""Whose pod a UID is, and what is believed of it, where several Slurm users share a node. No I/O.

A pod's directory is its user's to write, and its UID stands in its job's name: any user can make a directory for
anybody's pod. So whose a pod is, the site's policy says by the Pod object (``contract.Tenanted``), never who speaks of
it first, and of a pod its own user's provider alone is heard.

The policy may have said otherwise when the pod was submitted. Then it is that user's to its end: of whom Slurm itself says
that they have the job that is written on the Pod object. Of the two neither alone is believed: a job under the pod's name
any user can have, and what is written on a pod its namespace's users can change.

A user whom the policy names no more can't be asked. Of a pod that by what is written on it has a job of such a user's, and of
which its own user knows nothing, nothing is concluded: else its job would be called lost, and run a second time.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from .config import PolicyRule
from .contract import PodIdentity, PodReport, Provider
from .errors import PolicyError, SlurmUnavailableError
from .job import JobId, PodUid
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

    def has(self, pod: PodIdentity) -> bool:
        """Whether Slurm has said that this user has the job that is written on a pod: it is asked for this user's jobs only."""
        heard = self.heard(pod.uid)
        return pod.job_id is not None and heard is not None and heard.job_id == pod.job_id and heard.job is not None

    def may_have(self, pod: PodIdentity) -> bool:
        """Whether it is not known yet if Slurm will say that."""
        heard = self.heard(pod.uid)
        return self.reports is None or (
            heard is not None and heard.job_id == pod.job_id and heard.job is None and not heard.absent
        )

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
        known, owner = self._pods.get(pod.uid, (None, None))
        if owner is None:
            with suppress(PolicyError):
                owner = self.tenant_of(pod)
        if known is not None and pod.job_id is None:
            pod = replace(pod, job_id=known.job_id)
        self._pods[pod.uid] = pod, owner
        for tenant in self.tenants:
            if tenant.heard(pod.uid) is not None:
                self._judge(tenant, pod.uid)
        return known is None and self.report(pod.uid) is not None

    def submitted(self, uid: PodUid) -> JobId | None:
        """Return the job that is written on an introduced pod if its user, or its former one, has it by Slurm's word."""
        pod, owner = self._pods[uid]
        return pod.job_id if owner is not None and owner.has(pod) else None

    def submitter(self, uid: PodUid) -> Tenant:
        """Return the user as whom an introduced pod without a job is to be submitted: whom the policy names now.

        Raises PolicyError if that is nobody, SlurmUnavailableError while it may yet turn out to have a former user's job.
        """
        self.check_decided(uid)
        pod, _ = self._pods[uid]
        owner = self.tenant_of(pod)
        self._pods[uid] = pod, owner
        return owner

    def trouble(self, uid: PodUid) -> str:
        """Return why a pod must be left as it is: its job is that of a user whom no rule names any more. "" if nothing is."""
        if uid not in self._pods:
            return ""
        pod, owner = self._pods[uid]
        named = not pod.job_user or pod.job_user in self._tenants
        if named or pod.job_id is None or (owner is not None and owner.heard(uid) is not None):
            return ""
        return f"as user {pod.job_user}: no rule of the policy names this user any more, whose job {pod.job_id} is"

    def check_decided(self, uid: PodUid) -> None:
        """Raise SlurmUnavailableError for a pod that must be left as it is, or while it may turn out to have a former user's job."""
        if trouble := self.trouble(uid):
            raise SlurmUnavailableError(trouble)
        if uid in self._pods:
            pod, owner = self._pods[uid]
            for tenant in self._undecided(pod, owner):
                tenant.check_known()
                raise SlurmUnavailableError(f"it is not known yet whether {tenant.name} has job {pod.job_id}")

    def _undecided(self, pod: PodIdentity, owner: Tenant | None) -> list[Tenant]:
        """Return the users of whom it is not known yet whether they have the job that is written on a pod of no known job."""
        if pod.job_id is None or (owner is not None and owner.heard(pod.uid) is not None):
            return []
        return [tenant for tenant in self.tenants if tenant.may_have(pod)]

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

    def _judge(self, tenant: Tenant, uid: PodUid) -> None:
        """Decide what a user is who has a directory of another's pod: its former user, or accused, which is said once."""
        if uid not in self._pods or (owner := self.owner(uid)) is tenant:
            return
        pod = self._pods[uid][0]
        if tenant.has(pod) and (owner is None or owner.heard(uid) is None):
            self._pods[uid] = pod, tenant
            log.warning("job %s of pod %s is of %s, and stays it: by the policy the pod would be another's now",
                        pod.job_id, uid, tenant.name, extra={"uid": uid})  # fmt: skip
        elif uid not in tenant.accused and not tenant.may_have(pod):
            tenant.accused.add(uid)
            log.error("%s has a directory for pod %s, which is not theirs by the policy: not believed", tenant.name, uid,
                      extra={"uid": uid})  # fmt: skip

    # --- what is known of it --------------------------------------------------------------------------------------

    def hear(self, tenant: Tenant, reports: Iterable[PodReport]) -> None:
        """Take what a user's provider says of pods, after its first Snapshot."""
        assert tenant.reports is not None  # noqa: S101  the contract: a Snapshot comes first
        for report in reports:
            tenant.reports[report.uid] = report
            self._judge(tenant, report.uid)

    def report(self, uid: PodUid) -> PodReport | None:
        """Return what is known of a pod's job: its own user's word, an empty report while that can't be had."""
        if uid not in self._pods:
            holder = self.holder(uid)
            heard = None if holder is None else holder.heard(uid)
            return None if heard is None else replace(heard, stray=True)
        pod, owner = self._pods[uid]
        trouble = self.trouble(uid)
        if trouble or (owner is not None and owner.reports is None) or self._undecided(pod, owner):
            return PodReport(uid, pod.namespace, pod.name, None, None, None, trouble=trouble)
        heard = None if owner is None else owner.heard(uid)
        return heard if heard is None or owner is None else replace(heard, user=owner.user or "")

    def reports(self) -> tuple[PodReport, ...]:
        """Return what is known of every pod's job."""
        uids = dict.fromkeys(self._pods)
        for tenant in self.tenants:
            uids.update(dict.fromkeys(tenant.reports or ()))
        return tuple(report for uid in uids if (report := self.report(uid)) is not None)
