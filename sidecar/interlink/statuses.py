"""What is known of a pod or of the cluster → the answers of an interLink plugin. Pure: ``now`` is passed.

interLink's virtual kubelet makes a pod's phase of its containers' states alone, and takes a pod without any for one that
has succeeded. So each answer has every container of its pod, and a pod that is not known here has no answer.
"""

from collections.abc import Mapping

from slurm_plugin.cluster import Cluster
from slurm_plugin.config import ResourceMapping
from slurm_plugin.containerstates import KILLED
from slurm_plugin.contract import PodReport
from slurm_plugin.gpus import concrete, devices
from slurm_plugin.job import JobId, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.podstatus import pod_status, timestamp

from .wire import Json

_TERMINATED = 143  # 128 + TERM


def created(uid: str, job_id: str) -> Json:
    """Return a ``CreateStruct``."""
    return {"PodUID": uid, "PodJID": job_id}


def accepted(pod: Pod, job_id: JobId) -> PodReport:
    """Return the report of a pod that Slurm has just taken, before anything is heard of it."""
    metadata = pod.metadata
    return PodReport(PodUid(metadata.uid), metadata.namespace, metadata.name, job_id, None, None)


def status_of(pod: Pod, report: PodReport, *, now: float) -> Json:
    """Return a ``PodStatus``. What interLink has written into the pod's own status is not looked at."""
    status = pod_status(pod.model_copy(update={"status": {}}), report, now=now, node_ips=())
    if status["phase"] == "Failed":
        status = _plainly_failed(status, now)
    return {
        "name": pod.metadata.name,
        "UID": pod.metadata.uid,
        "namespace": pod.metadata.namespace,
        "JID": report.job_id or "",
        "containers": status["containerStatuses"],
        "initContainers": status.get("initContainerStatuses", []),
    }


def _plainly_failed(status: Json, now: float) -> Json:
    """Return a failed pod's status with its containers saying so: they are all that interLink looks at.

    A container that never ran has ended too; where each ended well, and the pod was ended for a reason of its own (its
    deadline, say), that is theirs.
    """
    apps = status["containerStatuses"]
    all_well = all((each["state"].get("terminated") or {}).get("exitCode") == 0 for each in apps)
    reason = {"reason": status["reason"] or "Error", "message": status["message"] or "the pod failed"}

    def failed(each: Json, code: int) -> Json:
        ending = {"startedAt": None, "finishedAt": timestamp(now)} | (each["state"].get("terminated") or {})
        return each | {"state": {"terminated": ending | {"exitCode": code} | reason}, "ready": False, "started": False}

    def ended(each: Json) -> Json:
        return each if "terminated" in each["state"] else failed(each, KILLED)

    inits = [ended(each) for each in status.get("initContainerStatuses", [])]
    told = [failed(each, _TERMINATED) if all_well else ended(each) for each in apps]
    return status | {"containerStatuses": told, "initContainerStatuses": inits}


def end_of(report: PodReport) -> float | None:
    """Return when a pod that is over ended, in epoch seconds, as far as anybody has said."""
    if report.job is not None and report.job.end_time:
        return float(report.job.end_time)
    return report.runner.finished_at or None if report.runner is not None else None


def lost(pod: Pod) -> PodReport:
    """Return the report of a pod that was created once and of which nothing is left."""
    metadata = pod.metadata
    return PodReport(PodUid(metadata.uid), metadata.namespace, metadata.name, None, None, None, absent=True)


def ping(cluster: Cluster | None, mappings: Mapping[str, ResourceMapping], error: str | None) -> Json:
    """Return a ``PingResponse`` with what the usable nodes have; without resources while that is not known.

    Taints are not told: an empty list would take away those that the site has given interLink's node.
    """
    answer: Json = {"status": error or "ok"}
    if cluster is None:
        return answer
    usable = [node for node in cluster.nodes if node.usable]
    kinds = {kind for node in usable for kind in node.gres}
    accelerators = [
        {"resourceType": name, "available": str(sum(devices(node, mapping, mappings.values()) for node in usable))}
        for name, mapping in concrete(mappings, kinds).items()
    ]
    cpus, memory = sum(node.cpus for node in usable), sum(node.memory_mib for node in usable)
    return answer | {"resources": {"cpu": f"{cpus}", "memory": f"{memory}Mi", "accelerators": accelerators}}


def system_info(error: str | None, *, now: float) -> Json:
    """Return what ``/system-info`` tells: whether Slurm answers, and if not, why."""
    answer: Json = {"status": "ok", "timestamp": timestamp(now), "slurm_connected": error is None}
    return answer if error is None else answer | {"status": "error", "error": error}
