"""Who a pod is in Slurm and what it may ask for: namespace and service account → user, account, partitions, ceilings.

Decided by the site's configuration alone, never by what a pod says of itself. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from .annotations import FLAGS, Annotations, field_of
from .annotationvalues import features_in, licenses_in
from .config import PolicyRule, PrioritySettings
from .errors import PolicyError
from .job import Placement
from .pod import Pod
from .rawflags import features_of, means_whole_cores


def rule_for(policy: Sequence[PolicyRule], pod: Pod) -> PolicyRule:
    """Return the first rule that matches the pod's namespace and service account; PolicyError if none does."""
    return rule_of(policy, pod.metadata.namespace, pod.spec.service_account_name)


def rule_of(policy: Sequence[PolicyRule], namespace: str, account: str) -> PolicyRule:
    """Return the first rule that matches a namespace and a service account; PolicyError if none does."""
    for rule in policy:
        if any(fnmatchcase(namespace, pattern) for pattern in rule.namespaces) and any(
            fnmatchcase(account, pattern) for pattern in rule.service_accounts
        ):
            return rule
    raise PolicyError(
        "metadata.namespace",
        f"no policy rule lets service account {account!r} of namespace {namespace!r} use this cluster; "
        "ask the administrator of the virtual node",
    )


def _choose(wish: str, allowed: Sequence[str], field: str, what: str) -> str:
    """Return the pod's wish if it is allowed, or the default: the first allowed name, "" for Slurm's own default."""
    anything = "*" in allowed
    if not wish:
        return "" if anything or not allowed else allowed[0]
    if anything or wish in allowed:
        return wish
    choice = f"one of {', '.join(allowed)}" if allowed else f"no {what} of its own choice"
    raise PolicyError(field, f"{what} {wish!r} is not allowed in this namespace; allowed: {choice}")


def partitions(rule: PolicyRule, node: Sequence[str]) -> tuple[str, ...]:
    """Return the partitions of which a pod that names none gets one, the default first; empty leaves it to Slurm.

    ``node``: the partitions that the virtual node stands for, empty for all.
    """
    if not node:
        return () if "*" in rule.partitions else rule.partitions
    return tuple(name for name in (node if "*" in rule.partitions else rule.partitions) if name in node)


def _partition(rule: PolicyRule, wish: str, node: Sequence[str]) -> str:
    """Choose among the partitions that the rule allows and the virtual node stands for; ``node`` empty is all."""
    if not node:
        return _choose(wish, rule.partitions, field_of("partition"), "partition")
    allowed = partitions(rule, node)
    if not allowed:
        choice = f"it may use {', '.join(rule.partitions)}" if rule.partitions else "it may not choose one"
        message = f"this node stands for {', '.join(node)}, which this namespace may not use; {choice}"
        raise PolicyError(field_of("partition"), message)
    return _choose(wish, allowed, field_of("partition"), "partition")


def _check_names(names: Iterable[str], allowed: Sequence[str], field: str, what: str) -> None:
    for name in sorted(names):
        _choose(name, allowed, field, what)


def placement(
    rule: PolicyRule, wishes: Annotations, *, node: Sequence[str] = (), priority_class: str = ""
) -> Placement:
    """Turn a pod's annotations into a placement that the rule allows; PolicyError names the annotation otherwise.

    ``node``: the partitions that the virtual node stands for, empty for all. ``priority_class``: the pod's; what the
    rule maps it to is the site's own choice, and counts where the pod's annotations wish nothing.
    """
    if wishes.requeue and not rule.requeue:
        raise PolicyError(field_of("requeue"), "requeueing is not allowed in this namespace")
    if wishes.exclusive and not rule.exclusive:
        raise PolicyError(field_of("exclusive"), "whole nodes are not allowed in this namespace")
    if wishes.nice is not None and wishes.nice < 0:
        raise PolicyError(field_of("nice"), "a negative nice value raises the priority; only 0 or more is allowed")
    if wishes.priority is not None and rule.max_priority is None:
        raise PolicyError(field_of("priority"), "a priority of its own is not allowed in this namespace; nice is")
    check_ceiling(wishes.priority, rule.max_priority, field_of("priority"), "of priority")
    _check_names(features_in(wishes.constraint), rule.constraints, field_of("constraint"), "feature")
    if wishes.licenses:
        _check_names(licenses_in(wishes.licenses), rule.licenses, field_of("licenses"), "licence")
    urgency = rule.priority_classes.get(priority_class, PrioritySettings())
    chosen = Placement(
        partition=_partition(rule, wishes.partition, node),
        account=_choose(wishes.account, rule.accounts, field_of("account"), "account"),
        qos=(not wishes.qos and urgency.qos) or _choose(wishes.qos, rule.qos, field_of("qos"), "QOS"),
        wckey=_choose(wishes.wckey, rule.wckeys, field_of("wckey"), "workload characterization key"),
        constraint=wishes.constraint,
        licenses=wishes.licenses,
        comment=wishes.comment,
        priority=wishes.priority,
        nice=urgency.nice if wishes.nice is None else wishes.nice,
        exclusive=wishes.exclusive,
        requeue=wishes.requeue,
    )
    if wishes.reservation:
        reservation = _choose(wishes.reservation, rule.reservations, field_of("reservation"), "reservation")
        chosen = replace(chosen, reservation=reservation)
    return chosen


def raw_flags(rule: PolicyRule, wishes: Annotations) -> tuple[str, ...]:
    """Return raw sbatch flags where the rule lets a namespace use them; PolicyError otherwise."""
    if wishes.flags and not rule.raw_flags:
        message = f"raw sbatch flags are not allowed in this namespace: {' '.join(wishes.flags)}"
        raise PolicyError(field_of(FLAGS), message)
    _check_names(features_of(wishes.flags), rule.constraints, field_of(FLAGS), "feature")
    if rule.max_cpus is not None and means_whole_cores(wishes.flags):
        message = f"--hint may take more CPUs than are asked for, of which this namespace may use {rule.max_cpus}"
        raise PolicyError(field_of(FLAGS), message)
    return wishes.flags


def srun_arguments(rule: PolicyRule, wishes: Annotations) -> tuple[str, ...]:
    """Return the options for srun that the rule lets a namespace use; PolicyError for any other. Names are never shortened."""
    for word in wishes.srun_args:
        if word.removeprefix("--").partition("=")[0] not in rule.srun_args:
            allowed = ", ".join(f"--{name}" for name in rule.srun_args) or "none"
            raise PolicyError(field_of("srun-args"), f"{word!r} is not allowed in this namespace; allowed: {allowed}")
    return wishes.srun_args


def check_ceiling(value: int | None, ceiling: int | None, field: str, unit: str) -> None:
    """Raise PolicyError if a value is above the rule's ceiling; None is unlimited on either side."""
    if value is not None and ceiling is not None and value > ceiling:
        raise PolicyError(field, f"{value} {unit} is more than this namespace may use ({ceiling} {unit})")
