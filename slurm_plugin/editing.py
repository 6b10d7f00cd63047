"""Edits of a live pod: what of its plan may change while it lives, and the plan's file with the edit.

The job directory's plan is replaced by rename. A runner that has not begun reads the new one; one that runs reads it
again when it is told to look (``Entering.admit``), and so does the next run of a requeued job.
"""

import json

from .config import PodSettings
from .errors import HostError
from .hosts.base import Host
from .images import resolve
from .interlinkpods import as_meant
from .jobdir import JobDir
from .pod import Pod
from .runner.plan import Edition, Plan, edition_of, plan_from_json
from .staging import plan_data

_MOST_BYTES = 1 << 20  # as ``runner.watch`` reads


def wanted(pod: Pod) -> Edition:
    """Return the edition that a pod is now of."""
    pod = as_meant(pod)
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    return Edition(tuple((each.name, each.image) for each in containers), pod.spec.active_deadline_seconds or 0)


def edited(plan: Plan, pod: Pod, settings: PodSettings) -> Plan:
    """Return a pod's plan with its edits, and nothing else of it changed: its job was made for the rest."""
    pod = as_meant(pod)
    now = {each.name: each for each in (*pod.spec.init_containers, *pod.spec.containers)}
    containers = tuple(
        each
        if each.name not in now or now[each.name].image == each.image.name
        else each._replace(image=resolve(now[each.name].image, now[each.name].image_pull_policy, settings.registries))
        for each in plan.containers
    )
    return plan._replace(containers=containers, deadline_seconds=pod.spec.active_deadline_seconds or 0)


async def edit_plan(host: Host, directory: JobDir, pod: Pod, settings: PodSettings) -> bool:
    """Make the plan's file say what the pod is now; return whether it did not. HostError: it can't be read."""
    data = await host.read(directory.plan, limit=_MOST_BYTES)
    if data is None:
        raise HostError(f"{directory.plan} is gone: the pod can't be edited; delete it and create it anew")
    try:
        plan = plan_from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostError(f"{directory.plan} can't be read: {error}; delete the pod and create it anew") from error
    if edition_of(plan) == wanted(pod):
        return False
    await host.write(directory.plan, plan_data(edited(plan, pod, settings)))
    return True
