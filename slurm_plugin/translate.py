"""Pod → what is submitted: the batch job and the runner's plan. Pure: no I/O, no clock, no environment.

Everything that can't be honoured is a TranslationError that names the field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from . import gpus, mpi, policy
from .admission import candidates, check_exclusive, check_size, first_that_fits
from .annotations import MOUNTS, Annotations, annotation_path, field_of, parse_annotations
from .claims import PersistentVolume, places_of
from .cluster import Cluster
from .config import PodSettings, PolicyRule, SiteSettings
from .errors import InvalidAnnotationError, PolicyError
from .interlinkpods import as_meant, binds
from .job import BatchJob, Gres, Layout
from .jobdir import Root
from .nodelabels import selection
from .plans import ephemeral_containers, make_plan
from .pod import Pod
from .refusals import check, check_host_path, check_image_paths
from .resources import Requirements, requirements
from .runner import plan
from .runner.plan import Plan

# Slurm may send the warning up to 60 s early; the rest is for the runner to write its last state.
WARNING_MARGIN_SECONDS = 90
_MAX_WARNING_SECONDS = 65535  # sbatch(1) --signal


@dataclass(frozen=True, slots=True)
class Site:
    """All that a translation depends on besides the pod: the configuration, and where the Slurm user's files are.

    ``archive`` and ``archive_digest`` are the runner's zipapp; ``uid`` and ``gid`` are the Slurm user's numeric ids, None
    if unknown.
    ``cluster`` is what the virtual node's part of Slurm has, None if unknown.
    """

    settings: SiteSettings
    root: Root
    archive: str
    archive_digest: str
    uid: int | None = None
    gid: int | None = None
    cluster: Cluster | None = None


@dataclass(frozen=True, slots=True)
class Translation:
    """A pod, translated."""

    job: BatchJob
    plan: Plan


def _as_meant(pod: Pod, site: Site) -> Pod:
    """Return the pod with what interLink's annotations mean in its fields. PolicyError names the annotation, not a field of ours."""
    for bind in binds(pod.metadata.annotations):
        check_host_path(bind.source, annotation_path(MOUNTS), site.settings.pods.host_paths, site.root.path)
    return as_meant(pod)


def job_name(pod: Pod) -> str:
    """Return ``namespace/name:uid``: the name by which an unknown submission is found again."""
    return f"{pod.metadata.namespace}/{pod.metadata.name}:{pod.metadata.uid}"


