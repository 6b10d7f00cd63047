from typing import Any

import pytest

from slurm_plugin.errors import InvalidAnnotationError
from slurm_plugin.pod import Pod
from vkubelet.admission import Admission, Hold, KnownPod, Neighbours, matches
from vkubelet.errors import NodeAffinityError

LABELS = {"zone": "a", "cores": "16", "type": "virtual-kubelet"}


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


def wants(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, True),
        ({"nodeSelector": {"zone": "a"}}, True),
        ({"nodeSelector": {"zone": "b"}}, False),
        ({"nodeSelector": {"none": ""}}, False),
        ({"affinity": {"podAffinity": {}}}, True),
        (affinity(), False),
        (affinity({}), False),
        (affinity(wants("zone", "In", "a", "b")), True),
        (affinity(wants("zone", "In", "b"), wants("zone", "Exists")), True),
        (affinity(wants("zone", "NotIn", "a")), False),
        (affinity(wants("none", "NotIn", "a")), True),
        (affinity(wants("none", "DoesNotExist")), True),
        (affinity(wants("zone", "DoesNotExist")), False),
        (affinity(wants("cores", "Gt", "15")), True),
        (affinity(wants("cores", "Gt", "16")), False),
        (affinity(wants("cores", "Lt", "17")), True),
        (affinity(wants("zone", "Lt", "17")), False),
        (affinity(wants("none", "Gt", "1")), False),
        (affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}), True),
        (affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}), False),
        ({"nodeSelector": {"zone": "b"}, **affinity(wants("zone", "Exists"))}, False),
    ],
)
def test_labels_match_by_kubernetes_rules(spec: dict[str, Any], expected: bool) -> None:
    assert matches(spec, LABELS, "n") is expected


def body(*, daemon: bool = False, **spec: Any) -> dict[str, Any]:
    owners = [{"kind": "DaemonSet" if daemon else "ReplicaSet", "controller": True, "uid": "u"}]
    return {"metadata": {"name": "p", "ownerReferences": owners}, "spec": spec}


ADMISSION = Admission("n", Neighbours(), taints=["virtual-kubelet.io/provider"], labels=lambda: LABELS)
EVERYTHING = [{"operator": "Exists"}]
BY_NAME = [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]


def test_a_daemon_that_tolerates_everything_is_left_pending() -> None:
    hold = ADMISSION.hold(body(daemon=True, tolerations=EVERYTHING))
    assert hold is not None
    assert (hold.reason, hold.seconds) == ("DaemonSetIgnored", None)


@pytest.mark.parametrize(
    "pod",
    [body(tolerations=EVERYTHING), body(daemon=True, tolerations=EVERYTHING + BY_NAME),
     body(daemon=True, tolerations=EVERYTHING, nodeSelector={"type": "virtual-kubelet"})],
)  # fmt: skip
def test_others_and_daemons_that_mean_this_node_are_not(pod: dict[str, Any]) -> None:
    assert ADMISSION.hold(pod) is None


def test_a_pod_bound_past_its_selector_is_refused_once_labels_are_known() -> None:
    pod = body(nodeSelector={"zone": "b"})
    with pytest.raises(NodeAffinityError, match="does not match"):
        ADMISSION.hold(pod)
    assert Admission("n", Neighbours()).hold(pod) is None


def depends(text: str, **pods: KnownPod) -> tuple[dict[str, str], Hold | None]:
    neighbours = Neighbours()
    neighbours.join(lambda namespace, name: None)
    neighbours.join(lambda namespace, name: pods.get(name) if namespace == "default" else None)
    metadata = {"name": "p", "annotations": {"slurmlet.io/dependency": text}}
    return Admission("n", neighbours).jobs(Pod.model_validate({"metadata": metadata, "spec": {"containers": []}}))


def test_jobs_of_other_pods_are_found_by_name_and_met_ones_need_none() -> None:
    running, good, bad = KnownPod("Running", "7"), KnownPod("Succeeded", "8"), KnownPod("Failed", "9")
    assert depends("afterok:a:b,afterany:c", a=running, b=good, c=bad) == ({"a": "7", "b": "", "c": ""}, None)
    assert depends("afternotok:b,afterok:c", b=good, c=bad) == ({"b": "8", "c": "9"}, None)
    assert depends("afterany:b,afternotok:b", b=good) == ({"b": "8"}, None)


def test_a_pod_waits_until_all_jobs_are_known() -> None:
    _, hold = depends("afterok:a:b:c", a=KnownPod("Pending", ""), c=KnownPod("Running", "7"))
    assert hold is not None
    assert (hold.reason, hold.message) == ("SlurmDependency", "waits for a Slurm job of pod a, b")
    assert hold.seconds


def test_what_can_never_be_met_is_refused() -> None:
    with pytest.raises(InvalidAnnotationError, match="afterok:a can't be met any more"):
        depends("afterok:a", a=KnownPod("Failed", ""))
