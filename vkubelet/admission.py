"""What a pod must pass before it is submitted: this node's labels, and the jobs that it depends on. Pure.

The scheduler has looked at labels already; a pod that was bound past it (``spec.nodeName``, a DaemonSet's) has not been
looked at. A DaemonSet that tolerates everything (kube-proxy, a CNI plugin, an exporter) means machines with a kubelet
of their own: failing its pod would make the controller create the next one for ever, so it is left Pending.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurm_plugin.annotations import field_of, parse_annotations
from slurm_plugin.errors import InvalidAnnotationError
from slurm_plugin.job import Dependency
from slurm_plugin.pod import Pod

from .errors import NodeAffinityError

Json = Mapping[str, Any]

_DEPENDENCY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a pod is not submitted yet: an event's reason, a message, and when to look again (None: when it changes)."""

    reason: str
    message: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class KnownPod:
    """A pod that another may depend on. ``job_id`` is "" while it has none."""

    phase: str
    job_id: str


class Neighbours:
    """The pods on all virtual nodes of one Slurm cluster in this agent, by namespace and name."""

    def __init__(self) -> None:
        self._finders: list[Callable[[str, str], KnownPod | None]] = []

    def join(self, find: Callable[[str, str], KnownPod | None]) -> None:
        """Take in one node's pods."""
        self._finders.append(find)

    def find(self, namespace: str, name: str) -> KnownPod | None:
        """Return the pod of that name, None where no node has one."""
        return next((found for find in self._finders if (found := find(namespace, name)) is not None), None)


class Admission:
    """One node's gate. ``labels`` returns the Node's labels, None while they are not known."""

    def __init__(
        self,
        node: str,
        neighbours: Neighbours,
        *,
        taints: Sequence[str] = (),
        labels: Callable[[], Mapping[str, str] | None] = lambda: None,
    ) -> None:
        self._node = node
        self.neighbours = neighbours
        self._taints = frozenset(taints)
        self._labels = labels

    def hold(self, body: Json) -> Hold | None:
        """Return why the pod of this JSON is none to submit, None if it may be. Raises NodeAffinityError."""
        if self._strays(body):
            message = f"not run: a DaemonSet's pod that does not tolerate the taint of {self._node} by its name"
            return Hold("DaemonSetIgnored", message, None)
        labels = self._labels()
        if labels is not None and not matches(body["spec"], labels, self._node):
            raise NodeAffinityError(
                "spec.nodeSelector", f"node {self._node} does not match the pod's selector or affinity"
            )
        return None

    def _strays(self, body: Json) -> bool:
        owners = body["metadata"].get("ownerReferences") or ()
        if not any(owner.get("controller") and owner.get("kind") == "DaemonSet" for owner in owners):
            return False
        spec = body["spec"]
        named = {toleration.get("key") for toleration in spec.get("tolerations") or ()}
        return self._taints.isdisjoint(named) and "type" not in (spec.get("nodeSelector") or {})

    def jobs(self, pod: Pod) -> tuple[dict[str, str], Hold | None]:
        """Return the jobs of the pods that this one depends on, by name, or why it has to wait for them to be known.

        Raises InvalidAnnotationError, also where a pod can't be waited for any more.
        """
        jobs: dict[str, str] = {}
        waiting = []
        for dependency in parse_annotations(pod.metadata.annotations).dependencies:
            for name in dependency.pods:
                found = self.neighbours.find(pod.metadata.namespace, name)
                job_id = None if found is None else _job_to_wait_for(dependency, name, found)
                if job_id is None:
                    waiting.append(name)
                else:
                    jobs[name] = jobs.get(name) or job_id
        if waiting:
            message = f"waits for a Slurm job of pod {', '.join(sorted(set(waiting)))}"
            return jobs, Hold("SlurmDependency", message, _DEPENDENCY_SECONDS)
        return jobs, None


def _job_to_wait_for(dependency: Dependency, name: str, pod: KnownPod) -> str | None:
    """Return a job id, "" where there is nothing to wait for any more, None while there is no job yet."""
    met = {"Succeeded": {"after", "afterany", "afterok"}, "Failed": {"after", "afterany", "afternotok"}}
    if dependency.kind in met.get(pod.phase, set()):
        return ""
    if pod.phase in met and not pod.job_id:
        message = f"{dependency.kind}:{name} can't be met any more: the pod is {pod.phase} and had no job"
        raise InvalidAnnotationError(field_of("dependency"), message)
    return pod.job_id or None


def matches(spec: Json, labels: Mapping[str, str], name: str) -> bool:
    """Whether a node's labels match a pod's nodeSelector and required node affinity.

    Rules: Kubernetes 1.36, ``component-helpers/scheduling/corev1/nodeaffinity``: terms are alternatives, an empty one
    matches nothing.
    """
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity")) or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_term(term, labels, name) for term in required.get("nodeSelectorTerms") or ())


def _term(term: Json, labels: Mapping[str, str], name: str) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    wanted = [(each, labels) for each in expressions] + [(each, {"metadata.name": name}) for each in fields]
    return bool(wanted) and all(_requirement(each, values) for each, values in wanted)


def _requirement(wanted: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(wanted["key"]), wanted.get("values") or []
    match wanted["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                difference = int(value or "") - int(values[0])
            except (ValueError, IndexError):
                return False
            return difference > 0 if operator == "Gt" else difference < 0
        case _:
            return False