def _warning_seconds(pod: Pod, limit_minutes: int | None = None) -> int:
    """Return how long before its time limit the runner is warned: its grace period and a margin, but not from the start."""
    wanted = min(pod.spec.termination_grace_period_seconds + WARNING_MARGIN_SECONDS, _MAX_WARNING_SECONDS)
    return wanted if limit_minutes is None else min(wanted, limit_minutes * 60 // 2)


def _time_limit(pod: Pod, wishes: Annotations, settings: PodSettings, rule: PolicyRule) -> int | None:
    """Return the time limit in minutes: the annotation's; else room for activeDeadlineSeconds; else the site's default."""
    ceiling, least = rule.max_time_limit_minutes, settings.minimum_time_limit_minutes
    if (wish := wishes.time_limit_minutes) is not None:
        limit = max(wish, least)
        policy.check_ceiling(limit, ceiling, field_of("time-limit"), "minutes")
        return limit
    if (deadline := pod.spec.active_deadline_seconds) is not None:
        # The runner ends the pod at its deadline; Slurm's own limit must leave it the time to do so.
        limit = max(ceil((deadline + _warning_seconds(pod)) / 60), least)
        policy.check_ceiling(limit, ceiling, "spec.activeDeadlineSeconds", "minutes, the grace period included,")
        return limit
    return min((m for m in (settings.default_time_limit_minutes, ceiling) if m is not None), default=None)


def _gres(need: Requirements, wishes: Annotations) -> tuple[Gres, ...]:
    """Return the GRES of the containers' resources and of the annotation; one of both would be asked for only once."""
    for wish in wishes.gres:
        if any(gres.name == wish.name for gres in need.gres):
            message = f"a container's resources ask for {wish.name} already; name its type by {field_of('gpu-type')}"
            raise InvalidAnnotationError(field_of("gres"), message)
    return (*need.gres, *wishes.gres)


def _memory_mib(
    need: Requirements, layout: Layout, rule: PolicyRule, partition: str, cluster: Cluster | None
) -> int | None:
    """Return the memory per node: what the pod asks for, or else all that the rule's ceiling and any node allow.

    Under a ceiling it is never left to Slurm, whose own default (``DefMemPerNode``) may be all that a node has.
    """
    if need.memory_mib is not None or rule.max_memory_mib is None:
        return need.memory_mib
    nodes = () if cluster is None else candidates(cluster, partition)
    smallest = min((node.memory_mib for node in nodes), default=rule.max_memory_mib)
    return max(1, min(rule.max_memory_mib // layout.nodes, smallest))  # sbatch takes 0 for the whole node


def _check_ceilings(rule: PolicyRule, need: Requirements, layout: Layout, settings: PodSettings) -> None:
    """Compare what the whole job takes, on all its nodes, with the rule's ceilings."""
    fractions = {"mps", "shard"} & {gres.name for gres in need.gres}  # parts of GPUs, in units of their own
    if fractions and rule.max_gpus is not None:
        raise PolicyError(field_of("gres"), f"{' and '.join(sorted(fractions))} can't be had in this namespace")
    nodes = layout.nodes
    memory = None if need.memory_mib is None else nodes * need.memory_mib
    policy.check_ceiling(nodes, rule.max_nodes, field_of("nodes"), "nodes")
    policy.check_ceiling(layout.ntasks * need.cpus, rule.max_cpus, "spec.containers", "CPUs")
    policy.check_ceiling(memory, rule.max_memory_mib, "spec.containers", "MiB of memory")
    policy.check_ceiling(nodes * gpus.count(need.gres, settings), rule.max_gpus, "spec.containers", "GPUs")


def _selected(pod: Pod, wishes: Annotations) -> Annotations:
    """Return the wishes with what the pod selects by the node's labels: a partition, features."""
    chosen = selection(pod)
    if chosen.partition and wishes.partition not in {"", chosen.partition}:
        message = f"{wishes.partition!r} is not the partition that the pod selects by a label: {chosen.partition!r}"
        raise InvalidAnnotationError(field_of("partition"), message)
    features = "&".join(chosen.features)
    if features and set("()[]*,") & set(wishes.constraint):
        message = f"can't be joined with the features that the pod selects by labels: {features}"
        raise InvalidAnnotationError(field_of("constraint"), message)
    own = f"({wishes.constraint})" if features and "|" in wishes.constraint else wishes.constraint
    return replace(
        wishes,
        partition=wishes.partition or chosen.partition,
        constraint="&".join(part for part in (own, features) if part),
    )


def _dependencies(wishes: Annotations, jobs: Mapping[str, str]) -> tuple[str, ...]:
    """Return sbatch's terms; a pod whose job is "" needs no waiting for any more."""
    terms = []
    for dependency in wishes.dependencies:
        if unknown := [name for name in dependency.pods if name not in jobs]:
            message = f"no job of pod {', '.join(unknown)} is known in this namespace"
            raise InvalidAnnotationError(field_of("dependency"), message)
        if ids := [jobs[name] for name in dependency.pods if jobs[name]]:
            terms.append(":".join((dependency.kind, *ids)))
    return tuple(terms)


def _needs(pod: Pod, wishes: Annotations, settings: PodSettings, ranks: mpi.RankWishes | None) -> Requirements:
    need = requirements(pod, settings, gpu_type=gpus.gpu_type(pod, wishes, settings), ranks=ranks)
    # With ranks, the annotation is one container's: what the others ask for has been added to it.
    by_annotation = wishes.cpus_per_task if ranks is None else None
    cpus = need.cpus if by_annotation is None else by_annotation
    memory = need.memory_mib if wishes.memory_mib is None else wishes.memory_mib
    per_node = 1 if ranks is None else ranks.layout.tasks_per_node
    return replace(
        need,
        cpus=max(cpus, ceil(settings.minimum_cpus / per_node)),
        memory_mib=None if memory is None else max(memory, settings.minimum_memory_mib),
        gres=_gres(need, wishes),
    )


def _begun(pod: Pod) -> Pod:
    """Return the pod as it begins: what was added to it meanwhile (``extension``) is no reason not to run it."""
    return pod.model_copy(update={"spec": pod.spec.model_copy(update={"ephemeral_containers": ()})})


def extension(pod: Pod, site: Site, claims: Mapping[str, PersistentVolume]) -> tuple[plan.Container, ...]:
    """Translate a pod's ephemeral containers. Raises TranslationError naming the field."""
    check(pod, site.settings.pods, uid=site.uid, gid=site.gid, root=site.root.path)
    check_image_paths(pod, site.settings.pods, site.root)
    places = places_of(pod, claims, site.settings.pods.persistent_volumes, root=site.root.path)
    return ephemeral_containers(pod, site.settings.pods, places)


def _admitted(job: BatchJob, wishes: Annotations, rule: PolicyRule, site: Site) -> BatchJob:
    """Return the job in the partition where it can run; TooLargeError or PolicyError if there is none."""
    cluster, settings = site.cluster, site.settings
    if cluster is not None and not wishes.partition:
        job = first_that_fits(job, policy.partitions(rule, settings.slurm.partitions), cluster)
    check_exclusive(job, rule, cluster, settings.pods)
    if cluster is not None:
        check_size(job, cluster, settings.pods.resources)
    return job


def translate(
    pod: Pod, site: Site, jobs: Mapping[str, str] | None = None, claims: Mapping[str, PersistentVolume] | None = None
) -> Translation:
    """Translate a pod. Raises TranslationError (unsupported, invalid, against policy, too large) naming the field.

    ``jobs``: the jobs of the pods that this one depends on, by name (``contract.PodContent``). ``claims``: the
    PersistentVolumes of its volumes that are claims, by volume.
    """
    settings = site.settings
    rule = policy.rule_for(settings.policy, pod)
    pod = _as_meant(pod, site)
    check(_begun(pod), settings.pods, uid=site.uid, gid=site.gid, root=site.root.path)
    check_image_paths(_begun(pod), settings.pods, site.root)
    places = places_of(pod, claims or {}, settings.pods.persistent_volumes, root=site.root.path)
    wishes = _selected(pod, parse_annotations(pod.metadata.annotations))
    ranks = mpi.rank_wishes(pod, wishes, settings.pods)
    layout = Layout() if ranks is None else ranks.layout
    need = _needs(pod, wishes, settings.pods, ranks)
    limit = _time_limit(pod, wishes, settings.pods, rule)
    placement = policy.placement(
        rule, wishes, node=settings.slurm.partitions, priority_class=pod.spec.priority_class_name
    )
    need = replace(need, memory_mib=_memory_mib(need, layout, rule, placement.partition, site.cluster))
    _check_ceilings(rule, need, layout, settings.pods)
    job = BatchJob(
        name=job_name(pod),
        directory=site.root.job_dir(pod.metadata.uid).path,
        archive=site.archive,
        archive_digest=site.archive_digest,
        interpreters=settings.slurm.interpreters,
        cpus=need.cpus,
        memory_mib=need.memory_mib,
        tmp_mib=need.tmp_mib,
        gres=need.gres,
        time_limit_minutes=limit,
        warning_seconds=_warning_seconds(pod, limit),
        placement=replace(placement, dependencies=_dependencies(wishes, jobs or {})),
        extra_arguments=policy.raw_flags(rule, wishes),
        layout=layout,
    )
    job = _admitted(job, wishes, rule, site)
    plan = make_plan(pod, settings.pods, images=site.root.images, places=places)
    if ranks is not None:
        plan = mpi.with_ranks(plan, ranks, wishes, settings.pods, policy.srun_arguments(rule, wishes))
    return Translation(job=job, plan=plan)
