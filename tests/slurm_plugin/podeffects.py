"""Everything that becomes of a pod's spec, as far as it is computed: what tells whether a field is looked at.

Two pods that differ in one field and have the same effects show that nobody looks at that field.
"""

import base64
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from slurm_plugin.claims import PersistentVolume
from slurm_plugin.contract import PodReport
from slurm_plugin.errors import SlurmletError
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.podstatus import pod_status
from slurm_plugin.resolution.claims import claim_references
from slurm_plugin.resolution.environment import environments
from slurm_plugin.resolution.objects import (
    CONFIG_MAP,
    SECRET,
    Objects,
    Reference,
    Service,
    references,
    token_requests,
)
from slurm_plugin.resolution.pullsecrets import logins, pull_secrets
from slurm_plugin.resolution.volumes import volume_files
from slurm_plugin.runner.state import ContainerState, RunnerState, Running
from slurm_plugin.translate import extension, translate
from vkubelet.admission import matches
from vkubelet.extending import _alone

from .manifests import UID, make_site

Json = dict[str, Any]
SITE = make_site(
    pods={"host_paths": ["/"], "persistent_volumes": [{"host_path": "/pv", "path": "/site/{rest}"}]},
    policy=[{"priority_classes": {"x": {"qos": "high"}}, "qos": ["normal", "high"]}],
)
_SERVICE = Service("default", "db", "192.0.2.7", (("sql", "TCP", 5432),))
_NAMES = ("x", "y")  # of what is there, and holds the keys "x" and "y"


def effects(spec: Json) -> list[Any]:
    """Return what becomes of a pod with this spec: its job and plan, content, status; or the words of each refusal."""
    pod = Pod.model_validate({"metadata": {"name": "web", "uid": UID}, "spec": spec})
    claims = {volume.name: _volume() for volume in pod.spec.volumes}
    objects = _objects(pod)
    computed: tuple[Callable[[], Any], ...] = (
        lambda: translate(pod, SITE, claims=claims),
        lambda: extension(pod, SITE, claims),
        lambda: sorted(map(repr, references(pod) | pull_secrets(pod) | claim_references(pod) | token_requests(pod))),
        lambda: environments(pod, objects, {"cpu": Decimal(3)}),
        lambda: environments(_alone(pod), objects, {"cpu": Decimal(3)}),
        lambda: sorted(map(repr, references(_alone(pod)))),
        lambda: volume_files(pod, objects, {"cpu": Decimal(3)}),
        lambda: logins(pod, objects),
        lambda: pod_status(pod, _report(pod), now=60.0, node_ips=("192.0.2.1",)),
        lambda: matches(spec, {}, spec.get("nodeName", "")),
        lambda: [
            each.target_container_name for each in pod.spec.ephemeral_containers
        ],  # for an event: vkubelet.extending
    )
    return [_told(each) for each in computed]


def _told(compute: Callable[[], Any]) -> str:
    try:
        return repr(compute())
    except SlurmletError as error:
        return repr((type(error), str(error)))


def _volume() -> PersistentVolume:
    return PersistentVolume("default", "x", "pv-1", "hostPath", path="/pv/1")


def _objects(pod: Pod) -> Objects:
    texts = {key: f"value of {key}" for key in _NAMES}
    secret = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
    bodies: dict[Reference, Json | None] = {
        Reference(CONFIG_MAP, name): {"data": texts | {name: ""}} for name in _NAMES
    }
    bodies |= {Reference(SECRET, name): {"data": secret} for name in _NAMES}
    return Objects(bodies, {request: f"token {request}" for request in token_requests(pod)}, (_SERVICE,))


def _report(pod: Pod) -> PodReport:
    both = [("init", each) for each in pod.spec.init_containers] + [("app", each) for each in pod.spec.containers]
    states = tuple(ContainerState(each.name, kind, Running(50.0), None, 0, True, True, "") for kind, each in both)
    runner = RunnerState(
        1, 5, "7", 0, "cn1", ("10.0.0.7",), ("10.0.0.7",), 40.0, 0.0, False, False, "", "", states, ()
    )  # fmt: skip
    job = JobStatus(
        JobId("7"), JobState.RUNNING, frozenset(), start_time=40, end_time=None, restart_count=0, node_list="n"
    )
    return PodReport(PodUid(UID), "default", "web", JobId("7"), job, runner)
